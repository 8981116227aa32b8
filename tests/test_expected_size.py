"""The expected size of masks against hand counts, sampled masks and finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from l0_calls import seeded, sigmoid, small_masks

from prunekit.training.expected_size import ExpectedSize, SublayerCost
from prunekit.training.l0 import L0Masks, probability_open
from prunekit.training.lagrangian import Lagrangian

pytestmark = pytest.mark.slow

WIDTH = 6
# Heads and neurons have costs of their own that no hidden unit takes along: 100 - 6 * 15, 10 - 6 * 1.5, ...
SMALL = [
    SublayerCost("enc.0.attn.heads", 2, 100.0, 30.0, ("enc.attn", 0), ("enc.blocks", 0), 15.0, 5.0),
    SublayerCost("enc.0.ffn.neurons", 4, 10.0, 7.0, ("enc.ffn", 0), ("enc.blocks", 0), 1.5, 1.0),
    SublayerCost("enc.1.ffn.neurons", 4, 12.0, 0.0, ("enc.ffn", 1), ("enc.blocks", 1), 2.0, 0.0),
]
EVERY_MASK_SET = pytest.mark.parametrize(
    "without",
    [
        (),
        ("hidden",),
        ("block",),
        ("sublayer", "block"),
        ("sublayer", "block", "hidden"),
        ("head", "neuron"),
        ("head", "neuron", "sublayer", "block"),
    ],
    ids=lambda kinds: "without " + "+".join(kinds) if kinds else "all",
)
COUNTS = pytest.mark.parametrize("count", ["exact", "weights"])


def size_of(masks, count="exact"):
    return ExpectedSize(SMALL, count=count, hidden=("hidden", WIDTH) if "hidden" in masks.kinds else None)


def counted(sample, count):
    """Size of one sampled model, counted unit by unit."""
    cut = WIDTH - int((sample["hidden"] > 0).sum()) if "hidden" in sample else 0
    total = 0.0
    for cost in SMALL:
        units = [float(z > 0) for z in sample.get(cost.group, torch.ones(cost.units))]
        gates = [entry for entry in (cost.sublayer, cost.block) if entry[0] in sample]
        if not all(sample[name][index] > 0 for name, index in gates) or not any(units):
            continue
        if count == "exact":
            total += sum(units) * (cost.unit_cost - cut * cost.unit_per_hidden)
            total += cost.fixed_cost - cut * cost.fixed_per_hidden
        else:
            total += sum(units) * (cost.unit_cost + cost.fixed_cost / cost.units) * (1 - cut / WIDTH)
    return total


def expectation(logits, count):
    """The expectation in numpy, written down a second time."""
    p = {name: sigmoid(x + 2 / 3 * math.log(11)) for name, x in logits.items()}
    cut = WIDTH - p["hidden"].sum() if "hidden" in p else 0
    total = 0.0
    for c in SMALL:
        units = p.get(c.group, np.ones(c.units))
        gate = np.prod([p[name][i] for name, i in (c.sublayer, c.block) if name in p])
        if count == "exact":
            some = 1 - np.prod(1 - units)
            inside = (c.unit_cost - cut * c.unit_per_hidden) * units.sum()
            total += gate * (inside + (c.fixed_cost - cut * c.fixed_per_hidden) * some)
        else:
            total += gate * (c.unit_cost + c.fixed_cost / c.units) * units.sum() * (1 - cut / WIDTH)
    return total


def test_expected_size_of_a_case_worked_by_hand():
    probabilities = {
        "heads": torch.tensor([0.5, 0.25]),
        "neurons": torch.tensor([0.5, 0.5, 1.0, 0.0]),
        "sublayers": torch.tensor([0.8, 0.5]),
        "blocks": torch.tensor([0.9]),
    }
    costs = [
        SublayerCost("heads", 2, 100, 40, ("sublayers", 0), ("blocks", 0)),
        SublayerCost("neurons", 4, 10, 20, ("sublayers", 1)),
        SublayerCost("unmasked", 3, 5, 6),
    ]
    # exact:   0.9*0.8*(100*0.75 + 40*(1 - 0.5*0.75)) + 0.5*(10*2 + 20*1) + (15 + 6) = 72 + 20 + 21
    # weights: 0.9*0.8*120*0.75 + 0.5*15*2 + 21 = 64.8 + 15 + 21
    exact, weights = ExpectedSize(costs), ExpectedSize(costs, count="weights")
    assert exact.total == weights.total == 240 + 60 + 21
    assert exact.kept(probabilities).item() == pytest.approx(113, rel=1e-6)
    assert weights.kept(probabilities).item() == pytest.approx(100.8, rel=1e-6)
    assert exact.sparsity(probabilities).item() == pytest.approx(1 - 113 / 321, rel=1e-6)


def test_expected_size_with_hidden_units_of_a_case_worked_by_hand():
    probabilities = {
        "heads": torch.tensor([0.5, 0.25]),
        "sublayers": torch.tensor([0.8]),
        "hidden": torch.tensor([1.0, 0.5, 0.25, 0.25]),
    }
    costs = [
        SublayerCost("heads", 2, 100, 40, ("sublayers", 0), unit_per_hidden=20, fixed_per_hidden=10),
        SublayerCost("unmasked", 3, 5, 6, unit_per_hidden=1),
    ]
    # Two of four hidden units are left in expectation: a head costs 100 - 2*20, its bias 40 - 2*10.
    # exact:   0.8*(60*0.75 + 20*(1 - 0.5*0.75)) + (5 - 2)*3 + 6 = 46 + 15
    # weights: (0.8*120*0.75 + 7*3) / 2
    hidden = ("hidden", 4)
    exact = ExpectedSize(costs, hidden=hidden)
    weights = ExpectedSize(costs, count="weights", hidden=hidden)
    assert exact.total == weights.total == 240 + 21
    assert exact.kept(probabilities).item() == pytest.approx(61, rel=1e-6)
    assert weights.kept(probabilities).item() == pytest.approx(46.5, rel=1e-6)


@COUNTS
@EVERY_MASK_SET
@pytest.mark.parametrize("seed", [0, 1])
def test_expected_size_is_the_mean_of_counted_samples(without, count, seed):
    masks = small_masks(seed, without=without)
    generator = seeded(seed)
    sizes = np.array([counted(masks.sample(generator), count) for _ in range(2500)])
    expected = size_of(masks, count).kept(masks.probabilities()).item()
    assert abs(sizes.mean() - expected) <= 5 * sizes.std() / math.sqrt(len(sizes))
    assert sizes.std() > 1  # or the comparison would say nothing


@COUNTS
@EVERY_MASK_SET
def test_gradient_of_expected_size_agrees_with_finite_differences(without, count):
    masks = small_masks(without=without)
    size_of(masks, count).kept(masks.probabilities()).backward()
    logits = {name: masks.log_alpha(name).detach().double().numpy() for name in masks.kinds}
    for name, values in logits.items():
        for index in range(len(values)):
            step = np.zeros_like(values)
            step[index] = 1e-5
            up, down = (expectation(logits | {name: values + sign * step}, count) for sign in (1, -1))
            gradient = masks.log_alpha(name).grad[index].item()
            assert gradient == pytest.approx((up - down) / 2e-5, rel=1e-4, abs=1e-4)


@COUNTS
def test_expected_size_keeps_the_precision_of_the_probabilities(count):
    masks = small_masks()
    logits = {name: masks.log_alpha(name).detach().double() for name in masks.kinds}
    probabilities = {name: torch.sigmoid(x + 2 / 3 * math.log(11)) for name, x in logits.items()}
    kept = size_of(masks, count).kept(probabilities)
    assert kept.dtype == torch.float64
    assert kept.item() == pytest.approx(expectation({n: x.numpy() for n, x in logits.items()}, count))


@pytest.mark.parametrize("hidden", [None, ("hidden", WIDTH)])
@COUNTS
def test_fully_open_groups_without_logits_cost_everything(count, hidden):
    size = ExpectedSize(SMALL, count=count, hidden=hidden)
    assert size.total == 230 + 47 + 48
    assert size.kept({}).item() == pytest.approx(size.total, rel=1e-6)


def test_a_certainly_open_unit_gives_a_finite_gradient():
    probabilities = {"enc.0.attn.heads": torch.ones(2, requires_grad=True)}
    ExpectedSize(SMALL).kept(probabilities).backward()
    # d/dp_i of 100*(p_1 + p_2) + 30*(1 - (1 - p_1)(1 - p_2)) at p = 1 is 100.
    assert probabilities["enc.0.attn.heads"].grad.tolist() == [100, 100]


def test_arithmetic_stays_in_float32_under_autocast():
    masks = small_masks()
    size = size_of(masks)
    expected = size.sparsity(masks.probabilities())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        sample = masks.sample(seeded())
        sparsity = size.sparsity(masks.probabilities())
        penalty = Lagrangian(0.3, 0).penalty(sparsity, 0)
    assert {value.dtype for value in (*sample.values(), sparsity, penalty)} == {torch.float32}
    assert torch.equal(sparsity, expected)


@pytest.mark.parametrize(("factors", "floor"), [(1, 0.0020), (2, 0.0040), (3, 0.0060)])
def test_clamped_open_masks_leave_the_known_sparsity_floor(factors, floor):
    masks = L0Masks({"a.heads": (12, "head"), "subs": (1, "sublayer"), "hidden": (768, "hidden")})
    masks.clamp_()
    cost = SublayerCost(
        "a.heads", 12, 196_608, 0.0, ("subs", 0) if factors > 1 else None, unit_per_hidden=256
    )
    size = ExpectedSize([cost], hidden=("hidden", 768) if factors > 2 else None)
    sparsity = size.sparsity(masks.probabilities()).item()
    assert sparsity == pytest.approx(1 - 0.997982**factors, abs=2e-6)
    assert round(sparsity, 4) == floor


def test_a_hidden_mask_that_is_half_open_halves_a_size_without_biases():
    half = probability_open(torch.full((768,), -1.5985968))
    cost = SublayerCost("a.heads", 12, 196_608, unit_per_hidden=256)
    size = ExpectedSize([cost], hidden=("hidden", 768))
    assert size.sparsity({"hidden": half}).item() == pytest.approx(0.5, abs=1e-6)
