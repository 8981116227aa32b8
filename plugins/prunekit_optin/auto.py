"""Where an estimate is too rough to decide: the units near the cut, scored again exactly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from prunekit.pruning.cost import SublayerCost
from prunekit.scoring.oneshot import allocated
from prunekit.scoring.scores import Scores

if TYPE_CHECKING:
    from prunekit.recipe import BudgetSpec
    from prunekit_optin.scorer import Scorer

REACH = 2.0
"""Standard errors from the cut within which a unit is scored again."""
MOST = 0.02
"""Share of the units of one cost that are scored again at most, the most doubtful first."""


def refined(
    scorer: Scorer, scores: Scores, costs: Mapping[str, SublayerCost], budget: BudgetSpec, floor: int
) -> tuple[dict[str, Tensor], Scores]:
    """Values for one budget, exact near its cut; and the scores with what was newly found to be kept.

    Which units are near the cut depends on the estimates alone, and exact scores of other units are not used:
    the values are the same whatever budgets came before. Only what those have not scored exactly is run.

    Raises:
        BudgetError: if the budget cannot be met.
    """
    doubtful = near_cut(scorer, scores, costs, budget, floor)
    exact = {
        name: scores.exact.get(name, torch.full_like(scores.values[name], torch.nan)).clone()
        for name in doubtful
    }
    new = {name: units[exact[name][units].isnan()] for name, units in doubtful.items()}
    for name, found in scorer.exact({name: units.tolist() for name, units in new.items()}).items():
        exact[name][new[name]] = found
    values = dict(scores.values)
    for name, units in doubtful.items():
        values[name] = values[name].index_copy(0, units, exact[name][units])
    return values, replace(scores, exact={**scores.exact, **exact})


def near_cut(
    scorer: Scorer, scores: Scores, costs: Mapping[str, SublayerCost], budget: BudgetSpec, floor: int
) -> dict[str, Tensor]:
    """Units whose estimate lies within ``REACH`` standard errors of the cut, by group, as sorted indices.

    Units of one cost share a cut: half way between the best that goes and the worst that stays. Under a
    latency budget every group has its own, since what a unit takes depends on how many others its group
    keeps; there the cut is that of the first plan, before what is measured corrects it.
    """
    structure = scorer.target.structure
    keep = allocated(scorer.target, scores.values, costs, budget, floor)
    classes: dict[float | str, list[str]] = {}
    for name, cost in costs.items():
        shared = name if budget.metric == "latency" else cost.unit
        classes.setdefault(shared, []).append(structure.sublayers[name].units.name)
    found: dict[str, Tensor] = {}
    for groups in classes.values():
        estimated = [name for name in groups if name in scores.errors]
        if not estimated:
            continue
        sizes = [len(scores.values[name]) for name in estimated]
        stays = torch.cat([_kept(keep[name], size) for name, size in zip(estimated, sizes, strict=True)])
        values = torch.cat([scores.values[name] for name in estimated])
        if stays.all() or not stays.any():
            continue
        cut = (values[~stays].max() + values[stays].min()) / 2
        away = (values - cut).abs() / torch.cat([scores.errors[name] for name in estimated])
        # An error of 0 makes it infinite; on the cut itself NaN.
        away = away.nan_to_num(nan=torch.inf)
        most = max(1, int(MOST * len(away)))
        chosen = (away <= REACH) & (away <= away.sort().values[most - 1])
        for name, part in zip(estimated, torch.split(chosen, sizes), strict=True):
            if part.any():
                found[name] = part.nonzero().flatten()
    return found


def _kept(indices: tuple[int, ...], size: int) -> Tensor:
    mask = torch.zeros(size, dtype=torch.bool)
    mask[list(indices)] = True
    return mask
