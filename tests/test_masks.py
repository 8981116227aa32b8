"""Masks on a running model: ones change nothing, nothing stays behind, and they can be learned."""

import pytest
import torch
from core_calls import outputs, random_masks

from prunekit.errors import PlanError
from prunekit.testing.tiny import TINY_MODELS, tiny_inputs, tiny_model


def soft_masks(groups, *, seed=0):
    """Leaf masks between 0.4 and 0.9 for every group."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: (0.4 + 0.5 * torch.rand(group.size, generator=generator, dtype=torch.float64)).requires_grad_()
        for name, group in groups.items()
    }


def loss(target, masks):
    with target.masked(masks):
        return target.model(**tiny_inputs(target.model)).logits.square().sum()


def hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", TINY_MODELS)
def test_masks_of_ones_leave_the_stock_models_bits(name, attention, prunable):
    target = prunable(tiny_model(name))
    target.model.set_attn_implementation(attention)
    inputs = tiny_inputs(target.model)
    before = outputs(target.model, inputs)
    with target.masked({group: torch.ones(unit.size) for group, unit in target.groups.items()}):
        masked = outputs(target.model, inputs)
    assert all(torch.equal(a, b) for a, b in zip(before, masked, strict=True))


@pytest.mark.parametrize("name", TINY_MODELS)
def test_nothing_of_the_masks_stays_behind(name, prunable):
    target = prunable(tiny_model(name))
    inputs = tiny_inputs(target.model)
    before = outputs(target.model, inputs)
    hooks_before = hooks(target.model)
    with target.masked(random_masks(target.groups, ("head", "neuron", "sublayer", "block"), seed=0)):
        assert hooks(target.model) > hooks_before
    assert hooks(target.model) == hooks_before
    assert all(torch.equal(a, b) for a, b in zip(before, outputs(target.model, inputs), strict=True))


def test_nothing_of_the_masks_stays_behind_after_an_exception(prunable):
    target = prunable(tiny_model("bart"))
    masks = random_masks(target.groups, ("head", "sublayer", "block"), seed=0)

    def fail_inside():
        with target.masked(masks):
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail_inside()
    assert hooks(target.model) == 0


@pytest.mark.parametrize("name", TINY_MODELS)
def test_gradients_reach_the_masks_of_every_kind(name, prunable):
    target = prunable(tiny_model(name, dtype=torch.float64))
    masks = soft_masks(target.groups)
    loss(target, masks).backward()
    for group, mask in masks.items():
        assert bool(mask.grad.isfinite().all()), group
        if target.groups[group].kind == "neuron":  # a relu that never fires has none
            assert int((mask.grad != 0).sum()) > mask.numel() // 2, group
        else:
            assert bool((mask.grad != 0).all()), group


@pytest.mark.parametrize("name", TINY_MODELS)
def test_gradients_of_the_masks_are_those_of_the_loss(name, prunable, exact_norm):
    target = prunable(tiny_model(name, dtype=torch.float64))
    masks = soft_masks(target.groups, seed=1)
    loss(target, masks).backward()
    generator = torch.Generator().manual_seed(2)
    direction = {n: torch.randn(m.shape, generator=generator, dtype=torch.float64) for n, m in masks.items()}
    expected = sum(float((mask.grad * direction[name]).sum()) for name, mask in masks.items())
    with torch.no_grad():
        above, below = (
            loss(target, {n: m + step * direction[n] for n, m in masks.items()}) for step in (1e-6, -1e-6)
        )
    assert float(above - below) / 2e-6 == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", TINY_MODELS)
def test_gradients_are_the_same_with_gradient_checkpointing(name, prunable):
    target = prunable(tiny_model(name, dtype=torch.float64))
    target.model.train()  # dropout is 0
    plain, saving = soft_masks(target.groups), soft_masks(target.groups)
    loss(target, plain).backward()
    target.model.activation_checkpointing_enable()
    with target.masked(saving):
        target.model(**tiny_inputs(target.model), use_cache=False).logits.square().sum().backward()
    for group, mask in plain.items():
        torch.testing.assert_close(saving[group].grad, mask.grad, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", TINY_MODELS)
def test_recorded_hidden_states_are_those_under_the_masks_every_time(name, prunable):
    target = prunable(tiny_model(name, dtype=torch.float64))
    masks = {"encoder.blocks": torch.tensor([0.0, 0.5, 0.7], dtype=torch.float64)}
    field = "encoder_hidden_states" if "decoder" in target.structure.stacks else "hidden_states"
    recorded = []
    for _ in range(2):
        with target.masked(masks), torch.no_grad():
            found = target.model(**tiny_inputs(target.model), output_hidden_states=True)
        recorded.append(found[field])
    assert torch.equal(recorded[0][1], recorded[0][0])  # block 0 is masked, so its output is its input
    assert all(torch.equal(a, b) for a, b in zip(*recorded, strict=True))


@pytest.mark.parametrize(
    ("masks", "text"),
    [
        ({"encoder.blocks": 2}, "mask 'encoder.blocks' has 2 entries; the group has 3 units."),
        ({"encoder.block": 3}, "mask 'encoder.block' has 3 entries; the model has no such group."),
    ],
)
def test_a_mask_that_fits_no_group_is_refused_before_anything_is_masked(masks, text, prunable):
    target = prunable(tiny_model("bert"))
    with (
        pytest.raises(PlanError) as caught,
        target.masked({name: torch.ones(size) for name, size in masks.items()}),
    ):
        pass
    assert str(caught.value) == text
    assert hooks(target.model) == 0


def test_masks_inside_masks_are_refused_and_the_outer_ones_stay(prunable):
    target = prunable(tiny_model("t5"))
    inputs = tiny_inputs(target.model)
    name = "encoder.0.ffn.neurons"
    masks = {name: torch.zeros(target.groups[name].size)}
    with target.masked(masks):
        before = target.model(**inputs).logits
        with pytest.raises(PlanError) as caught, target.masked({name: torch.ones(target.groups[name].size)}):
            pass
        after = target.model(**inputs).logits
    assert str(caught.value) == (
        "encoder.block.0.layer.1.DenseReluDense.wo already runs with a replaced forward: masks do not nest. "
        "Leave the other masks' context first, or put all masks into one."
    )
    assert torch.equal(before, after)
