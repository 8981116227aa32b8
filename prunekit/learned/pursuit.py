"""The sparsity constraint alone, simulated: how far masks get in a number of steps.

Without a task loss, logits of one kind that start equal stay equal, so a goal collapses to a few numbers (the
encoder's heads, the decoder's neurons, hidden units, ...). This follows them through the very arithmetic of
training, in plain floats: the expected size and its gradient, Adam on the logits, Adam upwards on the two
multipliers, the clamp, the rising target. In training the task loss opposes the constraint, so what does not
get there here will not get there at all; what does may still need longer.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from prunekit.adapters.base import Structure
from prunekit.learned.config import LearnedMasksConfig
from prunekit.learned.goal import Goal
from prunekit.pruning.units import HIDDEN, Kind
from prunekit.training import l0
from prunekit.training.expected_size import SublayerCost

# torch's AdamW.
_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-8


@dataclass(frozen=True)
class _Alike:
    """Sublayers of equal cost under equal masks; the last three are places in the list of logits.

    Args:
        number: how many there are.
        in_block: how many there are in each block, where blocks are masked.
        units: heads or neurons in each.
        unit: cost of one without any hidden unit.
        fixed: cost that goes with the last unit, likewise.
        per_unit: what a hidden unit adds to ``unit``.
        per_fixed: what it adds to ``fixed``.
        inner: the logit of its units, if they are masked.
        gate: the logit of the whole sublayer, likewise.
        block: the logit of its block, likewise.
    """

    number: int
    in_block: int
    units: int
    unit: float
    fixed: float
    per_unit: float
    per_fixed: float
    inner: int | None
    gate: int | None
    block: int | None


class Pursuit:
    """One goal, collapsed to one logit for each kind of mask.

    Args:
        goal: the goal.
        structure: the model's.
        config: how the size is counted, where masks start, how the target rises.
    """

    def __init__(self, goal: Goal, structure: Structure, config: LearnedMasksConfig) -> None:
        self.goal, self.config = goal, config
        self.starts: list[float] = []
        self.total = goal.total
        self.width = structure.groups[HIDDEN].size if HIDDEN in goal.masks else None
        self.hidden = self._logit("hidden") if self.width else None
        self.alike = self._collapse(goal.priced(structure), structure)

    def _logit(self, kind: Kind) -> int:
        self.starts.append(l0.initial_mean(kind, self.config.droprate_init))
        return len(self.starts) - 1

    def _collapse(self, rows: list[SublayerCost], structure: Structure) -> list[_Alike]:
        def cost(row: SublayerCost) -> tuple[Any, ...]:
            kind = structure.groups[row.group].kind if row.group in self.goal.masks else ""
            return (kind, row.units, *row.counted(self.config.count, self.width), row.sublayer is not None)

        # Blocks are alike if the sublayers in them are.
        contents: dict[tuple[str, int], list[Any]] = {}
        for row in rows:
            if row.block is not None:
                contents.setdefault(row.block, []).append(cost(row))
        block_of = {entry: tuple(sorted(found)) for entry, found in contents.items()}
        blocks = {found: self._logit("block") for found in dict.fromkeys(block_of.values())}
        number_of_blocks = Counter(block_of.values())
        counts: Counter[tuple[SublayerCost, tuple[Any, ...] | None]] = Counter()
        first: dict[tuple[Any, ...], SublayerCost] = {}
        for row in rows:
            content = None if row.block is None else block_of[row.block]
            counts[first.setdefault((cost(row), content), row), content] += 1
        found = []
        for (row, content), number in counts.items():
            masked = row.group in self.goal.masks
            found.append(
                _Alike(
                    number,
                    1 if content is None else number // number_of_blocks[content],
                    row.units,
                    *row.counted(self.config.count, self.width),
                    inner=self._logit(structure.groups[row.group].kind) if masked else None,
                    gate=self._logit("sublayer") if row.sublayer is not None else None,
                    block=None if content is None else blocks[content],
                )
            )
        return found

    def sparsity(self, logits: list[float]) -> tuple[float, list[float]]:
        """Expected sparsity, and its gradient with respect to one mask of each kind."""
        p = [min(max(1 / (1 + math.exp(l0.CLOSING_LOGIT - x)), l0.EPSILON), 1 - l0.EPSILON) for x in logits]
        slopes = [0.0] * len(logits)
        kept = 0.0
        left = 0.0 if self.width is None or self.hidden is None else self.width * p[self.hidden]
        for a in self.alike:
            inner = 1.0 if a.inner is None else p[a.inner]
            gate = 1.0 if a.gate is None else p[a.gate]
            block = 1.0 if a.block is None else p[a.block]
            rest = (1 - inner) ** (a.units - 1)
            opened, some = a.units * inner, 1 - rest * (1 - inner)
            unit, fixed = a.unit + left * a.per_unit, a.fixed + left * a.per_fixed
            inside = unit * opened + fixed * some
            kept += a.number * block * gate * inside
            if a.inner is not None:
                slopes[a.inner] += block * gate * (unit + fixed * rest)
            if a.gate is not None:
                slopes[a.gate] += block * inside
            if a.block is not None:
                slopes[a.block] += a.in_block * gate * inside
            if self.hidden is not None:
                slopes[self.hidden] += a.number * block * gate * (a.per_unit * opened + a.per_fixed * some)
        gradient = [-slope * q * (1 - q) / self.total for slope, q in zip(slopes, p, strict=True)]
        return 1 - kept / self.total, gradient

    def initial(self) -> float:
        """The sparsity that the masks start with."""
        return self.sparsity(self.starts)[0]

    def limits(self) -> tuple[float, float]:
        """The least and the most sparsity that clamped logits can express."""
        least, most = ([limit] * len(self.starts) for limit in (l0.MAX_LOGIT, l0.MIN_LOGIT))
        return self.sparsity(least)[0], self.sparsity(most)[0]

    def run(self, steps: int, rate: float) -> list[float]:
        """Expected sparsity after 0, 1, ... ``steps`` updates at a mask learning rate of ``rate``."""
        return list(self._follow(steps, rate))

    def _follow(self, steps: int, rate: float) -> Iterator[float]:
        target, warmup = self.goal.sparsity, int(self.config.sparsity_warmup * steps)
        start = min(self.initial(), target) if self.config.start_from_current else 0.0
        logits = list(self.starts)
        multipliers = [0.0, self.config.initial_lambda_2]
        means, squares = [0.0] * (len(logits) + 2), [0.0] * (len(logits) + 2)
        power_1 = power_2 = 1.0
        for step in range(steps):
            sparsity, gradient = self.sparsity(logits)
            yield sparsity
            goal = target if step >= warmup else start + (target - start) * step / warmup
            gap = sparsity - goal
            pull = multipliers[0] + 2 * multipliers[1] * gap
            power_1, power_2 = power_1 * _BETA_1, power_2 * _BETA_2
            size, root = rate / (1 - power_1), math.sqrt(1 - power_2)
            for i, slope in enumerate((*(pull * g for g in gradient), -gap, -gap * gap)):
                means[i] += (1 - _BETA_1) * (slope - means[i])
                squares[i] = _BETA_2 * squares[i] + (1 - _BETA_2) * slope * slope
                change = size * means[i] / (math.sqrt(squares[i]) / root + _EPSILON)
                if i < len(logits):
                    logits[i] = min(max(logits[i] - change, l0.MIN_LOGIT), l0.MAX_LOGIT)
                else:
                    multipliers[i - len(logits)] -= change
        yield self.sparsity(logits)[0]
