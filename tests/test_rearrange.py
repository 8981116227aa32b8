"""Exchanging kept and removed units by what their removal costs together."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch

from prunekit.scoring.rearrange import rearrange


def loss(kept, samples):
    removed = [unit for unit in range(samples.shape[1]) if unit not in kept]
    return float(samples[:, removed].sum(1).square().sum())


def exchanged(kept, samples):
    return rearrange({"group": kept}, {"group": samples})["group"]


def random_case(seed, *, samples=3, units=7, kept=3):
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(units, generator=generator)[:kept]
    return tuple(sorted(order.tolist())), torch.randn(samples, units, generator=generator)


def test_a_unit_whose_gradient_cancels_another_is_removed_with_it():
    # Removing 0 and 1 costs (1 + 1)^2; 2 undoes either of them, and the lower index stays.
    assert exchanged((2, 3), torch.tensor([[1.0, 1.0, -1.0, 5.0]])) == (0, 3)


def test_the_greedy_walk_worked_by_hand():
    # Removed {0, 1} sum to (3, 1), loss 10. Kept by size: 3 (2), then 2 (13).
    # 3 joins: (2, 2); without 0 (0, 1), without 1 (1, 3), without 3 (3, 1): 0 leaves, loss 1.
    # 2 joins: {1, 2, 3} sum to (2, -2); without 1 (1, -1), without 3 (3, -3), without 2 (0, 1): 2 leaves.
    samples = torch.tensor([[2.0, 1.0, 2.0, -1.0], [1.0, 0.0, -3.0, 1.0]])
    assert exchanged((2, 3), samples) == (0, 2)


def test_the_result_is_never_worse_than_the_start_and_often_the_best_there_is():
    better = best = 0
    for seed in range(100):
        kept, samples = random_case(seed)
        found = exchanged(kept, samples)
        assert loss(found, samples) <= loss(kept, samples) + 1e-5
        better += loss(found, samples) < loss(kept, samples) - 1e-5
        lowest = min(loss(choice, samples) for choice in combinations(range(7), 3))
        best += loss(found, samples) <= lowest + 1e-5
    assert better > 50
    assert best > 50


@pytest.mark.parametrize("kept", range(1, 7))
def test_every_group_keeps_its_number_of_units(kept):
    start, samples = random_case(4, kept=kept)
    found = exchanged(start, samples)
    assert len(found) == kept
    assert found == tuple(sorted(set(found)))


@pytest.mark.parametrize("kept", [(), tuple(range(7))])
def test_a_group_that_is_all_kept_or_all_removed_is_left_alone(kept):
    _, samples = random_case(0)
    assert exchanged(kept, samples) == kept


def test_groups_without_samples_are_left_alone_and_the_order_of_groups_stays():
    start, samples = random_case(1)
    found = rearrange({"b": [0, 2], "a": start}, {"a": samples})
    assert list(found) == ["b", "a"]
    assert found["b"] == (0, 2)


def test_groups_do_not_see_each_other():
    cases = {str(seed): random_case(seed) for seed in range(3)}
    together = rearrange({n: kept for n, (kept, _) in cases.items()}, {n: s for n, (_, s) in cases.items()})
    assert together == {name: exchanged(*case) for name, case in cases.items()}


def test_units_that_are_alike_are_not_exchanged():
    generator = torch.Generator().manual_seed(0)
    samples = torch.randn(5, 1, generator=generator).expand(5, 8)
    assert exchanged((1, 4, 6), samples) == (1, 4, 6)


def test_relabelling_units_relabels_the_result():
    kept, samples = random_case(9, samples=6, units=12, kept=5)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))  # new place -> old unit
    places = {int(old): new for new, old in enumerate(order)}
    moved = exchanged(tuple(sorted(places[unit] for unit in kept)), samples[:, order])
    assert sorted(int(order[place]) for place in moved) == list(exchanged(kept, samples))
