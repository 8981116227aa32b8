"""The invariant of the project: the masked dense model and the pruned model are the same function."""

import pytest
import torch
from core_calls import OF_IMAGES, SEQ2SEQ, compared, difference, off, outputs, random_masks
from transformers import (
    BartForCausalLM,
    BartForQuestionAnswering,
    BartModel,
    BertForMaskedLM,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertModel,
    DeiTModel,
    T5EncoderModel,
    T5ForTokenClassification,
    T5Model,
    ViTModel,
)

from prunekit.pruning.plan import PruningPlan
from prunekit.testing.tiny import TINY_MODELS, tiny_inputs, tiny_model

pytestmark = pytest.mark.usefixtures("exact_norm")

# One encoder-decoder and one encoder at every change, all of them in CI.
NAMES = [pytest.param(name, marks=[] if name in ("t5", "vit") else pytest.mark.slow) for name in TINY_MODELS]
VISIBLE = 1e-3
KINDS = {
    "head": ("head",),
    "neuron": ("neuron",),
    "sublayer": ("sublayer",),
    "block": ("block",),
    "mixed": ("head", "neuron", "sublayer", "block"),
    "hidden": ("hidden",),
    "everything": ("head", "neuron", "sublayer", "block", "hidden"),
}
EAGER_TOO = ("head", "mixed")
CASES = [(kind, soft) for kind in KINDS for soft in (False, True) if (kind, soft) != ("block", True)]


@pytest.mark.parametrize(
    ("kind", "soft", "attention"),
    [(*case, "sdpa") for case in CASES] + [(*case, "eager") for case in CASES if case[0] in EAGER_TOO],
)
@pytest.mark.parametrize("name", NAMES)
def test_masked_equals_pruned_in_float64(name, kind, soft, attention, prunable):
    target = prunable(tiny_model(name, dtype=torch.float64))
    target.model.set_attn_implementation(attention)
    masks = random_masks(target.groups, KINDS[kind], seed=3, soft=soft)
    masked_pruned, dense_pruned = compared(target, masks)
    assert masked_pruned <= 1e-10
    assert dense_pruned > VISIBLE


@pytest.mark.parametrize(("kind", "soft"), CASES)
@pytest.mark.parametrize("name", NAMES)
def test_masked_equals_pruned_in_float32(name, kind, soft, prunable):
    target = prunable(tiny_model(name))
    with torch.no_grad():  # the tiny T5's unscaled scores are so large that float32 itself is off by 1e-4
        for parameter in target.model.parameters():
            parameter.mul_(0.5 if parameter.ndim > 1 else 1)
    masks = random_masks(target.groups, KINDS[kind], seed=3, soft=soft)
    masked_pruned, dense_pruned = compared(target, masks)
    assert masked_pruned <= 1e-5
    assert dense_pruned > VISIBLE


DEAD = {
    "all heads of a block": ["encoder.0.self_attn.heads"],
    "all heads of a block, attention of another": ["encoder.0.self_attn.heads", "encoder.self_attn:2"],
    "all neurons of a block": ["encoder.2.ffn.neurons"],
    "attention sublayers": ["encoder.self_attn:0", "encoder.self_attn:2"],
    "an FFN sublayer": ["encoder.ffn:1"],
    "every sublayer of a block": ["encoder.self_attn:1", "encoder.ffn:1"],
    "every sublayer of block 0, with heads gone in block 1": [
        "encoder.0.self_attn.heads",
        "encoder.0.ffn.neurons",
        "encoder.1.self_attn.heads:0",
    ],
    "block 0": ["encoder.blocks:0"],
    "block 0, with heads gone in block 1": ["encoder.blocks:0", "encoder.1.self_attn.heads:2"],
    "the last block": ["encoder.blocks:2"],
    "all self-attention": ["encoder.self_attn"],
    "all FFNs": ["encoder.ffn"],
}
DEAD_IN_DECODER = {
    "block 0": ["decoder.blocks:0"],
    "block 0, with heads gone in block 1": ["decoder.blocks:0", "decoder.1.self_attn.heads:2"],
    "block 0's self-attention": ["decoder.0.self_attn.heads"],
    "self-attention of blocks 0 and 1, heads gone in 2": [
        "decoder.self_attn:0",
        "decoder.self_attn:1",
        "decoder.2.self_attn.heads:1",
    ],
    "all three sublayers of a block": [f"decoder.{role}:1" for role in ("self_attn", "cross_attn", "ffn")],
    "all units of block 0": [
        "decoder.0.self_attn.heads",
        "decoder.0.cross_attn.heads",
        "decoder.0.ffn.neurons",
    ],
    "all cross-attention": ["decoder.cross_attn"],
    "all self-attention": ["decoder.self_attn"],
    "heads of cross-attention": ["decoder.0.cross_attn.heads:0", "decoder.2.cross_attn.heads:1"],
    "block 0 of both stacks": ["encoder.blocks:0", "decoder.blocks:0"],
    "everything but the first norm": [
        "encoder.self_attn",
        "encoder.ffn",
        "decoder.self_attn",
        "decoder.cross_attn",
        "decoder.ffn",
    ],
}


def assert_equal_and_visible(target, entries):
    # Only T5's position bias takes another way through each kernel.
    kernels = ("eager", "sdpa") if target.adapter.name == "t5" else ("sdpa",)
    for attention in kernels:
        target.model.set_attn_implementation(attention)
        masked_pruned, dense_pruned = compared(target, off(target.groups, *entries))
        assert masked_pruned <= 1e-10
        assert dense_pruned > VISIBLE


@pytest.mark.parametrize("case", DEAD)
@pytest.mark.parametrize("name", NAMES)
def test_dead_parts_are_the_identity(name, case, prunable):
    assert_equal_and_visible(prunable(tiny_model(name, dtype=torch.float64)), DEAD[case])


@pytest.mark.parametrize("case", DEAD_IN_DECODER)
@pytest.mark.parametrize("name", SEQ2SEQ)
def test_dead_parts_of_a_decoder_are_the_identity(name, case, prunable):
    assert_equal_and_visible(prunable(tiny_model(name, dtype=torch.float64)), DEAD_IN_DECODER[case])


@pytest.mark.parametrize(
    ("name", "model_class"),
    [
        ("t5", T5Model),
        ("t5", T5EncoderModel),
        ("t5", T5ForTokenClassification),
        ("bart", BartModel),
        ("bart", BartForCausalLM),
        ("bert", BertModel),
        ("bert", BertForMaskedLM),
        ("bert", BertForPreTraining),
        ("bert", BertForQuestionAnswering),
        ("bart", BartForQuestionAnswering),
        ("vit", ViTModel),
        ("deit", DeiTModel),
    ],
)
def test_other_heads_of_an_architecture_are_cut_alike(name, model_class, prunable):
    target = prunable(tiny_model(name, model_class=model_class, dtype=torch.float64))
    inputs = tiny_inputs(target.model)
    if {"encoder", "decoder"} - set(target.structure.stacks):
        inputs.pop("decoder_input_ids", None)
    masks = random_masks(target.groups, KINDS["mixed"], seed=1, soft=True)
    if model_class is BartForCausalLM:  # without an encoder it skips cross-attention
        masks = {group: mask for group, mask in masks.items() if "cross_attn" not in group}
    masked_pruned, dense_pruned = compared(target, masks, inputs)
    assert masked_pruned <= 1e-10
    assert dense_pruned > VISIBLE


@pytest.mark.parametrize("name", SEQ2SEQ)
def test_encoder_states_are_compared_too(name, prunable):
    target = prunable(tiny_model(name))
    assert len(outputs(target.model, tiny_inputs(target.model))) == 2  # logits and encoder states


PADDED_MODELS = [name for name in TINY_MODELS if name not in OF_IMAGES]


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", PADDED_MODELS)
def test_masked_equals_pruned_with_padding_on_every_side(name, attention, prunable):
    target = prunable(tiny_model(name, dtype=torch.float64))
    target.model.set_attn_implementation(attention)
    inputs = tiny_inputs(target.model)  # its first row is padded on the right
    inputs["attention_mask"][1, :3] = 0
    if "decoder_input_ids" in inputs:
        inputs["decoder_attention_mask"] = torch.ones_like(inputs["decoder_input_ids"])
        inputs["decoder_attention_mask"][0, -2:] = 0
    masks = random_masks(target.groups, KINDS["mixed"], seed=5)
    assert compared(target, masks, inputs)[0] <= 1e-10


@pytest.mark.parametrize("name", PADDED_MODELS)
def test_a_pruned_model_does_not_see_padded_tokens(name, prunable):
    target = prunable(tiny_model(name, dtype=torch.float64))
    masks = off(target.groups, "encoder.blocks:0", "encoder.1.self_attn.heads:0")
    pruned = target.pruned(PruningPlan.from_masks(masks, target.groups)).model
    inputs = tiny_inputs(pruned)
    hidden = inputs["attention_mask"] == 0
    first, second = (
        outputs(pruned, {**inputs, "input_ids": inputs["input_ids"].masked_fill(hidden, filler)})[:1]
        for filler in (5, 9)
    )
    assert difference(first, second) <= 1e-10
