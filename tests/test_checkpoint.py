"""Pruned checkpoints: saved, loaded, saved again, trained, pruned again, without losing a bit."""

import json

import pytest
import torch
import transformers
from core_calls import (
    AUTO_CLASS,
    SEQ2SEQ,
    compared,
    difference,
    folder_bytes,
    irregular_plan,
    outputs,
    random_masks,
    same_tensors,
)
from transformers import T5EncoderModel, T5ForConditionalGeneration

from prunekit.pruning.auto import register
from prunekit.pruning.plan import PruningPlan
from prunekit.pruning.verify import reload_difference
from prunekit.testing.tiny import TINY_MODELS, tiny_inputs, tiny_model

pytestmark = pytest.mark.slow


def load(name, folder, **settings):
    return getattr(transformers, AUTO_CLASS[name]).from_pretrained(folder, **settings)


@pytest.fixture
def pruned(request, prunable):
    """An irregular pruned model of the architecture given as parameter."""
    target = prunable(tiny_model(request.param))
    return target.pruned(irregular_plan(target)).model


EVERY = pytest.mark.parametrize(("name", "pruned"), [(n, n) for n in TINY_MODELS], indirect=["pruned"])
# The DeiT with two classifiers takes no labels: transformers has it for inference alone.
WITH_LOSS = pytest.mark.parametrize(
    ("name", "pruned"), [(n, n) for n in TINY_MODELS if n != "deit-distilled"], indirect=["pruned"]
)
T5 = pytest.mark.parametrize("pruned", ["t5"], indirect=True)


@EVERY
def test_a_second_save_and_load_changes_nothing(name, pruned, tmp_path):
    pruned.save_pretrained(tmp_path / "first")
    reloaded = load(name, tmp_path / "first")
    assert type(reloaded) is type(pruned)
    assert not reloaded.training
    assert same_tensors(reloaded, pruned)
    reloaded.save_pretrained(tmp_path / "second")
    assert folder_bytes(tmp_path / "second") == folder_bytes(tmp_path / "first")


@EVERY
def test_a_reloaded_model_computes_the_same(name, pruned, tmp_path):
    pruned.double().save_pretrained(tmp_path)
    inputs = tiny_inputs(pruned)
    reloaded = load(name, tmp_path)
    # Not bit by bit: kernels may sum in another order where a tensor lies at another address.
    assert difference(outputs(pruned, inputs), outputs(reloaded, inputs)) <= 1e-12
    assert reload_difference(pruned, reloaded, inputs) <= 1e-9


@EVERY
def test_a_folder_holds_json_and_safetensors_only(name, pruned, tmp_path):
    pruned.save_pretrained(tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}


@T5
def test_weights_in_several_files_load_too(pruned, tmp_path):
    pruned.save_pretrained(tmp_path, max_shard_size="4KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert same_tensors(load("t5", tmp_path), pruned)


@T5
def test_pickled_weights_are_not_read(pruned, tmp_path):
    pruned.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(pruned.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(OSError, match=r"no file named model\.safetensors"):
        load("t5", tmp_path)


@EVERY
def test_the_config_keeps_every_stock_field_but_the_depths(name, pruned, tmp_path, prunable):
    dense = tiny_model(name)
    pruned.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    stock = json.loads(json.dumps(dense.config.to_dict()))
    changed = {key for key in stock if key in saved and saved[key] != stock[key]}
    depth = (
        {"num_decoder_layers"} if name.startswith("t5") else {"decoder_layers"} if name == "bart" else set()
    )
    assert changed <= depth | {"model_type", "architectures", "dtype"}
    assert saved["model_type"] == f"prunekit-{dense.config.model_type}"
    assert saved["architectures"] == [f"Prunekit{type(dense).__name__}"]


def test_the_record_says_what_is_left_of_each_block(prunable):
    target = prunable(tiny_model("t5"))
    record = target.pruned(irregular_plan(target)).model.config.prunekit
    every = [0, 1, 2, 3]
    assert record == {
        "format": 1,
        "stacks": {
            "encoder": [
                {"block": 0, "self_attn": [0, 2], "ffn": 20},
                {"block": 1, "self_attn": every, "ffn": 3},
                {"block": 2, "self_attn": None, "ffn": 20},
            ],
            "decoder": [
                {"block": 1, "self_attn": None, "cross_attn": every, "ffn": 20},
                {"block": 2, "self_attn": [1], "cross_attn": [0, 2], "ffn": 1},
            ],
        },
        "hidden": None,
    }


@pytest.mark.parametrize(("pruned", "tied"), [("t5", True), ("t5-narrow", False)], indirect=["pruned"])
def test_a_head_is_tied_after_reloading_if_it_was_before(pruned, tied, tmp_path):
    pruned.save_pretrained(tmp_path)
    for model in (pruned, load("t5", tmp_path)):
        assert ("lm_head.weight" in model.all_tied_weights_keys) is tied
        assert (model.lm_head.weight is model.shared.weight) is tied
        assert model.encoder.embed_tokens.weight is model.shared.weight


def test_generation_settings_survive_pruning(prunable):
    target = prunable(tiny_model("bart"))
    target.model.generation_config.max_length = 17
    assert target.pruned(irregular_plan(target)).model.generation_config.max_length == 17


def test_frozen_weights_stay_frozen(prunable):
    target = prunable(tiny_model("bart"))
    wanted = {"model.shared.weight", "model.encoder.layers.0.self_attn.q_proj.weight"}
    for name in wanted:
        target.model.get_parameter(name).requires_grad = False
    model = target.pruned(irregular_plan(target)).model
    assert {name for name, parameter in model.named_parameters() if not parameter.requires_grad} == wanted


@pytest.mark.parametrize("training", [True, False])
def test_a_pruned_model_trains_or_evaluates_as_the_dense_one_did(training, prunable):
    target = prunable(tiny_model("vit").train(training))
    model = target.pruned(irregular_plan(target)).model
    assert {module.training for module in model.modules()} == {training}


@pytest.mark.parametrize("pruned", ["t5", "t5-gated"], indirect=True)
def test_the_encoder_of_a_pruned_t5_loads_by_itself(pruned, tmp_path):
    pruned.save_pretrained(tmp_path)
    alone = transformers.AutoModelForTextEncoding.from_pretrained(tmp_path)
    assert isinstance(alone, T5EncoderModel)
    assert same_tensors(alone.encoder, pruned.encoder)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@EVERY
def test_half_precision_loads_and_runs(name, pruned, dtype, tmp_path):
    pruned.save_pretrained(tmp_path)
    model = load(name, tmp_path, dtype=dtype)
    # transformers keeps the output projection of T5's FFN in float32 beside float16.
    floats = {t.dtype for n, t in model.state_dict().items() if "kept_heads" not in n and ".wo." not in n}
    assert floats == {dtype}
    assert all(b.dtype == torch.int64 for n, b in model.named_buffers() if n.endswith("kept_heads"))
    found = outputs(model, tiny_inputs(model))
    assert all(bool(t.isfinite().all()) for t in found)
    model.save_pretrained(tmp_path / "again")
    assert same_tensors(load(name, tmp_path / "again"), model)


@EVERY
def test_a_pruned_class_builds_on_the_meta_device(name, pruned):
    with torch.device("meta"):
        empty = type(pruned)(pruned.config)
    assert {t.device.type for t in empty.state_dict().values()} == {"meta"}
    shapes = {n: t.shape for n, t in pruned.state_dict().items()}
    assert {n: t.shape for n, t in empty.state_dict().items()} == shapes


@EVERY
def test_a_pruned_config_alone_builds_a_model_of_its_shape(name, pruned):
    register()
    fresh = getattr(transformers, AUTO_CLASS[name]).from_config(pruned.config)
    assert type(fresh) is type(pruned)
    shapes = {n: t.shape for n, t in pruned.state_dict().items()}
    assert {n: t.shape for n, t in fresh.state_dict().items()} == shapes


@WITH_LOSS
def test_a_reloaded_model_trains_and_saves_what_it_learned(name, pruned, tmp_path):
    pruned.save_pretrained(tmp_path / "before")
    model = load(name, tmp_path / "before").train()
    labels = torch.tensor([[4, 5, 6], [7, 8, 9]]) if name in SEQ2SEQ else torch.tensor([0, 2])
    inputs = {k: v for k, v in tiny_inputs(model).items() if k != "decoder_input_ids"}
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    model(**inputs, labels=labels).loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    optimizer.step()
    model.save_pretrained(tmp_path / "after")
    assert same_tensors(load(name, tmp_path / "after"), model)
    assert not same_tensors(model, pruned)


@EVERY
def test_pruning_a_pruned_model_again_equals_masking_twice(name, pruned, prunable, tmp_path):
    once = prunable(pruned.double())
    masks = random_masks(once.groups, ("head", "neuron"), seed=4, soft=True)
    stack = list(once.structure.stacks)[-1]
    masks[f"{stack}.blocks"] = torch.ones(once.groups[f"{stack}.blocks"].size, dtype=torch.float64)
    masks[f"{stack}.blocks"][0] = 0
    assert compared(once, masks)[0] <= 1e-10
    twice = once.pruned(PruningPlan.from_masks(masks, once.groups)).model
    twice.save_pretrained(tmp_path)
    assert same_tensors(load(name, tmp_path), twice)


def test_the_record_of_a_model_pruned_twice_speaks_of_the_first_dense_model(prunable):
    once = prunable(tiny_model("t5")).pruned(
        PruningPlan(keep={"encoder.1.self_attn.heads": (1, 2, 3), "encoder.blocks": (1, 2)})
    )
    twice = once.pruned(
        PruningPlan(keep={"encoder.0.self_attn.heads": (0, 2), "encoder.1.ffn.neurons": (5,)})
    )
    assert twice.model.config.prunekit["stacks"]["encoder"] == [
        {"block": 1, "self_attn": [1, 3], "ffn": 20},
        {"block": 2, "self_attn": [0, 1, 2, 3], "ffn": 1},
    ]
    attention = twice.model.encoder.block[0].layer[0].SelfAttention
    assert attention.kept_heads.tolist() == [1, 3]


def test_a_model_that_becomes_regular_again_is_a_stock_one(prunable):
    uneven = {f"{s}.{i}.ffn.neurons": tuple(range(12 + i)) for s in ("encoder", "decoder") for i in range(3)}
    once = prunable(tiny_model("t5")).pruned(PruningPlan(keep=uneven))
    assert type(once.model) is not T5ForConditionalGeneration
    even = {f"{s}.{i}.ffn.neurons": tuple(range(12)) for s in ("encoder", "decoder") for i in range(3)}
    twice = once.pruned(PruningPlan(keep=even))
    assert type(twice.model) is T5ForConditionalGeneration
    assert twice.model.config.d_ff == 12
    assert not hasattr(twice.model.config, "prunekit")


def test_a_text_classification_pipeline_runs_on_a_folder(prunable, tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {"[PAD]": 0, "[UNK]": 1, "so": 2, "far": 3, "good": 4}
    raw = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="[PAD]", unk_token="[UNK]"
    )
    target = prunable(tiny_model("bert"))
    model = target.pruned(irregular_plan(target)).model
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    (found,) = transformers.pipeline("text-classification", model=str(tmp_path))("so far so good")
    with torch.no_grad():
        scores = model(**tokenizer("so far so good", return_tensors="pt")).logits[0].softmax(-1)
    assert found["score"] == pytest.approx(float(scores.max()))
    assert found["label"] == model.config.id2label[int(scores.argmax())]


def test_a_model_without_values_gives_the_shapes_of_the_pruned_one(prunable):
    plan = PruningPlan(keep={"encoder.0.ffn.neurons": (0,), "encoder.1.self_attn.heads": (2,)})
    shapes = {n: t.shape for n, t in prunable(tiny_model("bert")).pruned(plan).model.state_dict().items()}
    empty = prunable(tiny_model("bert").to("meta")).pruned(plan).model.state_dict()
    assert {n: t.shape for n, t in empty.items()} == shapes
    assert {t.device.type for t in empty.values()} == {"meta"}
