"""A folder whose weights and structure disagree does not load, and the error names the layer."""

import json

import pytest
import transformers
from core_calls import AUTO_CLASS, irregular_plan
from safetensors.torch import load_file, save_file

from prunekit.errors import CheckpointError
from prunekit.testing.tiny import tiny_model

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(request, prunable, tmp_path):
    """A folder with an irregular model of the architecture given as parameter (T5 if none is)."""
    target = prunable(tiny_model(getattr(request, "param", "t5")))
    target.pruned(irregular_plan(target)).model.save_pretrained(tmp_path)
    return tmp_path


def load(folder, name="t5", **settings):
    return getattr(transformers, AUTO_CLASS[name]).from_pretrained(folder, **settings)


def edit_tensors(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def edit_config(folder, change):
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


def refusal(folder, name="t5", **settings):
    with pytest.raises(CheckpointError) as caught:
        load(folder, name, **settings)
    return str(caught.value)


Q = "encoder.block.1.layer.0.SelfAttention.q.weight"


def test_a_missing_tensor_is_named(folder):
    edit_tensors(folder, lambda tensors: tensors.pop(Q))
    assert refusal(folder) == (
        f"{folder}: weights and structure disagree in 1 places:\n  {Q}: missing in the file\n"
        "config.json and model.safetensors must come from the same `save_pretrained`."
    )


def test_a_tensor_too_many_is_named(folder):
    stray = "encoder.block.2.layer.0.SelfAttention.q.weight"  # that sublayer was removed
    edit_tensors(folder, lambda tensors: tensors.update({stray: tensors[Q].clone()}))
    assert f"\n  {stray}: not part of the structure\n" in refusal(folder)


def test_a_tensor_of_another_shape_is_named_with_both_shapes(folder):
    edit_tensors(folder, lambda tensors: tensors.update({Q: tensors[Q][:12].clone()}))
    assert f"\n  {Q}: (12, 16) in the file, (16, 16) in config.json\n" in refusal(folder)


def test_edited_kept_heads_are_named(folder):
    path = "encoder.block.0.layer.0.SelfAttention.kept_heads"
    edit_tensors(folder, lambda tensors: tensors[path].copy_(tensors[path] + 1))
    assert f"\n  {path}: [1, 3] in the file, another list in config.json\n" in refusal(folder)


@pytest.mark.parametrize("folder", ["bert"], indirect=True)
def test_a_tensor_of_another_shape_is_named_in_bert(folder):
    path = "bert.encoder.layer.0.attention.self.query.bias"
    edit_tensors(folder, lambda tensors: tensors.update({path: tensors[path][:4].clone()}))
    assert f"{path}: (4,) in the file, (8,) in config.json" in refusal(folder, "bert")


def test_many_faults_are_counted_and_the_first_are_shown(folder):
    edit_tensors(folder, lambda tensors: [tensors.pop(n) for n in list(tensors) if "EncDecAttention" in n])
    text = refusal(folder)
    assert "disagree in 10 places" in text
    assert text.count("missing in the file") == 8
    assert "\n  …\n" in text


def entry(config, block=0, stack="encoder"):
    return config["prunekit"]["stacks"][stack][block]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            lambda c: entry(c).update(self_attn=[0, 1]),
            "encoder.block.0.layer.0.SelfAttention.kept_heads: [0, 2] in the file, another list in",
        ),
        (
            lambda c: entry(c).update(self_attn=[0, 1, 2]),
            "encoder.block.0.layer.0.SelfAttention.q.weight: (8, 16) in the file, (12, 16) in config.json",
        ),
        (
            lambda c: entry(c).update(self_attn=[0, 1, 2, 3]),
            "encoder.block.0.layer.0.SelfAttention.kept_heads: not part of the structure",
        ),
        (
            lambda c: entry(c, 1).update(ffn=4),
            "encoder.block.1.layer.1.DenseReluDense.wi.weight: (3, 16) in the file, (4, 16) in config.json",
        ),
        (
            lambda c: entry(c, 1).update(ffn=None),
            "encoder.block.1.layer.1.DenseReluDense.wi.weight: not part of the structure",
        ),
        (
            lambda c: entry(c, 2).update(self_attn=[0, 1, 2, 3]),
            "encoder.block.2.layer.0.SelfAttention.k.weight: missing in the file",
        ),
        (
            lambda c: entry(c, 0, "decoder").update(cross_attn=None),
            "decoder.block.0.layer.1.EncDecAttention.k.weight: not part of the structure",
        ),
    ],
)
def test_an_edited_record_names_the_layers_that_no_longer_fit(change, text, folder):
    edit_config(folder, change)
    assert text in refusal(folder)


HEADS = "allowed are sorted heads from 0 to 3, or null if it was removed. Restore the file as it was saved."
WIDTH = "allowed are a width of 1 to 20, or null if it was removed. Restore the file as it was saved."


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda c: entry(c).update(self_attn=[0, 9]), f"says [0, 9] of encoder.0.self_attn; {HEADS}"),
        (lambda c: entry(c).update(self_attn=[2, 0]), f"says [2, 0] of encoder.0.self_attn; {HEADS}"),
        (lambda c: entry(c).update(self_attn=[2, 2]), f"says [2, 2] of encoder.0.self_attn; {HEADS}"),
        (lambda c: entry(c).update(self_attn=[]), f"says [] of encoder.0.self_attn; {HEADS}"),
        (lambda c: entry(c).update(self_attn=2), f"says 2 of encoder.0.self_attn; {HEADS}"),
        (lambda c: entry(c).update(self_attn="all"), f"says all of encoder.0.self_attn; {HEADS}"),
        (lambda c: entry(c).pop("self_attn"), f"says nothing of encoder.0.self_attn; {HEADS}"),
        (lambda c: entry(c).update(ffn=21), f"says 21 of encoder.0.ffn; {WIDTH}"),
        (lambda c: entry(c).update(ffn=0), f"says 0 of encoder.0.ffn; {WIDTH}"),
        (lambda c: entry(c).update(ffn=[3]), f"says [3] of encoder.0.ffn; {WIDTH}"),
        (
            lambda c: c["prunekit"]["stacks"]["decoder"].pop(),
            "config.json describes 1 blocks of the decoder, but its depth is 2.",
        ),
        (
            lambda c: c["prunekit"]["stacks"].pop("decoder"),
            "config.json describes 0 blocks of the decoder, but its depth is 2.",
        ),
        (
            lambda c: c.update(num_layers=2),
            "config.json describes 3 blocks of the encoder, but its depth is 2.",
        ),
        (
            lambda c: c["prunekit"].update(format=2),
            "config.json has no structure of format 1 under 'prunekit', found {'format': 2",
        ),
        (
            lambda c: c.pop("prunekit"),
            "config.json has no structure of format 1 under 'prunekit', found None. Only folders that this "
            "version of prunekit saved can be loaded.",
        ),
    ],
)
def test_a_record_that_makes_no_sense_is_refused(change, text, folder):
    edit_config(folder, change)
    assert text in refusal(folder)


def test_a_stock_folder_does_not_load_as_a_pruned_model(folder, prunable, tmp_path_factory):
    pruned_class = type(load(folder))
    stock = tmp_path_factory.mktemp("stock")
    tiny_model("t5").save_pretrained(stock)
    with pytest.raises(CheckpointError, match=r"config\.json has no structure of format 1 under 'prunekit'"):
        pruned_class.from_pretrained(stock)


def test_ignoring_mismatched_sizes_is_refused(folder):
    assert refusal(folder, ignore_mismatched_sizes=True) == (
        f"{folder}: ignore_mismatched_sizes=True would fill pruned layers with random weights. Load without "
        "it."
    )


def test_the_loading_report_is_still_to_be_had(folder):
    model, info = load(folder, output_loading_info=True)
    assert type(model).__name__ == "PrunekitT5ForConditionalGeneration"
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))


@pytest.mark.parametrize("folder", ["bert"], indirect=True)
def test_another_task_head_is_refused_with_the_class_that_was_saved(folder):
    with pytest.raises(CheckpointError, match="They hold a PrunekitBertForSequenceClassification; load it"):
        transformers.AutoModel.from_pretrained(folder)
