import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from prunekit.training.l0 import (
    CLOSING_LOGIT,
    MAX_LOGIT,
    MIN_LOGIT,
    ExpectedSize,
    L0Masks,
    Lagrangian,
    SublayerCost,
    deterministic_mask,
    hard_concrete_sample,
    initial_logits,
    probability_open,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, dtype=np.float64)))


def small_masks(seed=0):
    """Three sublayers in two blocks; logits spread widely so that every factor of the size matters."""
    masks = L0Masks(
        {
            "enc.0.attn.heads": (2, "head"),
            "enc.0.ffn.neurons": (4, "neuron"),
            "enc.1.ffn.neurons": (4, "neuron"),
            "enc.attn": (1, "sublayer"),
            "enc.ffn": (2, "sublayer"),
            "enc.blocks": (2, "block"),
        }
    )
    with torch.no_grad():
        for parameter in masks.parameters():
            parameter.copy_(3 * torch.randn(parameter.shape, generator=seeded(seed + parameter.numel())) - 1)
    return masks


SMALL = [
    SublayerCost("enc.0.attn.heads", 2, 100.0, 30.0, ("enc.attn", 0), ("enc.blocks", 0)),
    SublayerCost("enc.0.ffn.neurons", 4, 10.0, 7.0, ("enc.ffn", 0), ("enc.blocks", 0)),
    SublayerCost("enc.1.ffn.neurons", 4, 12.0, 0.0, ("enc.ffn", 1), ("enc.blocks", 1)),
]


def counted(masks, count):
    """Size of one sampled model, counted unit by unit."""
    total = 0.0
    for cost in SMALL:
        units = [float(z > 0) for z in masks[cost.group]]
        gate = all(masks[name][index] > 0 for name, index in (cost.sublayer, cost.block))
        if count == "exact":
            total += gate * (cost.unit_cost * sum(units) + (cost.fixed_cost if any(units) else 0.0))
        else:
            total += gate * sum(units) * (cost.unit_cost + cost.fixed_cost / cost.units)
    return total


@pytest.mark.parametrize("logit", [-4.605, -1.6, 0.0, 3.0, 4.605])
def test_sampled_zeros_and_ones_are_as_frequent_as_the_distribution_says(logit):
    samples = hard_concrete_sample(torch.full((400_000,), logit), seeded())
    # z = 0 where s <= 1/12 and z = 1 where s >= 11/12, so u crosses sigmoid(+-(2/3) ln 11 - logit).
    shift = 2 / 3 * math.log(11)
    for value, probability in ((0.0, sigmoid(-shift - logit)), (1.0, sigmoid(logit - shift))):
        tolerance = 5 * math.sqrt(probability * (1 - probability) / samples.numel())
        assert abs((samples == value).double().mean() - probability) <= tolerance


@pytest.mark.parametrize("logit", [-2.0, 0.5, 3.0])
def test_reparameterised_gradient_is_the_gradient_of_the_mean_mask(logit):
    def mean_mask(alpha):
        def value(u):
            return np.clip(1.2 * sigmoid((math.log(u / (1 - u)) + alpha) / (2 / 3)) - 0.1, 0, 1)

        kinks = sigmoid(np.array([-1, 1]) * 2 / 3 * math.log(11) - alpha)
        edges = [1e-12, *kinks, 1 - 1e-12]
        return sum(quad(value, a, b, epsabs=1e-12)[0] for a, b in pairwise(edges))

    expected = (mean_mask(logit + 1e-3) - mean_mask(logit - 1e-3)) / 2e-3
    log_alpha = torch.full((400_000,), logit, requires_grad=True)
    hard_concrete_sample(log_alpha, seeded(1)).sum().backward()
    standard_error = log_alpha.grad.double().std() / math.sqrt(log_alpha.numel())
    assert abs(log_alpha.grad.double().mean() - expected) <= 5 * standard_error


def test_a_clipped_sample_has_no_gradient():
    log_alpha = torch.zeros(1000, requires_grad=True)
    sample = hard_concrete_sample(log_alpha, seeded())
    sample.sum().backward()
    clipped = (sample == 0) | (sample == 1)
    assert torch.equal(log_alpha.grad == 0, clipped)


def test_sampling_keeps_the_shape_and_repeats_with_the_seed():
    log_alpha = torch.zeros(2, 3, 4)
    first, again, other = (hard_concrete_sample(log_alpha, seeded(seed)) for seed in (5, 5, 6))
    assert first.shape == (2, 3, 4)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("logit", "probability", "soft"),
    [
        (10.0, 0.999991, 0.99999),
        (4.60517, 0.997982, 0.99603),
        (0.0, 0.831822, 0.5),
        (-1.5986, 0.5, None),
        (-4.60517, 0.047130, None),
    ],
)
def test_open_probability_and_soft_value_of_known_logits(logit, probability, soft):
    log_alpha = torch.tensor([logit])
    assert probability_open(log_alpha).item() == pytest.approx(probability, abs=2e-6)
    if soft is not None:
        assert deterministic_mask(log_alpha).item() == pytest.approx(soft, abs=5e-6)


def test_open_probability_never_reaches_0_or_1():
    probability = probability_open(torch.tensor([-1e4, 1e4]))
    assert probability.tolist() == pytest.approx([1e-6, 1 - 1e-6], rel=1e-6)
    assert probability[1] < 1


@pytest.mark.parametrize(
    ("size", "most", "fewest", "at_zero"),
    [
        (8, 8, 0, 7),
        (12, 12, 1, 10),
        (16, 16, 1, 13),
        (768, 766, 36, 639),
        (1024, 1022, 48, 852),
        (2048, 2044, 97, 1704),
        (3072, 3066, 145, 2555),
    ],
)
def test_groups_at_the_clamp_limits_keep_the_known_numbers_of_units(size, most, fewest, at_zero):
    kept = [int((deterministic_mask(torch.full((size,), x)) > 0).sum()) for x in (MAX_LOGIT, MIN_LOGIT, 0.0)]
    assert kept == [most, fewest, at_zero]


@pytest.mark.parametrize(("size", "closed"), [(1, 0), (3, 2), (5, 2), (7, 4)])
def test_half_a_unit_rounds_to_even(size, closed):
    mask = deterministic_mask(torch.full((size,), CLOSING_LOGIT))  # P(open) is exactly one half
    assert int((mask == 0).sum()) == closed


def test_survivors_are_the_highest_logits_and_hold_the_soft_value():
    log_alpha = torch.tensor([-3.0, 2.0, -1.0, 0.0])
    # P(open) = 0.19764, 0.97335, 0.64539, 0.83182: 4 - 2.6482 = 1.35 rounds to 1.
    mask = deterministic_mask(log_alpha)
    assert mask.tolist() == pytest.approx([0, sigmoid(2.4), sigmoid(-1.2), 0.5], abs=1e-6)


def test_among_equal_logits_the_lower_index_is_kept():
    log_alpha = torch.tensor([MIN_LOGIT, 0.0, MIN_LOGIT, 0.0, 0.0, 0.0, 0.0, 0.0])
    # 8 - 6 * 0.83182 - 2 * 0.04713 = 2.91 rounds to 3: both low ones and the last of the equal rest.
    mask = deterministic_mask(log_alpha, final="binary")
    assert mask.tolist() == [0, 1, 0, 1, 1, 1, 1, 0]


def test_a_wide_group_of_equal_logits_loses_its_last_units():
    mask = deterministic_mask(torch.full((3072,), MAX_LOGIT), final="binary")
    assert torch.equal(mask, (torch.arange(3072) < 3066).float())


def test_zeros_are_the_rounded_expectation_for_random_groups():
    for seed in range(20):
        log_alpha = 3 * torch.randn(97, generator=seeded(seed))
        closed = round(97 - sigmoid(log_alpha.numpy() + 2 / 3 * math.log(11)).sum())
        mask = deterministic_mask(log_alpha)
        assert int((mask == 0).sum()) == closed
        assert log_alpha[mask > 0].min() > log_alpha[mask == 0].max()


def test_soft_and_binary_masks_keep_the_same_units():
    log_alpha = 3 * torch.randn(64, generator=seeded())
    binary = deterministic_mask(log_alpha, final="binary")
    assert set(binary.tolist()) == {0.0, 1.0}
    assert torch.equal(binary > 0, deterministic_mask(log_alpha, final="soft") > 0)


def test_deterministic_mask_ignores_the_random_state():
    masks = small_masks()
    torch.manual_seed(0)
    first = masks.deterministic()
    torch.manual_seed(1)
    masks.sample()
    second = masks.deterministic()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("kind", ["sublayer", "block"])
def test_sublayers_and_blocks_close_alone_below_one_half(kind):
    masks = L0Masks({"encoder.attn": (4, kind)})
    with torch.no_grad():
        masks.log_alpha("encoder.attn").copy_(torch.tensor([-1.5985, -1.5987, -4.6, -1.7]))
    # Ranked as one group, 4 - (0.5 + 0.5 + 0.047 + 0.475) = 2.48 would close only two.
    assert masks.deterministic("binary")["encoder.attn"].tolist() == [1, 0, 0, 0]


def test_neurons_start_half_dropped_and_everything_else_starts_open():
    neurons = initial_logits(10_000, "neuron", droprate_init=0.2, generator=seeded())
    assert neurons.mean().item() == pytest.approx(math.log(4), abs=1e-3)
    assert neurons.std().item() == pytest.approx(0.01, rel=0.05)
    assert initial_logits(10_000, "neuron", generator=seeded()).mean().item() == pytest.approx(0, abs=1e-3)
    for kind in ("head", "sublayer", "block", "hidden"):
        assert initial_logits(10_000, kind, generator=seeded()).mean().item() == pytest.approx(10, abs=1e-3)


def test_masks_come_back_under_the_dotted_group_names():
    masks = small_masks()
    sizes = {name: masks.log_alpha(name).shape for name in masks.kinds}
    for result in (masks.sample(seeded()), masks.probabilities(), masks.deterministic()):
        assert {name: values.shape for name, values in result.items()} == sizes


def test_each_group_gets_the_values_of_its_own_logits():
    masks = small_masks()
    for name, probability in masks.probabilities().items():
        assert torch.equal(probability, probability_open(masks.log_alpha(name)))


def test_clamp_brings_every_logit_into_the_limits():
    masks = L0Masks({"a.heads": (2, "head"), "a.neurons": (2, "neuron")})
    with torch.no_grad():
        masks.log_alpha("a.neurons").copy_(torch.tensor([-9.0, 1.5]))
    masks.clamp_()
    assert masks.log_alpha("a.heads").tolist() == pytest.approx([4.60517] * 2, abs=1e-5)
    assert masks.log_alpha("a.neurons").tolist() == pytest.approx([-4.60517, 1.5], abs=1e-5)


def test_state_dict_brings_the_masks_back():
    masks, other = small_masks(seed=0), small_masks(seed=9)
    other.load_state_dict(masks.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(masks.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("function", [hard_concrete_sample, probability_open, deterministic_mask])
def test_masks_of_bfloat16_logits_are_float32(function):
    assert function(torch.zeros(3, dtype=torch.bfloat16)).dtype == torch.float32


def test_arithmetic_stays_in_float32_under_autocast():
    masks = small_masks()
    size = ExpectedSize(SMALL)
    expected = size.sparsity(masks.probabilities())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        sample = masks.sample(seeded())
        sparsity = size.sparsity(masks.probabilities())
        penalty = Lagrangian(0.3, 0).penalty(sparsity, 0)
    assert {value.dtype for value in (*sample.values(), sparsity, penalty)} == {torch.float32}
    assert torch.equal(sparsity, expected)


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


@pytest.mark.parametrize("count", ["exact", "weights"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_expected_size_is_the_mean_of_counted_samples(count, seed):
    masks = small_masks(seed)
    generator = seeded(seed)
    sizes = np.array([counted(masks.sample(generator), count) for _ in range(4000)])
    expected = ExpectedSize(SMALL, count=count).kept(masks.probabilities()).item()
    assert abs(sizes.mean() - expected) <= 5 * sizes.std() / math.sqrt(len(sizes))
    assert sizes.std() > 1  # or the comparison would say nothing


@pytest.mark.parametrize("count", ["exact", "weights"])
def test_gradient_of_expected_size_agrees_with_finite_differences(count):
    masks = small_masks()
    ExpectedSize(SMALL, count=count).kept(masks.probabilities()).backward()

    def expected(logits):
        p = {name: sigmoid(x + 2 / 3 * math.log(11)) for name, x in logits.items()}
        total = 0.0
        for c in SMALL:
            gate = p[c.sublayer[0]][c.sublayer[1]] * p[c.block[0]][c.block[1]]
            if count == "exact":
                some = 1 - np.prod(1 - p[c.group])
                total += gate * (c.unit_cost * p[c.group].sum() + c.fixed_cost * some)
            else:
                total += gate * (c.unit_cost + c.fixed_cost / c.units) * p[c.group].sum()
        return total

    logits = {name: masks.log_alpha(name).detach().double().numpy() for name in masks.kinds}
    for name, values in logits.items():
        for index in range(len(values)):
            step = np.zeros_like(values)
            step[index] = 1e-5
            up, down = (expected(logits | {name: values + sign * step}) for sign in (1, -1))
            gradient = masks.log_alpha(name).grad[index].item()
            assert gradient == pytest.approx((up - down) / 2e-5, rel=1e-4, abs=1e-4)


def test_fully_open_groups_without_logits_cost_everything():
    assert ExpectedSize(SMALL).kept({}).item() == pytest.approx(ExpectedSize(SMALL).total, rel=1e-6)


def test_a_certainly_open_unit_gives_a_finite_gradient():
    probabilities = {"enc.0.attn.heads": torch.ones(2, requires_grad=True)}
    ExpectedSize(SMALL).kept(probabilities).backward()
    # d/dp_i of 100*(p_1 + p_2) + 30*(1 - (1 - p_1)(1 - p_2)) at p = 1 is 100.
    assert probabilities["enc.0.attn.heads"].grad.tolist() == [100, 100]


@pytest.mark.parametrize(("factors", "floor"), [(1, 0.0020), (2, 0.0040), (3, 0.0060)])
def test_clamped_open_masks_leave_the_known_sparsity_floor(factors, floor):
    masks = L0Masks({"a.heads": (12, "head"), "subs": (1, "sublayer"), "blocks": (1, "block")})
    masks.clamp_()
    gates = (("subs", 0) if factors > 1 else None, ("blocks", 0) if factors > 2 else None)
    cost = SublayerCost("a.heads", 12, 196_608, 0.0, *gates)
    sparsity = ExpectedSize([cost]).sparsity(masks.probabilities()).item()
    assert sparsity == pytest.approx(1 - 0.997982**factors, abs=2e-6)
    assert round(sparsity, 4) == floor
