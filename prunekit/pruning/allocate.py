"""The most valuable units that a budget pays for: from scores and costs to kept indices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from prunekit.adapters.base import Structure
from prunekit.errors import BudgetError
from prunekit.pruning.cost import SublayerCost
from prunekit.pruning.rounding import bundle_size, rounded_up
from prunekit.pruning.units import UnitGroup

if TYPE_CHECKING:
    from torch import Tensor

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

ROUNDING = 1e-9
"""Share of the total cost by which float arithmetic may exceed a budget."""

_EXACTNESS = 1e-12  # of the objective: two sums closer than this are the same to float arithmetic
_MAX_PARTIALS = 1_000_000


def allocate(
    scores: Mapping[str, Tensor],
    costs: Mapping[str, SublayerCost],
    structure: Structure,
    sparsity: float,
    *,
    floor: int = 0,
    round_to: int | None = None,
) -> dict[str, tuple[int, ...]]:
    """Keep the units with the largest total score whose cost stays within the budget.

    The budget is ``(1 - sparsity)`` of the total prunable cost in scope; units in scope without scores stay
    and are paid for first. Units of equal cost form a class, whose best units are kept; how many of each
    class is found exactly (for two classes by the sweep over "how many heads" of Kwon et al. 2022,
    arXiv:2204.09656, with none allowed and what exceeds the budget skipped; see ``_best_counts``).

    A score is an importance: one below zero counts as zero in the sum. Units without value are kept, best
    first, where they still fit, so that less is left over than any removed unit costs. What goes only with a
    whole sublayer (``SublayerCost.fixed``) is paid for every sublayer, also for one that ends up empty: the
    result then costs a little less than was counted, and never more. Ties go to the group that comes first
    by name, then to the lower index.

    Under ``round_to``, "unit" above reads "bundle": a group's units, best first, in bundles as wide as that.
    No unit of a bundle is worth less than one of a later bundle of its group. So the best bundles of a class
    are always the first ones of its groups, any number of them can be kept, and the counts are found exactly
    as before. Only what is left of a group whose units do not divide into bundles is no bundle: it stays if
    all the others of its group do and it still fits, the most valuable first. That alone is a rule and no
    optimum.

    Args:
        scores: for each unit group, ``[N]``, higher is kept; groups not named stay whole.
        costs: of every sublayer in scope, scored or not; ``sparsity`` is a share of their prunable total.
        structure: the model's.
        sparsity: share to remove, in [0, 1).
        floor: units that every scored group keeps at least, its best ones; all of a smaller group. Rounded
            up to bundles.
        round_to: kept units times their width are a multiple of this, unless all or none are kept.

    Returns:
        For each scored group the sorted indices that stay. Their cost exceeds the budget by no more than
        ``ROUNDING`` of the total.

    Raises:
        BudgetError: if a scored group is outside ``costs``, a score is not finite, or what must stay costs
            more than the budget, with the largest sparsity there is.
    """
    group_cost = {structure.sublayers[name].units.name: cost for name, cost in costs.items()}
    units = {structure.sublayers[name].units.name: structure.sublayers[name].units for name in costs}
    for name, vector in scores.items():
        if name not in group_cost:
            raise BudgetError(f"{name} was scored but is outside the budget's scope; score what is in it.")
        if not vector.isfinite().all():
            raise BudgetError(f"{name} has scores that are not finite numbers; look for NaN in the model.")
    ranked = [
        _Ranked.of(units[name], scores[name], group_cost[name], floor, round_to) for name in sorted(scores)
    ]
    room = _room(ranked, group_cost, sparsity, floor)
    if not scores:
        return {}
    kept = _kept_units(ranked, room)
    return {
        group.name: tuple(np.sort(group.order[:count]).tolist())
        for group, count in zip(ranked, kept, strict=True)
    }


class _Ranked(NamedTuple):
    """A scored group, its units best first."""

    name: str
    order: Integers  # its units; ties by index
    score: Floats  # theirs
    cost: SublayerCost
    bundle: int  # units that are kept or go together
    held: int  # units that must stay

    @classmethod
    def of(
        cls, units: UnitGroup, vector: Tensor, cost: SublayerCost, floor: int, round_to: int | None
    ) -> _Ranked:
        score = vector.detach().cpu().double().numpy()
        order = np.argsort(-score, kind="stable")
        bundle = bundle_size(units, round_to)
        return cls(units.name, order, score[order], cost, bundle, rounded_up(floor, units, bundle))

    @property
    def divided(self) -> int:
        """Units that make up bundles."""
        return len(self.order) // self.bundle * self.bundle

    def sums(self, score: Floats) -> Floats:
        """Sum of each bundle."""
        total: Floats = score[: self.divided].reshape(-1, self.bundle).sum(1)
        return total


def _kept_units(ranked: Sequence[_Ranked], room: float) -> list[int]:
    """How many units of each group to keep, those that are held included.

    Args:
        ranked: the groups, by name.
        room: what may be spent on units that are not held.
    """
    pool = _Pool.of(ranked)
    best = pool.is_held.copy()
    classes = np.unique(pool.cost)
    queues = [np.flatnonzero(~pool.is_held & (pool.cost == cost)) for cost in classes]
    values = [pool.value[queue] for queue in queues]
    counts = _filled(queues, classes, room, _best_counts(values, classes, room))
    for queue, count in zip(queues, counts, strict=True):
        best[queue[:count]] = True
    bundles = np.bincount(pool.group[best], minlength=len(ranked))
    kept = [max(group.held, int(n) * group.bundle) for group, n in zip(ranked, bundles, strict=True)]
    left = room - float(np.dot(counts, classes))
    remainders = [i for i, group in enumerate(ranked) if kept[i] == group.divided < len(group.order)]
    for i in sorted(remainders, key=lambda i: -float(ranked[i].score[kept[i] :].clip(0).sum())):
        price = ranked[i].cost.unit * (len(ranked[i].order) - kept[i])
        if price <= left:
            kept[i] = len(ranked[i].order)
            left -= price
    return kept


class _Pool(NamedTuple):
    """The bundles of all scored groups, best first; ties by group and rank in the group."""

    value: Floats  # sum of the scores above zero
    group: Integers  # number of the group
    cost: Floats
    is_held: NDArray[np.bool_]

    @classmethod
    def of(cls, ranked: Sequence[_Ranked]) -> _Pool:
        raw = np.concatenate([group.sums(group.score) for group in ranked])
        value = np.concatenate([group.sums(group.score.clip(0)) for group in ranked])
        sizes = [group.divided // group.bundle for group in ranked]
        number = np.repeat(np.arange(len(ranked)), sizes)
        cost = np.repeat([float(group.cost.unit) * group.bundle for group in ranked], sizes)
        is_held = np.concatenate([np.arange(g.divided)[:: g.bundle] < g.held for g in ranked])
        order = np.lexsort((-raw, -value))  # which leaves ties by group and rank
        return cls(value[order], number[order], cost[order], is_held[order])


def _room(
    ranked: Sequence[_Ranked], group_cost: Mapping[str, SublayerCost], sparsity: float, floor: int
) -> float:
    """What is left to spend once all that must stay is paid for."""
    scored = {group.name for group in ranked}
    total = sum(cost.prunable for cost in group_cost.values())
    unscored = sum(cost.prunable for name, cost in group_cost.items() if name not in scored)
    least = unscored + sum(group.cost.kept(group.held) for group in ranked)
    budget = (1 - sparsity) * total + ROUNDING * total
    if least > budget:
        without = f"{len(group_cost) - len(ranked)} of {len(group_cost)} groups in scope have no scores"
        reasons = [without] if unscored else []
        rounded = (
            "" if all(group.held == min(floor, len(group.order)) for group in ranked) else ", rounded up"
        )
        reasons += [f"each group keeps at least {floor} units{rounded}"] if floor else []
        raise BudgetError(
            f"a sparsity of {sparsity:g} cannot be reached: {least / total:.4f} of the cost in scope must "
            f"stay, because {' and '.join(reasons)}. Ask for at most "
            f"{int((1 - least / total) * 1e4) / 1e4:g}."
        )
    charged = sum(group.cost.fixed + group.cost.unit * group.held for group in ranked)
    return budget - unscored - charged


def _best_counts(values: Sequence[Floats], costs: Floats, room: float) -> list[int]:
    """How many units of each class to keep, for the largest sum of values.

    The linear relaxation buys the densest units (value per cost) until the room is spent; the density at
    which it stops is the price. A class that keeps ``n`` units forgoes ``loss[n]`` against keeping all that
    are worth the price, and any choice falls short of the relaxation by its losses plus the price of what it
    leaves over. So all choices that fall short by no more than a gap can be listed, class by class; the gap
    is widened until the best choice listed falls short by no more than the gap, which makes it the best.

    Args:
        values: for each class, descending and not negative.
        costs: of one unit of each class, ascending.
        room: what may be spent.
    """
    # Worthless units cannot add to the sum, and long rows of them would only be listed.
    curves = [np.concatenate([[0.0], np.cumsum(value[value > 0])]) for value in values]
    sizes = [len(curve) - 1 for curve in curves]
    if np.dot(sizes, costs) <= room:
        return sizes
    if room < 0:
        return [0] * len(sizes)
    density = np.concatenate([value[value > 0] / cost for value, cost in zip(values, costs, strict=True)])
    order = np.argsort(-density, kind="stable")
    owner = np.repeat(np.arange(len(costs)), sizes)[order]
    bought = min(int(np.searchsorted(np.cumsum(costs[owner]), room, side="right")), len(order) - 1)
    price = float(density[order[bought]])
    relaxed = np.bincount(owner[:bought], minlength=len(costs))
    worth = [curve - price * cost * np.arange(len(curve)) for curve, cost in zip(curves, costs, strict=True)]
    losses = [value.max() - value for value in worth]
    slack = _EXACTNESS * (price * room + sum(float(value.max()) for value in worth))
    gap = price * float(costs[0]) / 1024
    while True:
        counts, short, is_whole = _best_listed(losses, costs, room, price, gap + slack, relaxed)
        if short <= gap + slack or not is_whole:
            return counts
        gap = min(8 * gap, short)


def _best_listed(
    losses: Sequence[Floats], costs: Floats, room: float, price: float, gap: float, relaxed: Integers
) -> tuple[list[int], float, bool]:
    """The best of the choices whose losses are at most ``gap``.

    Args:
        losses: for each class, by the number of units kept.
        costs: of one unit of each class.
        room: what may be spent.
        price: of what is left over, per cost.
        gap: most that a choice may lose.
        relaxed: counts of the relaxation, rounded down; never left out unless something better is in.

    Returns:
        The counts, by how much they fall short of the relaxation, and whether every choice was listed. Not
        all are where more than a million partial choices lose next to nothing (three classes or more whose
        scores are proportional to cost); what is returned then falls short by less than one unit's value.
    """
    windows = [np.flatnonzero(loss <= gap) for loss in losses]
    *others, last = sorted(range(len(losses)), key=lambda c: len(windows[c]))
    counts = np.zeros((1, len(losses)), dtype=np.int64)
    cost, loss, is_whole = np.zeros(1), np.zeros(1), True
    aim = 0.0
    for c in others:
        window = windows[c]
        most = max(1, _MAX_PARTIALS // len(window))
        is_whole &= len(loss) <= most
        both_loss = (loss[:most, None] + losses[c][window]).ravel()
        both_cost = (cost[:most, None] + costs[c] * window).ravel()
        chosen = np.flatnonzero((both_loss <= gap) & (both_cost <= room))
        chosen = chosen[_undominated(both_cost[chosen], price * both_cost[chosen] - both_loss[chosen])]
        # If not all can be carried on, those next to the relaxation are, and first the one that is no
        # costlier: it is worth at least as much, so that it can be completed at least as well.
        aim += float(costs[c] * relaxed[c])
        nearest = np.searchsorted(both_cost[chosen], aim, side="right") - 1
        chosen = chosen[np.argsort(np.abs(np.arange(len(chosen)) - nearest), kind="stable")]
        counts = counts[chosen // len(window)]
        counts[:, c] = window[chosen % len(window)]
        cost, loss = both_cost[chosen], both_loss[chosen]
    fit = np.minimum((room - cost) // costs[last], len(losses[last]) - 1).astype(np.int64)
    short = loss + losses[last][fit] + price * (room - cost - costs[last] * fit)
    best = int(np.argmin(short))
    counts[best, last] = fit[best]
    return counts[best].tolist(), float(short[best]), is_whole


def _undominated(cost: Floats, value: Floats) -> Integers:
    """Positions of the pairs that no cheaper pair matches in value, by ascending cost."""
    order = np.lexsort((-value, cost))
    reached = np.maximum.accumulate(value[order])
    first = np.concatenate([[True], reached[1:] > reached[:-1]])
    kept: Integers = order[first]
    return kept


def _filled(queues: Sequence[Integers], costs: Floats, room: float, counts: Sequence[int]) -> list[int]:
    """The counts, raised by the best units that what is left over still pays for.

    Args:
        queues: for each class, positions of its units in the pool: the lower, the better.
        costs: of one unit of each class.
        room: what may be spent.
        counts: how many of each queue are kept so far.
    """
    counts = list(counts)
    left = room - float(np.dot(counts, costs))
    while True:
        open_classes = [c for c in range(len(counts)) if counts[c] < len(queues[c]) and costs[c] <= left]
        if not open_classes:
            return counts
        best = min(open_classes, key=lambda c: int(queues[c][counts[c]]))
        counts[best] += 1
        left -= float(costs[best])
