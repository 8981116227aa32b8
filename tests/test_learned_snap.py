"""Final masks of a goal: cut to the budget within one unit."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from learned_calls import ALL_KINDS, COFI_KINDS, goal_of, kept_by, masks_of, realised
from nash_calls import target_of

from prunekit.errors import BudgetError
from prunekit.learned.snap import rounded_masks, snapped_masks
from prunekit.pruning.budget import keep_by_score
from prunekit.pruning.plan import PruningPlan
from prunekit.training.l0 import CLOSING_LOGIT, MAX_LOGIT, MIN_LOGIT

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

UNITS = ("head", "neuron")
SHUT = CLOSING_LOGIT - 0.5


def snapped(target, goal, masks, final="binary"):
    return snapped_masks(goal, masks, target.structure, final)


def one_unit(target, goal, masks):
    """Share of the cheapest unit at the width that is left, and of the bias that a last unit takes along."""
    width = target.groups["hidden"].size
    cut = width - len(kept_by(masks).get("hidden", range(width)))
    left = [cost.narrowed(cut) for cost in goal.costs.values()]
    return min(cost.unit + cost.fixed for cost in left) / goal.total


def put_back(masks, group):
    """The masks with one more unit of a group."""
    mask = masks[group].clone()
    mask[(mask == 0).nonzero()[0]] = 1
    return {**masks, group: mask}


# The budget


@pytest.mark.parametrize("name", ["t5", "t5-gated", "bart", "bert", "vit"])
@pytest.mark.parametrize("kinds", [UNITS, ("hidden", *UNITS), COFI_KINDS, ALL_KINDS], ids="+".join)
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.6, 0.9])
def test_the_budget_is_met_to_within_one_unit(name, kinds, sparsity):
    target = target_of(name)
    goal = goal_of(target, kinds, sparsity=sparsity)
    for seed in range(5):
        found = snapped(target, goal, masks_of(target, goal, seed=seed))
        over = realised(target, goal, found) - sparsity
        assert over >= -1e-9
        assert over < 1e-9 or any(
            realised(target, goal, put_back(found, group)) < sparsity - 1e-9
            for group, kept in kept_by(found).items()
            if target.groups[group].slices and len(kept) < target.groups[group].size
        )
        if sparsity <= 0.6:  # neurons are left, to fill what a head would overshoot
            assert over < one_unit(target, goal, found)
        PruningPlan.from_masks(found, target.groups)


@pytest.mark.parametrize("name", ["t5", "bart"])
@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.3, 0.55])
def test_units_alone_are_kept_by_score(name, sparsity):
    target = target_of(name)
    goal = goal_of(target, UNITS, sparsity=sparsity, name="encoder", scope=["encoder.*"])
    masks = masks_of(target, goal, seed=3)
    logits = {group: masks.log_alpha(group).detach() for group in goal.masks}
    expected = keep_by_score(logits, goal.costs, target.structure, sparsity)
    assert kept_by(snapped(target, goal, masks)) == {group: list(kept) for group, kept in expected.items()}


def test_hidden_units_and_sublayers_are_decided_before_the_units():
    target = target_of("t5")
    goal = goal_of(target, COFI_KINDS, sparsity=0.6)
    hidden = torch.full((16,), 4.0)
    hidden[[2, 5]] = MIN_LOGIT
    masks = masks_of(target, goal, hidden=hidden, encoder_ffn=[4.0, SHUT, 4.0])
    found = kept_by(snapped(target, goal, masks))
    assert found["hidden"] == [i for i in range(16) if i not in (2, 5)]
    assert found["encoder.ffn"] == [0, 2]
    assert found["encoder.1.ffn.neurons"] == []
    assert found["encoder.self_attn"] == [0, 1, 2]


def test_units_of_open_sublayers_go_by_logit():
    target = target_of("t5")
    goal = goal_of(target, COFI_KINDS, sparsity=0.3)
    masks = masks_of(target, goal, decoder_1_ffn_neurons=-1.0, encoder_0_ffn_neurons=torch.arange(20) / 10)
    found = kept_by(snapped(target, goal, masks))
    gone = {group: target.groups[group].size - len(kept) for group, kept in found.items()}
    assert gone["decoder.1.ffn.neurons"] == 20
    lost = gone["encoder.0.ffn.neurons"]
    assert lost > 0
    assert found["encoder.0.ffn.neurons"] == list(range(lost, 20))


def test_a_sublayer_that_loses_every_unit_costs_nothing_any_more():
    target = target_of("bart")
    goal = goal_of(target, COFI_KINDS, sparsity=0.2)
    found = snapped(target, goal, masks_of(target, goal, decoder_1_ffn_neurons=-4.0))
    assert not found["decoder.1.ffn.neurons"].any()
    assert "decoder.1.ffn" in target.structure.dead(kept_by(found))
    assert 0.2 <= realised(target, goal, found) < 0.2 + one_unit(target, goal, found)


# Too much removed by whole sublayers, blocks or hidden units


def test_closed_sublayers_reopen_from_the_highest_logit():
    target = target_of("t5")
    goal = goal_of(target, COFI_KINDS, sparsity=0.4)
    masks = masks_of(target, goal, sublayer=SHUT - 1, encoder_ffn=[SHUT, SHUT - 0.2, SHUT - 0.4])
    with torch.no_grad():
        masks.log_alpha("decoder.ffn").copy_(torch.tensor([SHUT - 0.1, SHUT - 0.3, SHUT - 0.5]))
        masks.log_alpha("encoder.self_attn").copy_(torch.tensor([SHUT - 0.7, SHUT - 0.8, SHUT - 0.6]))
    found = kept_by(snapped(target, goal, masks))
    # An FFN costs 640 and an attention 1024 of 13056; 7834 must be left.
    assert (found["encoder.ffn"], found["decoder.ffn"]) == ([0, 1, 2], [0, 1, 2])
    assert found["encoder.self_attn"] == [0, 1, 2]
    assert len(found["decoder.self_attn"]) + len(found["decoder.cross_attn"]) == 1
    assert realised(target, goal, snapped(target, goal, masks)) == pytest.approx(0.4, abs=0.003)


def test_blocks_reopen_when_no_open_block_has_a_closed_sublayer():
    target = target_of("t5")
    goal = goal_of(target, ALL_KINDS, sparsity=0.5)
    masks = masks_of(
        target, goal, block=SHUT, encoder_blocks=[SHUT, 3.0, SHUT], decoder_blocks=[SHUT, SHUT, SHUT + 0.1]
    )
    with torch.no_grad():
        masks.log_alpha("encoder.ffn").copy_(torch.tensor([3.0, SHUT, 3.0]))
    found = kept_by(snapped(target, goal, masks))
    # Encoder blocks cost 1664 and decoder blocks 2688 of 13056: one of each is too little.
    assert found["encoder.ffn"] == [0, 1, 2]
    assert 2 in found["decoder.blocks"]
    assert 1 in found["encoder.blocks"]
    assert 0.5 <= realised(target, goal, snapped(target, goal, masks)) < 0.503


def test_hidden_units_reopen_last_and_from_the_highest_logit():
    target = target_of("t5")
    goal = goal_of(target, COFI_KINDS, sparsity=0.5)
    masks = masks_of(target, goal, hidden=MIN_LOGIT + torch.arange(16) / 100, encoder_ffn=[3.0, SHUT, 3.0])
    found = kept_by(snapped(target, goal, masks))
    assert found["encoder.ffn"] == [0, 1, 2]
    assert found["hidden"] == list(range(8, 16))


@pytest.mark.parametrize("kinds", [ALL_KINDS, ("hidden", *UNITS)])
def test_something_is_always_left(kinds):
    target = target_of("t5")
    goal = goal_of(target, kinds, sparsity=0.949)
    found = kept_by(snapped(target, goal, masks_of(target, goal, **dict.fromkeys(kinds, MIN_LOGIT))))
    assert found["hidden"]
    assert found.get("decoder.blocks", [0])
    left = 1 - realised(target, goal, snapped(target, goal, masks_of(target, goal, seed=0)))
    assert left == pytest.approx(0.051, abs=0.003)


# Values


@pytest.mark.parametrize("snap", [True, False])
def test_soft_values_are_those_of_the_logits_and_blocks_are_one(snap):
    target = target_of("t5")
    goal = goal_of(target, ALL_KINDS, sparsity=0.3)
    masks = masks_of(target, goal, block=1.0, sublayer=2.0, encoder_ffn=[SHUT - 2.0, 2.0, 2.0], hidden=0.5)
    found = snapped(target, goal, masks, "soft") if snap else rounded_masks(masks, "soft")
    for name, mask in found.items():
        expected = torch.sigmoid(1.2 * masks.log_alpha(name).detach())
        if masks.kinds[name] == "block":
            expected = torch.ones(3)
        assert torch.equal(mask, torch.where(mask > 0, expected, 0.0)), name
    assert found["hidden"].max() == pytest.approx(1 / (1 + math.exp(-0.6)))


def test_units_that_snapping_reopens_keep_the_soft_value_of_their_logit():
    target = target_of("t5")
    goal = goal_of(target, COFI_KINDS, sparsity=0.0)
    found = snapped(target, goal, masks_of(target, goal, encoder_ffn=SHUT), "soft")
    assert found["encoder.ffn"].tolist() == pytest.approx([1 / (1 + math.exp(-1.2 * SHUT))] * 3)


@pytest.mark.parametrize("final", ["soft", "binary"])
def test_without_snapping_the_masks_are_the_deterministic_ones(final):
    target = target_of("bart")
    goal = goal_of(target, COFI_KINDS)
    masks = masks_of(target, goal, seed=5)
    found, expected = rounded_masks(masks, final), masks.deterministic(final)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


def test_without_snapping_a_hidden_unit_is_left_too():
    target = target_of("t5")
    goal = goal_of(target, ("hidden",))
    masks = masks_of(target, goal, hidden=torch.full((16,), -40.0).index_fill(0, torch.tensor([6]), -30.0))
    assert kept_by(rounded_masks(masks, "soft"))["hidden"] == [6]


# Goals without heads and neurons


@pytest.mark.parametrize("name", ["t5", "bart"])
@pytest.mark.parametrize("kept", [1, 2])
def test_equal_blocks_leave_exactly_the_wanted_number(name, kept):
    target = target_of(name)
    goal = goal_of(target, ("block",), sparsity=1 - kept / 3, scope=["decoder.*"])
    for logits in ([3.0, 1.0, 2.0], [MAX_LOGIT] * 3, [MIN_LOGIT, MIN_LOGIT, -1.0]):
        masks = masks_of(target, goal, block=logits)
        assert len(kept_by(snapped(target, goal, masks))["decoder.blocks"]) == kept
    masks = masks_of(target, goal, block=[3.0, 1.0, 2.0])
    assert kept_by(snapped(target, goal, masks))["decoder.blocks"] == ([0] if kept == 1 else [0, 2])


def test_equal_blocks_never_remove_less_than_the_target_and_one_stays():
    target = target_of("t5")
    for sparsity, kept in ((0.1, 2), (0.5, 1), (0.9, 1)):
        goal = goal_of(target, ("block",), sparsity=sparsity, scope=["decoder.*"])
        found = snapped(target, goal, masks_of(target, goal, block=[1.0, 2.0, 3.0]))
        assert kept_by(found)["decoder.blocks"] == list(range(3 - kept, 3))


def test_sublayers_go_by_logit_and_one_that_is_too_large_is_passed_over():
    target = target_of("t5")
    # Attentions cost 1024, FFNs 640, a block 2688; a third of the decoder is 2688.
    goal = goal_of(target, ("sublayer",), sparsity=1 / 3, scope=["decoder.*"])
    masks = masks_of(
        target, goal, decoder_self_attn=[-2.0, -1.0, 3.0], decoder_ffn=[0.5, 1, 1], decoder_cross_attn=0.0
    )
    found = kept_by(snapped(target, goal, masks))
    assert found == {"decoder.self_attn": [2], "decoder.cross_attn": [0, 1, 2], "decoder.ffn": [1, 2]}
    assert realised(target, goal, snapped(target, goal, masks)) == pytest.approx(1 / 3)


@pytest.mark.parametrize("seed", range(8))
def test_sublayers_come_as_near_as_one_more_or_less_allows(seed):
    target = target_of("bart")
    goal = goal_of(target, ("sublayer",), sparsity=2 / 3, scope=["decoder.*"])
    found = snapped(target, goal, masks_of(target, goal, seed=seed))
    gap = abs(realised(target, goal, found) - 2 / 3)
    for group, kept in kept_by(found).items():
        for index in range(3):
            other = {name: mask.clone() for name, mask in found.items()}
            other[group][index] = 0 if index in kept else 1
            assert abs(realised(target, goal, other) - 2 / 3) >= gap - 1e-9


@pytest.mark.parametrize("name", ["t5", "bart", "bert"])
@pytest.mark.parametrize("sparsity", [0.3, 0.6])
@pytest.mark.parametrize(
    "kinds",
    [("head", "sublayer"), ("head", "hidden"), ("neuron", "hidden"), ("neuron", "sublayer", "hidden")],
    ids="+".join,
)
def test_what_the_masked_units_cannot_remove_the_others_do(name, sparsity, kinds):
    target = target_of(name)
    goal = goal_of(target, kinds, sparsity=sparsity)
    for seed in range(4):
        found = snapped(target, goal, masks_of(target, goal, seed=seed))
        # A head, a hidden unit, or a whole FFN where nothing finer is masked.
        assert -1e-9 <= realised(target, goal, found) - sparsity < 0.13
    opened = masks_of(target, goal)
    assert realised(target, goal, snapped(target, goal, opened)) >= sparsity - 1e-9


def test_too_few_masks_for_the_budget_are_an_error():
    target = target_of("t5")
    goal = goal_of(target, ("head",), sparsity=0.8)
    with pytest.raises(BudgetError, match=r"^a sparsity of 0\.8 cannot be reached: removing every scored"):
        snapped(target, goal, masks_of(target, goal))


def test_hidden_units_alone_meet_the_budget():
    target = target_of("bart")
    goal = goal_of(target, ("hidden", "sublayer"), sparsity=0.6)
    masks = masks_of(target, goal, hidden=torch.arange(16) / 8, encoder_ffn=[SHUT, 3.0, 3.0])
    found = snapped(target, goal, masks)
    kept = kept_by(found)
    assert kept["encoder.ffn"] == [1, 2]
    assert kept["hidden"] == list(range(16 - len(kept["hidden"]), 16))
    found["hidden"][kept["hidden"][0] - 1] = 1
    assert realised(target, goal, found) < 0.6 <= realised(target, goal, snapped(target, goal, masks))


@pytest.mark.parametrize("name", ["t5", "bert"])
@pytest.mark.parametrize("round_to", [4, 8])
def test_rounded_widths_meet_the_budget_to_within_one_bundle(name, round_to):
    target = target_of(name)
    goal = dataclasses.replace(goal_of(target, COFI_KINDS, sparsity=0.5), round_to=round_to)
    masks = masks_of(target, goal, seed=1)
    found = snapped(target, goal, masks)
    kept = kept_by(found)
    for group in (target.groups[mask] for mask in goal.masks):
        if group.kind in ("head", "neuron"):
            assert len(kept[group.name]) * group.width % round_to == 0 or len(kept[group.name]) == group.size
    over = realised(target, goal, found) - 0.5
    # The cheapest bundle is of neurons, which are one entry wide.
    assert -1e-9 <= over < round_to * one_unit(target, goal, found)
