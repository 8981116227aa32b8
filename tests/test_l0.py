import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from l0_calls import seeded, sigmoid, small_masks
from scipy.integrate import quad

from prunekit.training.l0 import (
    CLOSING_LOGIT,
    MAX_LOGIT,
    MIN_LOGIT,
    L0Masks,
    deterministic_mask,
    hard_concrete_sample,
    initial_logits,
    probability_open,
)


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
