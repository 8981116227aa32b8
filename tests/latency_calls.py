"""Structures, tables and stopwatches made up for tests of latency budgets."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from prunekit.pruning.cost import kept_units
from prunekit.pruning.plan import PruningPlan
from prunekit.pruning.stopwatch import LatencyTable, Measured
from prunekit.pruning.units import UnitGroup


class Layout:
    """A structure of stacks, each ``{role: (units, width)}`` in as many blocks as given."""

    def __init__(self, **stacks):
        self.stacks, self.sublayers = {}, {}
        for name, (depth, roles) in stacks.items():
            self.stacks[name] = SimpleNamespace(name=name, depth=depth, roles=tuple(roles))
            for block in range(depth):
                for role, (size, width) in roles.items():
                    sub = f"{name}.{block}.{role}"
                    units = UnitGroup(f"{sub}.units", "neuron" if width == 1 else "head", size, width)
                    self.sublayers[sub] = SimpleNamespace(
                        name=sub, stack=name, block=block, role=role, units=units
                    )

    def dead(self, keep):
        return {name for name, sub in self.sublayers.items() if keep.get(sub.units.name, (0,)) == ()}


def linear_table(structure, per_unit, *, rest=0.0, block_ms=0.0):
    """Times that are so many ms a unit, by role."""
    sublayers = {
        name: {0: 0.0, sub.units.size: per_unit[sub.role] * sub.units.size}
        for name, sub in structure.sublayers.items()
    }
    blocks = dict.fromkeys(structure.stacks, block_ms)
    total = rest + sum(max(points.values()) for points in sublayers.values())
    total += sum(block_ms * stack.depth for stack in structure.stacks.values())
    return LatencyTable(sublayers, blocks, total)


def random_scores(structure, seed, scope=None):
    generator = torch.Generator().manual_seed(seed)
    return {
        sub.units.name: torch.rand(sub.units.size, generator=generator, dtype=torch.float64)
        for name, sub in structure.sublayers.items()
        if scope is None or name in scope
    }


def table_of(target, *, rest=0.0, block_ms=0.0):
    """A linear table of a real model's sublayers: 3 ms a head, 1 ms a neuron."""
    per_unit = {"self_attn": 3.0, "cross_attn": 3.0, "ffn": 1.0}
    return linear_table(target.structure, per_unit, rest=rest, block_ms=block_ms)


class FakeStopwatch:
    """Says what a table says, and measures what ``truth`` makes of it.

    Args:
        table: of times.
        structure: of the model.
        truth: from the predicted ratio to the measured one; the same by default.
    """

    def __init__(self, table, structure, truth=lambda ratio: ratio):
        self._table, self.structure, self.truth = table, structure, truth
        self.plans = []

    def table(self):
        return self._table

    def ratio(self, plan: PruningPlan):
        self.plans.append(plan)
        left = kept_units(self.structure, plan.keep)
        ratio = self.truth(self._table.predict(left) / self._table.total_ms)
        return Measured(ratio, ratio - 0.01, ratio + 0.01)
