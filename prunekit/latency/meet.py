"""A latency budget that is met: plan by the table, measure the whole model, correct, and again."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

from prunekit.adapters.base import Structure
from prunekit.errors import BudgetError
from prunekit.latency.plan import TimedPlan, least_ratio, plan_by_time
from prunekit.pruning.plan import PruningPlan
from prunekit.pruning.stopwatch import Measured, Stopwatch
from prunekit.pruning.units import block_group

if TYPE_CHECKING:
    from torch import Tensor

TRIES = 6
"""Plans that are measured at most."""
TOLERANCE = 0.03
"""How far the measured ratio may be from the one that was asked for, as a share of that."""
NEAR = 0.01
"""How near is near enough to stop: the finished model is measured once more, and should be within too."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Met:
    """What a latency budget came to.

    Args:
        keep: for each scored group the sorted indices that stay.
        blocks: the same for the blocks of stacks in which some are left without any unit.
        record: ``target, predicted, measured, low, high`` (ratios to the dense model's time, the last two
            the 95 % interval of ``measured``), ``within`` (whether it is near enough), and ``tries``: for
            each plan that was measured its ``aim`` and the same four.
    """

    keep: dict[str, tuple[int, ...]]
    blocks: dict[str, tuple[int, ...]]
    record: dict[str, Any]


@dataclass(frozen=True)
class _Try:
    aim: float
    plan: TimedPlan
    measured: Measured

    def figures(self) -> dict[str, float]:
        measured = self.measured
        return {
            "predicted": self.plan.predicted,
            "measured": measured.ratio,
            "low": measured.low,
            "high": measured.high,
        }


def meet(
    stopwatch: Stopwatch,
    scores: Mapping[str, Tensor],
    structure: Structure,
    ratio: float,
    *,
    floor: int = 0,
    round_to: int | None = None,
) -> Met:
    """Plan, measure and correct until the measured ratio is within ``NEAR`` of the one asked for.

    The table cannot know the whole: what it predicts is off by some factor, which is taken from the last
    measurement; between a plan that was too slow and one that was too fast, the next aim lies on the line
    through both. The nearest plan is taken. A log line says so if it is not near enough.

    Args:
        stopwatch: has the table, and measures whole models.
        scores: for each unit group, ``[N]``; groups not named stay whole.
        structure: the dense model's.
        ratio: measured time of the pruned model over the dense one's.
        floor: units that every scored group keeps at least.
        round_to: kept units times their width are a multiple of this, unless all or none are kept.

    Raises:
        BudgetError: if the table, or the measurement of a model with as little kept as is allowed, says that
            the ratio cannot be reached.
    """
    table = stopwatch.table()
    least = least_ratio(table, structure, scores, floor=floor, round_to=round_to)
    aim, tries = ratio, list[_Try]()
    for _ in range(TRIES):
        plan = plan_by_time(scores, table, structure, aim, floor=floor, round_to=round_to)
        if any(plan.keep == done.plan.keep for done in tries):
            break
        measured = stopwatch.ratio(PruningPlan(keep={**plan.keep, **emptied_blocks(structure, plan.keep)}))
        tries.append(_Try(aim, plan, measured))
        _log.info("latency: %.4f predicted, %.4f measured, %.4f asked", plan.predicted, measured.ratio, ratio)
        if _miss(tries[-1], ratio) <= NEAR:
            break
        aim = min(1.0, max(least, _next_aim(tries, ratio)))
    best = min(tries, key=lambda done: _miss(done, ratio))
    within = _miss(best, ratio) <= TOLERANCE
    if not within:
        _check_least(best, least, ratio)
        _log.warning(
            "latency: the nearest of %d plans measures %.4f where %.4f was asked, more than %g %% away. "
            "Its units are too coarse for more, or times on this machine too noisy: raise speed.rounds, or "
            "keep other work off it",
            len(tries),
            best.measured.ratio,
            ratio,
            100 * TOLERANCE,
        )
    record = {
        "target": ratio,
        **best.figures(),
        "within": within,
        "tries": [{"aim": done.aim, **done.figures()} for done in tries],
    }
    return Met(best.plan.keep, emptied_blocks(structure, best.plan.keep), record)


def emptied_blocks(structure: Structure, keep: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, ...]]:
    """For each stack in which blocks have no unit left, the blocks that stay: at least one, the first."""
    dead = structure.dead(keep)
    found = {}
    for name, stack in structure.stacks.items():
        subs = [sub for sub in structure.sublayers.values() if sub.stack == name]
        full = {sub.block for sub in subs if sub.name not in dead}
        empty = {sub.block for sub in subs} - full
        kept = tuple(i for i in range(stack.depth) if i not in empty) or (0,)
        if len(kept) < stack.depth:
            found[block_group(name)] = kept
    return found


def _miss(done: _Try, ratio: float) -> float:
    return abs(done.measured.ratio / ratio - 1)


def _next_aim(tries: Sequence[_Try], ratio: float) -> float:
    """The prediction at which the measured ratio should be the one asked for."""
    slow = [done for done in tries if done.measured.ratio > ratio]
    fast = [done for done in tries if done.measured.ratio <= ratio]
    if not slow or not fast:
        last = tries[-1]
        return last.plan.predicted * ratio / last.measured.ratio
    above = min(slow, key=lambda done: done.measured.ratio)
    below = max(fast, key=lambda done: done.measured.ratio)
    share = (ratio - below.measured.ratio) / (above.measured.ratio - below.measured.ratio)
    return below.plan.predicted + share * (above.plan.predicted - below.plan.predicted)


def _check_least(best: _Try, least: float, ratio: float) -> None:
    if best.measured.ratio > ratio and best.plan.predicted <= least * (1 + 1e-9):
        raise BudgetError(
            f"a latency ratio of {ratio:g} cannot be reached: with as little kept as the scope and the floor "
            f"allow, {best.measured.ratio:.4f} is measured where {least:.4f} was predicted. Ask for at least "
            f"{ceil(1000 * best.measured.ratio) / 1000:g}, or widen the scope."
        )
