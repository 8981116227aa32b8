"""Widths in multiples of a number: which counts are allowed, and the best of them that a budget pays for."""

import itertools
import re

import numpy as np
import pytest
import torch
from budget_calls import (
    kept_cost,
    layout,
    objective,
    problems,
    quick,
    random_scores,
    scores,
    total_cost,
)
from hypothesis import given
from hypothesis import strategies as st

from prunekit.errors import BudgetError
from prunekit.pruning.allocate import ROUNDING, allocate
from prunekit.pruning.units import UnitGroup


def rounded_layout(widths, **units):
    """As ``layout``, with the width of each sublayer's units."""
    costs, structure = layout(**units)
    for name, width in widths.items():
        group = structure.sublayers[name].units
        structure.sublayers[name].units = UnitGroup(group.name, group.kind, group.size, width)
    return costs, structure


def best_rounded(wanted, costs, structure, budget, floor, round_to):
    """The largest objective of all allowed counts, each group's best units kept; none if there is no such."""
    curves, allowed = [], []
    for name, c in costs.items():
        width = structure.sublayers[name].units.width
        counts = [n for n in range(c.units + 1) if n * width % round_to == 0 or n == c.units]
        allowed.append([n for n in counts if n >= min(floor, c.units)])
        ranked = np.sort(wanted[f"{name}.units"].clamp(min=0).numpy())[::-1]
        curves.append(np.concatenate([[0.0], np.cumsum(ranked)]))
    fixed = sum(c.fixed for c in costs.values())
    found = [
        sum(curve[n] for curve, n in zip(curves, counts, strict=True))
        for counts in itertools.product(*allowed)
        if fixed + sum(c.unit * n for c, n in zip(costs.values(), counts, strict=True))
        <= budget + ROUNDING * total_cost(costs)
    ]
    return max(found) if found else None


@pytest.mark.parametrize("round_to", [2, 4, 8])
@pytest.mark.parametrize("sparsity", [0.2, 0.5, 0.7])
@pytest.mark.parametrize("floor", [0, 1, 3])
def test_rounded_counts_that_divide_are_the_best_of_all(round_to, sparsity, floor):
    costs, structure = rounded_layout(
        {"a": 4, "b": 4, "c": 1, "d": 1},
        a=(7.0, 4, 0.5),
        b=(7.0, 4, 0.5),
        c=(2.5, 8, 0.5),
        d=(2.5, 16, 0.5),
    )
    for seed in range(8):
        wanted = random_scores(costs, seed, draw=torch.randn if seed % 2 else torch.rand)
        budget = (1 - sparsity) * total_cost(costs)
        best = best_rounded(wanted, costs, structure, budget, floor, round_to)
        if best is None:
            with pytest.raises(BudgetError, match="cannot be reached"):
                allocate(wanted, costs, structure, sparsity, floor=floor, round_to=round_to)
            continue
        keep = allocate(wanted, costs, structure, sparsity, floor=floor, round_to=round_to)
        assert objective(keep, wanted) == pytest.approx(best, rel=1e-9)


@quick
@given(
    problem=problems(classes=3, most=24),
    sparsity=st.floats(0, 0.95),
    round_to=st.sampled_from([1, 2, 3, 4, 8]),
    width=st.sampled_from([1, 2, 4, 6]),
)
def test_rounded_counts_are_allowed_and_within_the_budget(problem, sparsity, round_to, width):
    costs, _, wanted = problem
    _, structure = rounded_layout(
        dict.fromkeys(costs, width), **{name: (c.unit, c.units, c.fixed) for name, c in costs.items()}
    )
    keep = allocate(wanted, costs, structure, sparsity, round_to=round_to)
    for name, kept in keep.items():
        assert len(kept) * width % round_to == 0 or len(kept) == len(wanted[name])
        # A group's best units are kept.
        gone = [i for i in range(len(wanted[name])) if i not in kept]
        if kept and gone:
            assert wanted[name][list(kept)].min() >= wanted[name][gone].max()
    assert kept_cost(keep, costs) <= (1 - sparsity + ROUNDING) * total_cost(costs)


@pytest.mark.parametrize("sparsity", [0, 0.3, 0.6])
def test_rounding_to_one_changes_nothing(sparsity):
    costs, structure = layout(a=(7, 6), b=(2, 20), c=(3, 9))
    wanted = random_scores(costs, 3)
    assert allocate(wanted, costs, structure, sparsity, round_to=1) == allocate(
        wanted, costs, structure, sparsity
    )


def test_what_is_left_of_a_group_stays_if_it_fits():
    # 10 units in bundles of 4, of which two remain: 8, or all 10.
    costs, structure = rounded_layout({"a": 1}, a=(1, 10))
    wanted = scores(a=[float(i) for i in range(10)])
    left = [
        len(allocate(wanted, costs, structure, percent / 100, round_to=4)["a.units"])
        for percent in range(0, 100, 10)
    ]
    assert left == [10, 8, 8, 4, 4, 4, 4, 0, 0, 0]


def test_a_group_narrower_than_the_rounding_is_kept_whole_or_not_at_all():
    costs, structure = rounded_layout({"a": 1, "b": 1}, a=(1, 3), b=(1, 16))
    wanted = scores(a=[1.0, 2.0, 1.0], b=[1.0] * 16)
    assert len(allocate(wanted, costs, structure, 0.5, round_to=8)["a.units"]) == 0
    assert len(allocate(wanted, costs, structure, 0.4, round_to=8)["a.units"]) == 3


def test_heads_count_as_wide_as_they_are():
    costs, structure = rounded_layout({"a": 16}, a=(16, 6))
    wanted = scores(a=[6.0, 5, 4, 3, 2, 1])
    kept = {
        round_to: allocate(wanted, costs, structure, 0.4, round_to=round_to)["a.units"]
        for round_to in (8, 16, 32, 64)
    }
    assert kept == {8: (0, 1, 2), 16: (0, 1, 2), 32: (0, 1), 64: ()}


def test_a_floor_is_rounded_up():
    costs, structure = rounded_layout({"a": 1, "b": 1}, a=(1, 16), b=(1, 5))
    wanted = scores(a=[1.0] * 16, b=[0.0] * 5)
    keep = allocate(wanted, costs, structure, 0.3, floor=3, round_to=8)
    assert [len(kept) for kept in keep.values()] == [8, 5]
    text = (
        "a sparsity of 0.5 cannot be reached: 0.6190 of the cost in scope must stay, because each group "
        "keeps at least 3 units, rounded up. Ask for at most 0.3809."
    )
    with pytest.raises(BudgetError, match=f"^{re.escape(text)}$"):
        allocate(wanted, costs, structure, 0.5, floor=3, round_to=8)
