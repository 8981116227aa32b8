"""The most valuable units that a time pays for: from scores and a table of times to kept indices."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.optimize
from numpy.typing import NDArray

from prunekit.adapters.base import Structure
from prunekit.errors import BudgetError, PrunekitError
from prunekit.pruning.rounding import bundle_size, rounded_up
from prunekit.pruning.stopwatch import LatencyTable
from prunekit.pruning.units import UnitGroup

if TYPE_CHECKING:
    from torch import Tensor

    Floats = NDArray[np.float64]

POINTS = 64
"""Counts of a sublayer that are weighed at most, none and all included; more are thinned to even steps."""
GAP = 1e-7
"""Share of the best value by which the solver may stop short of proving that there is none better."""
TIME_LIMIT_S = 20.0
"""After which the best plan found so far is taken."""
ROUNDING = 1e-6
"""Share of the dense model's time by which a plan may exceed what was asked: the solver's own tolerance."""
_SCALE = 1000.0


@dataclass(frozen=True)
class TimedPlan:
    """What to keep, and what the table says of it.

    Args:
        keep: for each scored group the sorted indices that stay.
        predicted: time of what stays over the dense model's, by the table.
    """

    keep: dict[str, tuple[int, ...]]
    predicted: float


@dataclass(frozen=True)
class _Choice:
    """A scored sublayer: the counts that it may keep, with what each is worth and takes."""

    sublayer: str
    stack: str
    block: int
    counts: NDArray[np.int64]
    values: Floats
    shares: Floats  # of the dense model's time
    order: NDArray[np.int64]  # its units, best first


def plan_by_time(
    scores: Mapping[str, Tensor],
    table: LatencyTable,
    structure: Structure,
    ratio: float,
    *,
    floor: int = 0,
    round_to: int | None = None,
) -> TimedPlan:
    """Keep the units with the largest total score whose predicted time stays within the ratio.

    A sublayer that keeps ``k`` units keeps its best ``k``; how many, of every sublayer at once, is an integer
    program with one binary for each sublayer and count, and one for each block that is not empty. It is
    solved to within ``GAP`` of the best value, or for ``TIME_LIMIT_S``. Scores below zero count as zero.

    Args:
        scores: for each unit group, ``[N]``, higher is kept; groups not named stay whole.
        table: of all the model's sublayers.
        structure: the model's.
        ratio: predicted time of what stays over the dense model's, at most.
        floor: units that every scored group keeps at least; rounded up to an allowed count.
        round_to: kept units times their width are a multiple of this, unless all or none are kept.

    Raises:
        BudgetError: if even the smallest counts take longer, with the smallest ratio there is; or if a score
            is not finite.
        PrunekitError: if the solver finds no plan within its time limit.
    """
    subs = {sub.units.name: sub for sub in structure.sublayers.values()}
    choices = []
    for name in sorted(scores):
        vector = scores[name].detach().cpu().double().numpy()
        if not np.isfinite(vector).all():
            raise BudgetError(f"{name} has scores that are not finite numbers; look for NaN in the model.")
        sub = subs[name]
        counts = _counts(sub.units, floor, round_to)
        order = np.argsort(-vector, kind="stable")
        worth = np.concatenate([[0.0], np.cumsum(vector[order].clip(0))])[counts]
        shares = np.array([table.ms(sub.name, int(count)) for count in counts]) / table.total_ms
        choices.append(_Choice(sub.name, sub.stack, sub.block, counts, worth, shares, order))
    fixed = frozenset((sub.stack, sub.block) for sub in subs.values() if sub.units.name not in scores)
    least = least_ratio(table, structure, scores, floor=floor, round_to=round_to)
    if least > ratio + ROUNDING:
        raise BudgetError(
            f"a latency ratio of {ratio:g} cannot be reached: with as little kept as the scope and the floor "
            f"allow, the table of times predicts {least:.4f}. Ask for at least "
            f"{np.ceil(least * 1e4) / 1e4:g}, or widen the scope."
        )
    kept = _solved(choices, fixed, table, max(ratio, least)) if choices else []
    left = {choice.sublayer: int(choice.counts[i]) for choice, i in zip(choices, kept, strict=True)}
    predicted = table.predict(left) / table.total_ms
    if predicted > ratio + ROUNDING:
        raise PrunekitError(
            f"the solver returned a plan of {predicted:.6f} of the dense model's time where {ratio:.6f} was "
            "asked. This is an error of prunekit or of scipy; please report it."
        )
    keep = {
        structure.sublayers[choice.sublayer].units.name: tuple(
            np.sort(choice.order[: left[choice.sublayer]]).tolist()
        )
        for choice in choices
    }
    return TimedPlan(keep, predicted)


def least_ratio(
    table: LatencyTable,
    structure: Structure,
    scores: Mapping[str, Tensor],
    *,
    floor: int = 0,
    round_to: int | None = None,
) -> float:
    """The smallest predicted ratio: every scored sublayer at the count that takes least."""
    fastest = {}
    for sub in structure.sublayers.values():
        if sub.units.name in scores:
            counts = _counts(sub.units, floor, round_to)
            # Of equally fast counts the smallest, so that blocks can become empty.
            fastest[sub.name] = int(min(counts, key=lambda count: table.ms(sub.name, int(count))))
    return table.predict(fastest) / table.total_ms


def _counts(group: UnitGroup, floor: int, round_to: int | None) -> NDArray[np.int64]:
    """The counts that are weighed: bundles at even steps from the floor to all, and none without a floor."""
    bundle = bundle_size(group, round_to)
    least = rounded_up(floor, group, bundle)
    bundles = -(-(group.size - least) // bundle)
    step = bundle * max(1, -(-bundles // (POINTS - 1)))
    return np.array([*range(least, group.size, step), group.size])


def _solved(
    choices: Sequence[_Choice], fixed: frozenset[tuple[str, int]], table: LatencyTable, ratio: float
) -> list[int]:
    """For each choice the index of the count to keep.

    Args:
        choices: the scored sublayers.
        fixed: blocks with a sublayer that stays whole; they can never be empty.
        table: of times.
        ratio: what may be spent, as a share of the dense model's time.
    """
    blocks = sorted({(choice.stack, choice.block) for choice in choices} - fixed)
    ends = np.cumsum([len(choice.counts) for choice in choices])
    columns = [np.arange(end - len(choice.counts), end) for end, choice in zip(ends, choices, strict=True)]
    block_column = {block: int(ends[-1]) + i for i, block in enumerate(blocks)}
    block_shares = [table.block_ms.get(stack, 0.0) / table.total_ms for stack, _ in blocks]
    values = np.concatenate([*(choice.values for choice in choices), np.zeros(len(blocks))])
    shares = np.concatenate([*(choice.shares for choice in choices), block_shares])
    rest = 1 - sum(float(choice.shares[-1]) for choice in choices) - sum(block_shares)
    rows = [(np.arange(len(values)), shares, -np.inf, ratio - rest)]
    for choice, own in zip(choices, columns, strict=True):
        rows.append((own, np.ones(len(own)), 1, 1))
        column = block_column.get((choice.stack, choice.block))
        if column is not None:
            # Whoever keeps a unit keeps the block: it is empty only where every sublayer keeps none.
            none = own[:1] if choice.counts[0] == 0 else own[:0]
            rows.append((np.append(none, column), np.ones(len(none) + 1), 1, 2))
    # A stack in which every block could become empty keeps one.
    for stack in sorted({stack for stack, _ in blocks} - {stack for stack, _ in fixed}):
        all_of_it = np.array([block_column[block] for block in blocks if block[0] == stack])
        rows.append((all_of_it, np.ones(len(all_of_it)), 1, np.inf))
    chosen = _milp(values, rows, ratio)
    return [int(np.argmax(chosen[own])) for own in columns]


def _milp(
    values: Floats, rows: Sequence[tuple[NDArray[np.int64], Floats, float, float]], ratio: float
) -> Floats:
    """The 0 or 1 of each column that make the values' sum largest.

    Args:
        values: of the columns.
        rows: constraints, as columns, their weights, and the least and the most that these may sum to.
        ratio: for the error's text.
    """
    matrix = np.zeros((len(rows), len(values)))
    for row, (columns, weights, _, _) in zip(matrix, rows, strict=True):
        row[columns] = weights
    lows, highs = ([row[i] for row in rows] for i in (2, 3))
    # Scaled, since the solver also has absolute tolerances.
    scale = _SCALE / max(float(values.max()), np.finfo(float).tiny)
    with _stdout_kept_clean():
        found = scipy.optimize.milp(
            -scale * values,
            constraints=scipy.optimize.LinearConstraint(matrix, lows, highs),
            integrality=np.ones(len(values)),
            bounds=scipy.optimize.Bounds(0, 1),
            # Presolving saves no time here, and is what makes the solver talk.
            options={"mip_rel_gap": GAP, "time_limit": TIME_LIMIT_S, "presolve": False},
        )
    if found.x is None:
        raise PrunekitError(
            f"scipy's integer program found no plan for a latency ratio of {ratio:.4f} in "
            f"{TIME_LIMIT_S:g} s: {found.message}"
        )
    chosen: Floats = found.x
    return chosen


@contextmanager
def _stdout_kept_clean() -> Iterator[None]:
    """Send what compiled code prints to standard error: standard output may be somebody's JSON."""
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)
