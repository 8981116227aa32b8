"""A goal's expected size against what the core counts of sampled models, on every architecture."""

from __future__ import annotations

import math

import numpy as np
import pytest
from l0_calls import seeded
from learned_calls import ALL_KINDS, COFI_KINDS, goal_of, masks_of, realised
from nash_calls import target_of

from prunekit.learned.goal import Goal, labelled
from prunekit.testing.tiny import TINY_MODELS

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

MASK_SETS = {
    "hidden and units": ("hidden", "head", "neuron"),
    "cofi": COFI_KINDS,
    "all": ALL_KINDS,
    "blocks": ("block",),
}


@pytest.mark.parametrize("kinds", MASK_SETS.values(), ids=MASK_SETS)
@pytest.mark.parametrize("name", TINY_MODELS)
def test_the_expected_sparsity_is_the_mean_of_what_the_core_counts(name, kinds):
    target = target_of(name)
    if "hidden" in kinds and "hidden" not in target.groups:
        pytest.skip(target.structure.no_hidden)
    goal = goal_of(target, kinds)
    masks = masks_of(target, goal, seed=1)
    generator = seeded(7)
    found = np.array([realised(target, goal, masks.sample(generator)) for _ in range(2000)])
    expected = goal.expected_size(target.structure, "exact").sparsity(masks.probabilities()).item()
    assert abs(found.mean() - expected) <= 5 * found.std() / math.sqrt(len(found))
    assert found.std() > 0.005


@pytest.mark.parametrize("name", ["t5-gated", "bart", "bert"])
def test_the_weights_count_is_the_mean_of_hidden_times_units_counted_by_hand(name):
    target = target_of(name)
    goal = goal_of(target, COFI_KINDS)
    masks = masks_of(target, goal, seed=2)
    width = target.groups["hidden"].size

    def counted(sample):
        left = 0.0
        for sub_name, cost in goal.costs.items():
            sub = target.structure.sublayers[sub_name]
            gate = sample[f"{sub.stack}.{sub.role}"][sub.block] > 0
            left += float(gate) * float((sample[sub.units.name] > 0).sum()) * cost.prunable / cost.units
        return 1 - left * float((sample["hidden"] > 0).sum()) / width / goal.total

    generator = seeded(8)
    found = np.array([counted(masks.sample(generator)) for _ in range(2000)])
    expected = goal.expected_size(target.structure, "weights").sparsity(masks.probabilities()).item()
    assert abs(found.mean() - expected) <= 5 * found.std() / math.sqrt(len(found))


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_a_goal_counts_its_own_scope_only(name):
    target = target_of(name)
    goal = goal_of(target, ("head", "neuron"), scope=["encoder.*"])
    assert goal.total == sum(c.prunable for n, c in target.parameter_costs().items() if n.startswith("enc"))
    assert {row.group for row in goal.priced(target.structure)} == set(goal.masks)
    assert {row.sublayer or row.block for row in goal.priced(target.structure)} == {None}


def test_figures_carry_the_goals_name_only_where_there_are_several():
    one, two = Goal("encoder", {}, (), 0.1), Goal("decoder", {}, (), 0.2)
    assert labelled([one], one, "sparsity") == "sparsity"
    assert labelled([one, two], two, "lambda_1") == "decoder_lambda_1"
