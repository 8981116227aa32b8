"""The size that L0 masks amount to in expectation, as a differentiable function of their probabilities.

Costs arrive as plain numbers, in any additive measure. Xia et al. 2022 (CoFi, arXiv:2204.00408) for the idea,
without the outer products of its released code: masks are independent, so the expectation factorises.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import torch
from torch import Tensor

CountMode = Literal["exact", "weights"]

# Keeps the logarithm of P(unit closed) finite where a unit is certainly open.
_TINY = 1e-30


@dataclass(frozen=True)
class SublayerCost:
    """What one sublayer costs, in any additive measure (parameters, MACs).

    Attributes:
        group: name of the group of its heads or neurons.
        units: how many they are.
        unit_cost: cost of one unit.
        fixed_cost: cost that stays until the whole sublayer is gone, such as an output bias.
        sublayer: group name and index of the mask entry on the whole sublayer, if there is one.
        block: group name and index of the mask entry on the block that holds the sublayer, if there is one.
        unit_per_hidden: part of ``unit_cost`` that goes with each hidden unit that is removed.
        fixed_per_hidden: part of ``fixed_cost`` likewise.
    """

    group: str
    units: int
    unit_cost: float
    fixed_cost: float = 0.0
    sublayer: tuple[str, int] | None = None
    block: tuple[str, int] | None = None
    unit_per_hidden: float = 0.0
    fixed_per_hidden: float = 0.0

    @property
    def total(self) -> float:
        """Cost of the sublayer with nothing removed."""
        return self.unit_cost * self.units + self.fixed_cost

    def counted(self, count: CountMode, hidden: int | None) -> tuple[float, float, float, float]:
        """How the expectation counts this sublayer.

        Args:
            count: see ``ExpectedSize``.
            hidden: size of the hidden group, if it is masked.

        Returns:
            Cost of a unit and of the rest without any hidden unit, then what each hidden unit that is kept
            adds to them.
        """
        unit, fixed, per_unit, per_fixed = (
            self.unit_cost,
            self.fixed_cost,
            self.unit_per_hidden,
            self.fixed_per_hidden,
        )
        if count == "weights":
            unit, fixed, per_fixed = self.total / self.units, 0.0, 0.0
            per_unit = unit / hidden if hidden else 0.0
        if hidden is None:
            return unit, fixed, 0.0, 0.0
        return unit - hidden * per_unit, fixed - hidden * per_fixed, per_unit, per_fixed


class ExpectedSize:
    """Expected cost that is left when masks are sampled, as a differentiable function of P(open).

    Masks are independent, so with p the units' probabilities and ``K = sum(p_hidden)`` the expectation of a
    sublayer is ``p_block p_sublayer (unit(K) sum(p) + fixed(K) (1 - prod(1 - p)))``, where ``unit(K)`` and
    ``fixed(K)`` are the costs with K of D hidden units left; both are straight lines in K.

    Args:
        sublayers: everything that counts; groups without a probability are taken as fully open.
        count: ``exact`` as above; ``weights`` spreads the fixed cost evenly over the units and takes all of
            it as proportional to K, as the released code of CoFi and NASH does (but without rounding each
            unit down to whole parameters).
        device: where the probabilities will live.
        hidden: name and size D of the group of hidden units, if it is masked.
    """

    def __init__(
        self,
        sublayers: Sequence[SublayerCost],
        *,
        count: CountMode = "exact",
        device: torch.device | str = "cpu",
        hidden: tuple[str, int] | None = None,
    ) -> None:
        self.total = sum(sublayer.total for sublayer in sublayers)
        self.hidden = hidden
        # All mask entries on whole sublayers and blocks in one vector, after a 1 for those without.
        entries = [entry for s in sublayers for entry in (s.sublayer, s.block) if entry is not None]
        self._gates = {name: max(i for n, i in entries if n == name) + 1 for name, _ in entries}
        starts, start = {}, 1
        for name, size in self._gates.items():
            starts[name] = start
            start += size
        # Sublayers of equal width are rows of one matrix: a whole stack then costs a handful of operations.
        by_width = groupby(sorted(sublayers, key=lambda s: s.units), key=lambda s: s.units)
        self._tables = [
            _CostTable(list(rows), count, device, hidden and hidden[1], starts) for _, rows in by_width
        ]
        self._open = torch.ones(1, device=device)

    def kept(self, probabilities: Mapping[str, Tensor]) -> Tensor:
        """Expected cost that is kept.

        Args:
            probabilities: P(open) per group name, ``[N]`` each, as ``L0Masks.probabilities`` gives them.

        Returns:
            Scalar between 0 and ``total``, in the unit of the costs.
        """
        gates = None
        if self._gates:
            found = [
                probabilities[name][:size] if name in probabilities else self._open.expand(size)
                for name, size in self._gates.items()
            ]
            gates = torch.cat([self._open, *found])
        left = None
        if self.hidden is not None:
            name, size = self.hidden
            left = probabilities[name].sum() if name in probabilities else self._open.sum() * size
        return torch.stack([table.kept(probabilities, gates, left) for table in self._tables]).sum()

    def sparsity(self, probabilities: Mapping[str, Tensor]) -> Tensor:
        """Expected removed share, ``1 - kept / total``; a scalar in [0, 1]."""
        return 1 - self.kept(probabilities) / self.total


class _CostTable:
    """The sublayers of one width, as the rows of a matrix."""

    def __init__(
        self,
        rows: list[SublayerCost],
        count: CountMode,
        device: torch.device | str,
        hidden: int | None,
        starts: Mapping[str, int],
    ) -> None:
        self.groups = [row.group for row in rows]
        columns = zip(*(row.counted(count, hidden) for row in rows), strict=True)
        self.unit, self.fixed, self.per_unit, self.per_fixed = (
            torch.tensor(column, dtype=torch.float32, device=device) for column in columns
        )  # [S] each
        self.has_fixed = bool(self.fixed.any() or self.per_fixed.any())
        self.open_units = torch.ones(rows[0].units, device=device)  # [N]
        self.gates = []
        for entries in ([row.sublayer for row in rows], [row.block for row in rows]):
            if any(entries):
                places = [0 if entry is None else starts[entry[0]] + entry[1] for entry in entries]
                self.gates.append(torch.tensor(places, device=device))  # [S]

    def kept(self, probabilities: Mapping[str, Tensor], gates: Tensor | None, left: Tensor | None) -> Tensor:
        p = torch.stack([probabilities.get(group, self.open_units) for group in self.groups])  # [S, N]
        unit = self.unit if left is None else self.unit + left * self.per_unit
        inside = unit * p.sum(-1)  # [S]
        if self.has_fixed:
            fixed = self.fixed if left is None else self.fixed + left * self.per_fixed
            log_all_closed = (1 - p).clamp_min(_TINY).log().sum(-1)  # [S]
            inside = inside - fixed * torch.expm1(log_all_closed)
        if gates is not None:
            for places in self.gates:
                inside = inside * gates[places]
        return inside.sum()
