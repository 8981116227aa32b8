from itertools import pairwise

import pytest
import torch

from prunekit.training.expected_size import ExpectedSize, SublayerCost
from prunekit.training.l0 import L0Masks
from prunekit.training.lagrangian import Lagrangian

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


def t5_base(*, stacks=("encoder", "decoder"), sublayer_masks=True):
    """Groups and costs of t5-base: width 768, 12 heads of 64, 3072 neurons, 12 blocks in each stack."""
    groups, costs = {}, []
    for stack in stacks:
        attentions = ("self_attn",) if stack == "encoder" else ("self_attn", "cross_attn")
        if sublayer_masks:
            groups |= {f"{stack}.{name}": (12, "sublayer") for name in (*attentions, "ffn")}
        for block in range(12):
            for name in (*attentions, "ffn"):
                size, kind, cost = (3072, "neuron", 2 * 768) if name == "ffn" else (12, "head", 4 * 768 * 64)
                group = f"{stack}.{block}.{name}.{kind}s"
                groups[group] = (size, kind)
                entry = (f"{stack}.{name}", block) if sublayer_masks else None
                costs.append(SublayerCost(group, size, cost, sublayer=entry))
    return groups, costs


@pytest.mark.parametrize(
    ("stacks", "sublayer_masks", "total", "start"),
    [(("encoder",), False, 84_934_656, 0.112), (("encoder", "decoder"), True, 198_180_864, 0.0961)],
)
def test_t5_base_has_the_published_size_and_initial_sparsity(stacks, sublayer_masks, total, start):
    groups, costs = t5_base(stacks=stacks, sublayer_masks=sublayer_masks)
    size = ExpectedSize(costs)
    assert size.total == total
    masks = L0Masks(groups, generator=torch.Generator().manual_seed(0))
    assert size.sparsity(masks.probabilities()).item() == pytest.approx(start, abs=5e-4)


def pursue(target, *, steps, warmup, rate=0.01, state=None, first=0, lambda_2=0.0, resistance=0.0):
    """Train masks on the constraint, and on a loss of ``resistance`` times the sparsity.

    Gives sparsity and lambda_2 of each step, the state, the masks.
    """
    groups, costs = t5_base(stacks=("encoder",))
    masks, size = L0Masks(groups, generator=torch.Generator().manual_seed(0)), ExpectedSize(costs)
    lagrangian = Lagrangian(target, warmup, lambda_2=lambda_2)
    optimiser = torch.optim.AdamW(
        [
            {"params": masks.parameters(), "lr": rate},
            {"params": lagrangian.parameters(), "lr": rate, "maximize": True},
        ],
        weight_decay=0.0,
    )
    parts = (masks, lagrangian, optimiser)
    for part, saved in zip(parts, state or (), strict=False):
        part.load_state_dict(saved)
    sparsities, lambda_2 = [], []
    for step in range(first, steps):
        sparsity = size.sparsity(masks.probabilities())
        (lagrangian.penalty(sparsity, step) + resistance * sparsity).backward()
        optimiser.step()
        optimiser.zero_grad()
        masks.clamp_()
        sparsities.append(sparsity.item())
        lambda_2.append(lagrangian.lambda_2.item())
    return sparsities, lambda_2, [part.state_dict() for part in parts], masks


@pytest.mark.parametrize("target", [0.3, 0.6, 0.9, 0.95])
def test_sparsity_settles_on_the_target(target):
    sparsities, lambda_2, _, _ = pursue(target, steps=1301, warmup=1000)
    assert abs(sparsities[1300] - target) <= 0.005
    assert all(later >= earlier for earlier, later in pairwise(lambda_2))
    assert lambda_2[-1] > 1


def test_a_large_second_multiplier_holds_the_sparsity_on_its_target_against_a_loss_that_resists():
    held, _, _, _ = pursue(0.9, steps=300, warmup=200, rate=0.1, lambda_2=1e4, resistance=50.0)
    left_behind, _, _, _ = pursue(0.9, steps=300, warmup=200, rate=0.1, resistance=50.0)
    # 50 / (2 * 1e4) = 0.0025 is what the second multiplier alone leaves.
    assert all(abs(sparsity - 0.9) <= 0.005 for sparsity in held[250:])
    assert abs(left_behind[-1] - 0.9) > 0.1


def test_resumed_pursuit_follows_the_same_trajectory():
    whole, _, _, _ = pursue(0.6, steps=60, warmup=40, rate=0.1)
    _, _, state, _ = pursue(0.6, steps=25, warmup=40, rate=0.1)
    rest, _, _, _ = pursue(0.6, steps=60, warmup=40, rate=0.1, state=state, first=25)
    assert rest == whole[25:]


@pytest.mark.parametrize(
    ("step", "target"), [(0, 0.1), (1, 0.105), (50, 0.35), (99, 0.595), (100, 0.6), (10**6, 0.6)]
)
def test_target_rises_linearly_and_then_stands(step, target):
    assert Lagrangian(0.6, 100, start=0.1).target_at(step) == pytest.approx(target)


def test_without_warmup_the_target_stands_at_once():
    assert Lagrangian(0.6, 0).target_at(0) == 0.6


def test_penalty_of_a_case_worked_by_hand():
    lagrangian = Lagrangian(0.5, 10)
    with torch.no_grad():
        lagrangian.lambda_1.fill_(-2.0)
        lagrangian.lambda_2.fill_(3.0)
    sparsity = torch.tensor(0.4, requires_grad=True)
    penalty = lagrangian.penalty(sparsity, 4)  # target 0.2, gap 0.2: -2 * 0.2 + 3 * 0.04
    penalty.backward()
    assert penalty.item() == pytest.approx(-0.28)
    assert sparsity.grad.item() == pytest.approx(-2 + 2 * 3 * 0.2)
    assert (lagrangian.lambda_1.grad.item(), lagrangian.lambda_2.grad.item()) == pytest.approx((0.2, 0.04))


def test_multipliers_start_at_zero():
    assert Lagrangian(0.5, 10).penalty(torch.tensor(0.1), 5).item() == 0
