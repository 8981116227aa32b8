"""Where an estimate is too rough to decide: the units near the cut, scored again exactly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from prunekit.pruning.allocate import allocate
from prunekit.pruning.cost import SublayerCost
from prunekit.scoring.scores import Scores

if TYPE_CHECKING:
    from prunekit_optin.scorer import Scorer

REACH = 2.0
"""Standard errors from the cut within which a unit is scored again."""
MOST = 0.1
"""Share of the units of one cost that are scored again at most, the most doubtful first."""


def refined(
    scorer: Scorer, scores: Scores, costs: Mapping[str, SublayerCost], sparsity: float, floor: int
) -> Scores:
    """The scores with those near a budget's cut made exact; their standard error is then 0.

    What an earlier budget made exact stays, so that only what is new near this cut is run.

    Raises:
        BudgetError: if the budget cannot be met.
    """
    doubtful = near_cut(scorer, scores, costs, sparsity, floor)
    if not doubtful:
        return scores
    exact = scorer.exact({name: indices.tolist() for name, indices in doubtful.items()})
    values = {name: value.clone() for name, value in scores.values.items()}
    errors = {name: error.clone() for name, error in scores.errors.items()}
    for name, found in exact.items():
        values[name][doubtful[name]] = found
        errors[name][doubtful[name]] = 0.0
    return Scores(values, errors, scores.gradients)


def near_cut(
    scorer: Scorer, scores: Scores, costs: Mapping[str, SublayerCost], sparsity: float, floor: int
) -> dict[str, Tensor]:
    """Units whose estimate lies within ``REACH`` standard errors of the cut, by group, as sorted indices.

    Units of one cost share a cut: half way between the best that goes and the worst that stays.
    """
    structure = scorer.target.structure
    keep = allocate(scores.values, costs, structure, sparsity, floor=floor)
    classes: dict[float, list[str]] = {}
    for name, cost in costs.items():
        classes.setdefault(cost.unit, []).append(structure.sublayers[name].units.name)
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
        # An exact score is infinitely many of its standard errors, which are 0, away; on the cut it is NaN.
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
