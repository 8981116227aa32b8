"""Hidden units: masks on the residual stream mean exactly what cutting it does."""

import pytest
import torch
from core_calls import SEQ2SEQ, compared, difference, off, outputs, random_masks
from test_masked_equals_pruned import DEAD, DEAD_IN_DECODER
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    BartForCausalLM,
    BartForQuestionAnswering,
    BartForSequenceClassification,
    BartModel,
    BertForMaskedLM,
    BertForMultipleChoice,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
    DeiTModel,
    T5EncoderModel,
    T5ForQuestionAnswering,
    T5ForSequenceClassification,
    T5ForTokenClassification,
    T5Model,
    ViTForMaskedImageModeling,
    ViTModel,
)
from transformers.models.t5.modeling_t5 import T5LayerNorm

from prunekit.errors import PlanError, UnsupportedModelError
from prunekit.pruning.plan import PruningPlan
from prunekit.testing.tiny import TINY_MODELS, tiny_inputs, tiny_model


def hidden_mask(*, soft, seed=0):
    """A mask of 16 hidden units with 10 kept; soft ones lie between 0.5 and 1."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.ones(16, dtype=torch.float64)
    if soft:
        mask = 0.5 + 0.5 * torch.rand(16, generator=generator, dtype=torch.float64)
    mask[torch.randperm(16, generator=generator)[:6]] = 0
    return mask


IN_ENCODER = [(name, f"encoder: {case}", DEAD[case]) for name in TINY_MODELS for case in DEAD]
IN_DECODER = [
    (name, f"decoder: {case}", DEAD_IN_DECODER[case]) for name in SEQ2SEQ for case in DEAD_IN_DECODER
]


@pytest.mark.parametrize(("name", "case", "entries"), IN_ENCODER + IN_DECODER)
def test_dead_parts_and_soft_hidden_masks_together_are_cut_alike(name, case, entries, prunable):
    target = prunable(tiny_model(name, dtype=torch.float64))
    masks = off(target.groups, *entries) | {"hidden": hidden_mask(soft=True)}
    masked_pruned, dense_pruned = compared(target, masks)
    assert masked_pruned <= 1e-10
    assert dense_pruned > 1e-3


def bert_for_answers(config):
    config.num_labels = 2  # where the answer begins and ends
    return BertForQuestionAnswering(config)


def vit_for_masked_patches(config):
    config.encoder_stride = config.patch_size
    return ViTForMaskedImageModeling(config)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize(
    ("name", "model_class"),
    [
        ("t5", T5Model),
        ("t5", T5EncoderModel),
        ("t5", T5ForTokenClassification),
        ("t5", T5ForSequenceClassification),
        ("t5", T5ForQuestionAnswering),
        ("bart", BartModel),
        ("bart", BartForCausalLM),
        ("bart", BartForSequenceClassification),
        ("bart", BartForQuestionAnswering),
        ("bert", BertModel),
        ("bert", BertForMaskedLM),
        ("bert", BertForPreTraining),
        ("bert", BertForSequenceClassification),
        ("bert", BertForTokenClassification),
        ("bert", bert_for_answers),
        ("vit", ViTModel),
        ("vit", vit_for_masked_patches),
        ("deit", DeiTModel),
    ],
)
def test_every_head_reads_the_narrowed_stream(name, model_class, soft, prunable):
    target = prunable(tiny_model(name, model_class=model_class, dtype=torch.float64))
    inputs = tiny_inputs(target.model)
    if {"encoder", "decoder"} - set(target.structure.stacks):
        inputs.pop("decoder_input_ids", None)
    if model_class is vit_for_masked_patches:
        inputs["bool_masked_pos"] = torch.tensor([[True, False, True, False]] * 2)
    masks = random_masks(target.groups, ("head", "neuron"), seed=1, soft=soft)
    if model_class is BartForCausalLM:
        masks = {group: mask for group, mask in masks.items() if "cross_attn" not in group}
    masked_pruned, dense_pruned = compared(target, {**masks, "hidden": hidden_mask(soft=soft)}, inputs)
    assert masked_pruned <= 1e-10
    assert dense_pruned > 1e-3


def test_multiple_choice_reads_the_narrowed_stream(prunable):
    target = prunable(tiny_model("bert", model_class=BertForMultipleChoice, dtype=torch.float64))
    inputs = {name: tensor.unsqueeze(1) for name, tensor in tiny_inputs(target.model).items()}
    assert compared(target, {"hidden": hidden_mask(soft=True)}, inputs)[0] <= 1e-10


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", TINY_MODELS)
def test_a_hidden_mask_of_ones_leaves_the_stock_models_bits(name, dtype, prunable):
    target = prunable(tiny_model(name, dtype=dtype))
    inputs = tiny_inputs(target.model)
    before = outputs(target.model, inputs)
    with target.masked({"hidden": torch.ones(16, dtype=dtype)}):
        masked = outputs(target.model, inputs)
    assert all(torch.equal(a, b) for a, b in zip(before, masked, strict=True))


@pytest.mark.parametrize("name", TINY_MODELS)
def test_a_soft_mask_that_removes_nothing_is_folded_too(name, prunable):
    target = prunable(tiny_model(name, dtype=torch.float64))
    masked_pruned, dense_pruned = compared(target, {"hidden": torch.linspace(0.5, 1, 16).double()})
    assert masked_pruned <= 1e-10
    assert dense_pruned > 1e-3


def gathered(mask):
    return mask.nonzero().flatten()


@pytest.mark.parametrize("name", ["bert", "vit"])
def test_a_layer_norm_takes_its_statistics_over_kept_units_only(name, adapters):
    torch.manual_seed(0)
    norm = torch.nn.LayerNorm(16, eps=0.1).double()
    with torch.no_grad():
        norm.weight.normal_()
        norm.bias.normal_()
    mask = hidden_mask(soft=True)
    kept = gathered(mask)
    states = torch.randn(3, 5, 16, dtype=torch.float64) * (mask != 0)
    found = adapters[name].kept_norm(
        norm, states, (mask != 0).double(), torch.tensor(10.0, dtype=torch.float64), mask
    )
    alone = functional.layer_norm(states[..., kept], (10,), norm.weight[kept], norm.bias[kept], 0.1)
    torch.testing.assert_close(found[..., kept], alone * mask[kept], rtol=1e-12, atol=1e-12)
    assert bool((found[..., mask == 0] == 0).all())


def test_t5s_norm_takes_its_mean_square_over_kept_units_only(adapters):
    torch.manual_seed(0)
    norm = T5LayerNorm(16, eps=0.1).double()
    with torch.no_grad():
        norm.weight.normal_()
    mask = hidden_mask(soft=False)
    kept = gathered(mask)
    states = torch.randn(3, 5, 16, dtype=torch.float64) * mask
    found = adapters["t5"].kept_norm(norm, states, mask, torch.tensor(10.0, dtype=torch.float64), mask)
    square = (states[..., kept] ** 2).sum(-1, keepdim=True) / 10
    torch.testing.assert_close(
        found[..., kept], norm.weight[kept] * states[..., kept] / (square + 0.1).sqrt()
    )
    assert bool((found[..., mask == 0] == 0).all())


def test_a_mask_multiplies_what_enters_a_t5s_stream_and_not_the_stream_again(prunable):
    target = prunable(tiny_model("t5", model_class=T5EncoderModel, dtype=torch.float64))
    mask = hidden_mask(soft=True)
    entries = ("encoder.self_attn", "encoder.ffn")  # nothing is left but the embedding and the final norm
    inputs = tiny_inputs(target.model)
    with target.masked(off(target.groups, *entries) | {"hidden": mask}):
        found = target.model(input_ids=inputs["input_ids"]).last_hidden_state
    states = target.model.shared.weight[inputs["input_ids"]] * mask
    norm = target.model.encoder.final_layer_norm
    expected = norm.weight * states / ((states**2).sum(-1, keepdim=True) / 10 + 1e-6).sqrt()
    torch.testing.assert_close(found, expected * (mask != 0))


@pytest.mark.parametrize(("name", "tied"), [("t5", True), ("t5-narrow", False), ("bart", True)])
def test_heads_stay_tied_or_untied(name, tied, prunable):
    target = prunable(tiny_model(name))
    plan = PruningPlan.from_masks({"hidden": hidden_mask(soft=True)}, target.groups)
    small = target.pruned(plan).model
    assert (small.lm_head.weight is small.get_input_embeddings().weight) is tied
    assert small.lm_head.weight.shape == (40, 10)
    assert small.get_input_embeddings().embedding_dim == 10


def test_scales_of_a_pruned_model_are_those_of_the_original_width(prunable):
    t5 = prunable(tiny_model("t5", dtype=torch.float64))
    small = t5.pruned(PruningPlan(keep={"hidden": tuple(range(10))})).model
    seen = []
    small.lm_head.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    small.decoder.final_layer_norm.register_forward_hook(lambda module, args, out: seen.append(out))
    outputs(small, tiny_inputs(small))
    torch.testing.assert_close(seen[1], seen[0] * 16**-0.5)
    bart = tiny_model("bart")
    bart.config.scale_embedding = True
    scaled = prunable(type(bart)(bart.config))
    narrow = scaled.pruned(PruningPlan(keep={"hidden": tuple(range(10))})).model
    assert narrow.model.encoder.embed_tokens.embed_scale == 4.0  # the root of 16


def test_pruning_hidden_units_twice_keeps_count_in_the_first_models_indices(prunable):
    target = prunable(tiny_model("bert", dtype=torch.float64))
    once = target.pruned(PruningPlan(keep={"hidden": (1, 2, 3, 5, 8, 13)}))
    twice = once.pruned(PruningPlan(keep={"hidden": (0, 2, 5)}, scale={"hidden": (0.5, 0.6, 0.7)}))
    assert twice.model.config.prunekit["hidden"] == [1, 3, 13]
    directly = target.pruned(PruningPlan(keep={"hidden": (1, 3, 13)}, scale={"hidden": (0.5, 0.6, 0.7)}))
    inputs = tiny_inputs(target.model)
    assert difference(outputs(twice.model, inputs), outputs(directly.model, inputs)) <= 1e-12


class _HostReads(TorchDispatchMode):
    """Counts operations that make the host wait for a device."""

    reads = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        waiting = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select")
        self.reads += func.overloadpacket.__name__ in waiting
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", TINY_MODELS)
def test_masks_of_every_kind_add_no_host_read_to_the_forward_pass(name, prunable):
    target = prunable(tiny_model(name))
    inputs = tiny_inputs(target.model)
    kinds = ("head", "neuron", "sublayer", "block", "hidden")
    masks = {n: m.float() for n, m in random_masks(target.groups, kinds, seed=0, soft=True).items()}
    with _HostReads() as dense:
        outputs(target.model, inputs)
    with _HostReads() as masked, target.masked(masks):
        outputs(target.model, inputs)
    assert masked.reads == dense.reads


class WithAnotherHead(BertForSequenceClassification):
    def __init__(self, config):
        super().__init__(config)
        self.ranker = torch.nn.Linear(config.hidden_size, 1)


def test_a_head_that_the_adapter_does_not_know_rules_out_hidden_units_only(prunable):
    target = prunable(WithAnotherHead(tiny_model("bert").config))
    reason = (
        "ranker.weight of WithAnotherHead is 16 wide, and the adapter does not know whether it reads the "
        "residual stream"
    )
    assert "hidden" not in target.groups
    with pytest.raises(PlanError, match=f"hidden units of this model cannot be masked: {reason}"):
        target.masked({"hidden": torch.ones(16)}).__enter__()
    with pytest.raises(UnsupportedModelError, match=f"hidden units .* cannot be removed: {reason}"):
        target.pruned(PruningPlan(keep={"hidden": (0, 1)}))
    with target.masked(off(target.groups, "encoder.0.self_attn.heads:1")):
        outputs(target.model, tiny_inputs(target.model))


@pytest.mark.parametrize("name", ["t5", "bert"])
def test_refused_nested_masks_leave_the_outer_ones_as_they_were(name, prunable):
    target = prunable(tiny_model(name))
    inputs = tiny_inputs(target.model)
    dense = outputs(target.model, inputs)
    with target.masked({"hidden": hidden_mask(soft=True).float()}):
        before = outputs(target.model, inputs)
        with pytest.raises(PlanError, match="masks do not nest"), target.masked({"hidden": torch.ones(16)}):
            pass
        assert difference(before, outputs(target.model, inputs)) == 0
    assert difference(dense, outputs(target.model, inputs)) == 0


def test_a_plan_must_keep_a_hidden_unit(prunable):
    target = prunable(tiny_model("t5"))
    with pytest.raises(PlanError, match="hidden: at least one hidden unit must be kept"):
        target.pruned(PruningPlan(keep={"hidden": ()}))
