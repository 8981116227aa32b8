"""DeiT with one classifier or two, as a second model type on ViT's table; encoders of a fixed length."""

import pytest
import torch
from core_calls import irregular_plan, outputs
from transformers import (
    AutoModelForImageClassification,
    DeiTConfig,
    DeiTForImageClassification,
    DeiTForImageClassificationWithTeacher,
    DeiTForMaskedImageModeling,
    DeiTModel,
    ViTModel,
)

from prunekit.flops import count_macs
from prunekit.models import load_model, new_model
from prunekit.pruning import cost
from prunekit.pruning.plan import PruningPlan
from prunekit.recipe import NewModel
from prunekit.testing.tiny import tiny_inputs, tiny_model

HEADS = {
    "deit": DeiTForImageClassification,
    "deit-distilled": DeiTForImageClassificationWithTeacher,
}
EITHER = pytest.mark.parametrize("name", HEADS)


@EITHER
def test_both_heads_have_the_pruned_type_of_the_adapter_and_keep_their_class(name, prunable, tmp_path):
    target = prunable(tiny_model(name))
    pruned = target.pruned(irregular_plan(target)).model
    pruned.save_pretrained(tmp_path)
    assert pruned.config.model_type == "prunekit-deit"
    loaded = (AutoModelForImageClassification.from_pretrained(tmp_path), load_model(str(tmp_path)))
    assert [type(model).__name__ for model in loaded] == [f"Prunekit{HEADS[name].__name__}"] * 2
    assert all(isinstance(model, HEADS[name]) for model in loaded)


def test_the_distillation_token_s_logits_are_among_the_outputs_compared():
    model = tiny_model("deit-distilled")
    logits, classified, distilled = outputs(model, tiny_inputs(model))
    assert torch.allclose(logits, (classified + distilled) / 2)
    assert not torch.allclose(classified, distilled)


@EITHER
def test_fewer_neurons_everywhere_are_a_stock_class(name, prunable, tmp_path):
    target = prunable(tiny_model(name))
    pruned = target.pruned(PruningPlan(keep={f"encoder.{i}.ffn.neurons": (0, i + 1) for i in range(3)})).model
    pruned.save_pretrained(tmp_path)
    assert type(AutoModelForImageClassification.from_pretrained(tmp_path)) is HEADS[name]


def test_a_model_for_masked_images_is_cut_too(prunable):
    config = DeiTConfig(**SMALL, encoder_stride=4)
    torch.manual_seed(0)
    target = prunable(DeiTForMaskedImageModeling(config).eval())
    pruned = target.pruned(PruningPlan(keep={"encoder.1.self_attn.heads": (1,)})).model
    shapes = [pruned.deit.layers[block].attention.o_proj.weight.shape for block in (0, 1)]
    assert shapes == [(16, 16), (16, 8)]


SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 20,
    "image_size": 16,
    "patch_size": 4,
    "num_channels": 1,
}


def test_a_new_deit_has_one_classifier():
    spec = NewModel.model_construct(type="deit", config=SMALL)
    model = new_model(spec, "AutoModelForImageClassification", {}, seed=0)
    assert type(model) is DeiTForImageClassification


@pytest.mark.parametrize(
    ("name", "model_class", "tokens"),
    [
        ("vit", None, 4 + 1),
        ("vit", ViTModel, 4 + 1),
        ("deit", None, 4 + 2),
        ("deit", DeiTModel, 4 + 2),
        ("deit-distilled", None, 4 + 2),
    ],
)
def test_the_fixed_length_is_that_of_the_hidden_states(name, model_class, tokens, prunable):
    target = prunable(tiny_model(name, model_class=model_class))
    pruned = target.pruned(irregular_plan(target))
    for each in (target, pruned):
        states = each.model(**tiny_inputs(each.model), output_hidden_states=True).hidden_states
        assert each.adapter.sequence_length(each.model) == states[0].shape[1] == tokens


@pytest.mark.parametrize("name", ["t5", "bart", "bert"])
def test_where_the_input_decides_there_is_no_fixed_length(name, prunable):
    target = prunable(tiny_model(name))
    assert target.adapter.sequence_length(target.model) is None


@pytest.mark.parametrize(
    ("width", "heads", "billions"), [(192, 3, 1.27), (384, 6, 4.63)], ids=["deit-tiny", "deit-small"]
)
def test_macs_of_the_published_models(width, heads, billions, prunable):
    sizes = {"hidden_size": width, "num_attention_heads": heads, "intermediate_size": 4 * width}
    with torch.device("meta"):
        target = prunable(DeiTForImageClassificationWithTeacher(DeiTConfig(num_labels=1000, **sizes)))
        counted = count_macs(target.model, {"pixel_values": torch.zeros(1, 3, 224, 224)})
    tokens = target.adapter.sequence_length(target.model)
    blocks = cost.mac_costs(target.model, target.structure, cost.Lengths(tokens))
    outside = 196 * (3 * 16 * 16) * width + 2 * width * 1000  # patches, two classifiers
    assert tokens == 198
    assert counted == sum(entry.prunable for entry in blocks.values()) + outside
    assert counted / 1e9 == pytest.approx(billions, abs=0.02)
