"""Costs, structures and scores made up for tests of the budget."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from hypothesis import settings
from hypothesis import strategies as st

from prunekit.pruning.cost import SublayerCost
from prunekit.pruning.units import UnitGroup

quick = settings(max_examples=60, deadline=None, derandomize=True, database=None)
prices = (1.0, 2.5, 7.0, 11.0)


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


def objective(keep, wanted):
    """Sum of the kept scores, those below zero counting as zero."""
    return sum(float(wanted[name][list(kept)].clamp(min=0).sum()) for name, kept in keep.items())


@st.composite
def problems(draw, classes, most):
    """Costs of sublayers in ``classes`` classes, at most ``most`` units in all, and their scores."""
    groups = [*range(classes), *draw(st.lists(st.integers(0, classes - 1), max_size=3))]
    sizes = [draw(st.integers(1, max(1, most // len(groups)))) for _ in groups]
    fixed = draw(st.sampled_from([0.0, 0.5]))
    costs, structure = layout(
        **{f"s{i}": (prices[c], size, fixed) for i, (c, size) in enumerate(zip(groups, sizes, strict=True))}
    )
    # Few different values, so that there are ties and zeros, some below zero.
    values = st.sampled_from([-1.0, 0.0, 0.1, 1.0, 2.0, 2.5, 3.7, 11.0])
    wanted = {
        f"{name}.units": torch.tensor(draw(st.lists(values, min_size=c.units, max_size=c.units))).double()
        for name, c in costs.items()
    }
    return costs, structure, wanted
