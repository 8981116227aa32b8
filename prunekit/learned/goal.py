"""What a training of masks is to reach."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from prunekit.adapters.base import Structure
from prunekit.pruning.cost import SublayerCost
from prunekit.pruning.units import HIDDEN, block_group, sublayer_group
from prunekit.training import expected_size


@dataclass(frozen=True)
class Goal:
    """A sparsity to reach, and the masks that are to reach it.

    Args:
        name: what messages and logs call the part of the model, such as ``encoder``, ``decoder``, ``model``.
        costs: the sublayers that count, by name.
        masks: groups that get masks for this goal; none belongs to two goals, and hidden units belong to a
            goal that is alone.
        sparsity: share of the sublayers' prunable cost to remove, in [0, 1).
        round_to: kept units times their width become a multiple of this, unless all or none of a group stay.
    """

    name: str
    costs: Mapping[str, SublayerCost]
    masks: tuple[str, ...]
    sparsity: float
    round_to: int | None = None

    @property
    def total(self) -> float:
        """Prunable cost with nothing removed."""
        return sum(cost.prunable for cost in self.costs.values())

    def priced(self, structure: Structure) -> list[expected_size.SublayerCost]:
        """The sublayers as ``ExpectedSize`` takes them, each with the masks on it and on its block."""
        rows = []
        for name, cost in self.costs.items():
            sub = structure.sublayers[name]
            whole, block = sublayer_group(sub.stack, sub.role), block_group(sub.stack)
            rows.append(
                expected_size.SublayerCost(
                    sub.units.name,
                    cost.units,
                    cost.unit,
                    cost.fixed,
                    sublayer=(whole, sub.block) if whole in self.masks else None,
                    block=(block, sub.block) if block in self.masks else None,
                    unit_per_hidden=cost.unit_per_hidden,
                    fixed_per_hidden=cost.fixed_per_hidden,
                )
            )
        return rows

    def expected_size(
        self, structure: Structure, count: expected_size.CountMode, device: torch.device | str = "cpu"
    ) -> expected_size.ExpectedSize:
        """The goal's expected cost as a function of the masks' probabilities."""
        hidden = (HIDDEN, structure.groups[HIDDEN].size) if HIDDEN in self.masks else None
        return expected_size.ExpectedSize(self.priced(structure), count=count, device=device, hidden=hidden)


def labelled(goals: Sequence[Goal], goal: Goal, figure: str) -> str:
    """A figure's name in the log; the goal's name comes first where there are several."""
    return figure if len(goals) == 1 else f"{goal.name}_{figure}"
