"""From scores to kept units, within a budget."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from prunekit.adapters.base import Structure
from prunekit.errors import BudgetError
from prunekit.pruning.cost import SublayerCost
from prunekit.pruning.rounding import bundle_size

if TYPE_CHECKING:
    from torch import Tensor


def keep_by_score(
    scores: Mapping[str, Tensor],
    costs: Mapping[str, SublayerCost],
    structure: Structure,
    sparsity: float,
    *,
    round_to: int | None = None,
) -> dict[str, tuple[int, ...]]:
    """Remove the lowest-scored units until the wanted share is gone, to within the cheapest unit.

    Units are taken in ascending order of score; one that would remove more than is still wanted is passed
    over, so that a head cannot overshoot where neurons would fit. The cheapest of the rest closes the gap:
    the result removes at least ``sparsity`` and less than one cheapest unit more. Ties go by group and index.

    Under ``round_to``, "unit" above reads "bundle": a group's units go in bundles as wide as that, the
    lowest-scored first, in the order of the bundles' mean scores. Where the units of a group do not divide
    into bundles, the first to go is the smaller one that is left over.

    Args:
        scores: for each unit group, ``[N]``, higher is kept; groups not named stay whole.
        costs: of every sublayer in scope, scored or not; ``sparsity`` is a share of their prunable total.
        structure: the model's.
        sparsity: share to remove, in [0, 1).
        round_to: kept units times their width are a multiple of this, unless all or none are kept.

    Returns:
        For each scored group the sorted indices that stay.

    Raises:
        BudgetError: if all scored units together are not enough, with the largest share that can be removed;
            if a scored group is outside ``costs``, or a score is not a number.
    """
    group_cost = {structure.sublayers[name].units.name: cost for name, cost in costs.items()}
    units = {structure.sublayers[name].units.name: structure.sublayers[name].units for name in costs}
    for name, vector in scores.items():
        if name not in group_cost:
            raise BudgetError(f"{name} was scored but is outside the budget's scope; score what is in it.")
        if vector.isnan().any():
            raise BudgetError(f"{name} has scores that are not numbers (NaN); look for NaN in the model.")
    left = {name: len(vector) for name, vector in scores.items()}

    def price(name: str, units: int) -> float:
        # The last units take what the sublayer holds beside its units along.
        cost = group_cost[name]
        return cost.unit * units + (cost.fixed if left[name] == units else 0)

    total = sum(cost.prunable for cost in costs.values())
    wanted = sparsity * total
    rounding = 1e-9 * total  # a share such as 0.55 of 100 comes out a hair above 55
    bundles = sorted(
        bundle
        for name, vector in scores.items()
        for bundle in _bundles(name, vector, bundle_size(units[name], round_to))
    )
    reachable = sum(group_cost[name].prunable for name in scores)
    if wanted > reachable + rounding:
        raise BudgetError(
            f"a sparsity of {sparsity:g} cannot be reached: removing every scored unit gives "
            f"{reachable / total:.4f}. Ask for at most {int(reachable / total * 1e4) / 1e4:g}, or widen the "
            "scope."
        )
    removed: dict[str, set[int]] = {name: set() for name in scores}
    gone = 0.0
    rest = []
    for bundle in bundles:
        cost = price(bundle.group, len(bundle.units))
        if gone + cost <= wanted + rounding:
            removed[bundle.group].update(bundle.units)
            gone += cost
            left[bundle.group] -= len(bundle.units)
        else:
            rest.append(bundle)
    if gone < wanted - rounding:
        cheapest = min(rest, key=lambda bundle: price(bundle.group, len(bundle.units)))
        removed[cheapest.group].update(cheapest.units)
    return {
        name: tuple(i for i in range(len(vector)) if i not in removed[name])
        for name, vector in scores.items()
    }


class _Bundle(NamedTuple):
    """Units of one group that go together, ordered as they go."""

    score: float  # their mean
    group: str
    number: int  # in the group, the first to go is 0
    units: tuple[int, ...]


def _bundles(name: str, vector: Tensor, size: int) -> Iterator[_Bundle]:
    values = vector.tolist()
    ascending = sorted(range(len(values)), key=lambda i: (values[i], i))
    starts = [0, *range(len(values) % size or size, len(values), size)]
    for number, (start, end) in enumerate(pairwise([*starts, len(values)])):
        units = tuple(ascending[start:end])
        yield _Bundle(sum(values[i] for i in units) / len(units), name, number, units)
