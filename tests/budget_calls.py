"""Costs, structures and scores made up for tests of the budget."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from prunekit.pruning.cost import SublayerCost
from prunekit.pruning.units import UnitGroup


def layout(**units):
    """Costs and a structure of sublayers given as ``name=(cost of a unit, units[, fixed])``."""
    costs = {name: SublayerCost(*numbers) for name, numbers in units.items()}
    groups = {
        name: SimpleNamespace(units=UnitGroup(f"{name}.units", "head", c.units)) for name, c in costs.items()
    }
    return costs, SimpleNamespace(sublayers=groups)


def scores(**vectors):
    return {f"{name}.units": torch.tensor(vector, dtype=torch.float64) for name, vector in vectors.items()}


def random_scores(costs, seed, *, draw=torch.rand):
    """Scores of every sublayer's units."""
    generator = torch.Generator().manual_seed(seed)
    return {
        f"{name}.units": draw(c.units, generator=generator, dtype=torch.float64) for name, c in costs.items()
    }


def kept_cost(keep, costs):
    """What is left to pay for, groups that ``keep`` does not name included."""
    return sum(c.kept(len(keep.get(f"{name}.units", range(c.units)))) for name, c in costs.items())


def total_cost(costs):
    return sum(c.prunable for c in costs.values())


def removed_share(keep, costs):
    return 1 - kept_cost(keep, costs) / total_cost(costs)
