"""From scores to kept units, within a budget."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from prunekit.adapters.base import Structure
from prunekit.errors import BudgetError
from prunekit.pruning.cost import SublayerCost

if TYPE_CHECKING:
    from torch import Tensor


def keep_by_score(
    scores: Mapping[str, Tensor],
    costs: Mapping[str, SublayerCost],
    structure: Structure,
    sparsity: float,
) -> dict[str, tuple[int, ...]]:
    """Remove the lowest-scored units until the wanted share is gone, to within the cheapest unit.

    Units are taken in ascending order of score; one that would remove more than is still wanted is passed
    over, so that a head cannot overshoot where neurons would fit. The cheapest of the rest closes the gap:
    the result removes at least ``sparsity`` and less than one cheapest unit more. Ties go by group and index.

    Args:
        scores: for each unit group, ``[N]``, higher is kept; groups not named stay whole.
        costs: of every sublayer in scope, scored or not; ``sparsity`` is a share of their prunable total.
        structure: the model's.
        sparsity: share to remove, in [0, 1).

    Returns:
        For each scored group the sorted indices that stay.

    Raises:
        BudgetError: if all scored units together are not enough, with the largest share that can be removed;
            if a scored group is outside ``costs``, or a score is not a number.
    """
    group_cost = {structure.sublayers[name].units.name: cost for name, cost in costs.items()}
    for name, vector in scores.items():
        if name not in group_cost:
            raise BudgetError(f"{name} was scored but is outside the budget's scope; score what is in it.")
        if vector.isnan().any():
            raise BudgetError(f"{name} has scores that are not numbers (NaN); look for NaN in the model.")
    left = {name: len(vector) for name, vector in scores.items()}

    def price(name: str) -> float:
        # The last unit takes what the sublayer holds beside its units along.
        cost = group_cost[name]
        return cost.unit + (cost.fixed if left[name] == 1 else 0)

    total = sum(cost.prunable for cost in costs.values())
    wanted = sparsity * total
    rounding = 1e-9 * total  # a share such as 0.55 of 100 comes out a hair above 55
    units = sorted(
        (float(score), name, index)
        for name, vector in scores.items()
        for index, score in enumerate(vector.tolist())
    )
    reachable = sum(group_cost[name].prunable for name in scores)
    if wanted > reachable + rounding:
        raise BudgetError(
            f"a sparsity of {sparsity:g} cannot be reached: removing every scored unit gives "
            f"{reachable / total:.4f}. Ask for at most {int(reachable / total * 1e4) / 1e4:g}, or widen the "
            "scope."
        )
    removed: set[tuple[str, int]] = set()
    gone = 0.0
    rest = []
    for _, name, index in units:
        if gone + price(name) <= wanted + rounding:
            removed.add((name, index))
            gone += price(name)
            left[name] -= 1
        else:
            rest.append((name, index))
    if gone < wanted - rounding:
        cheapest = min(rest, key=lambda unit: price(unit[0]))
        removed.add(cheapest)
    return {
        name: tuple(i for i in range(len(vector)) if (name, i) not in removed)
        for name, vector in scores.items()
    }
