"""What methods know of time: a table of what every sublayer adds to a call, and the time of a cut model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from prunekit.pruning.plan import PruningPlan


@dataclass(frozen=True)
class Measured:
    """Time of a cut model over that of the dense one, with its 95 % interval."""

    ratio: float
    low: float
    high: float


@dataclass(frozen=True)
class LatencyTable:
    """Time that each part of a model adds to one call of the whole, on one device in one setting.

    A block that has lost all of its sublayers counts as removed, the last one of its stack excepted: one
    block of every stack has to stay.

    Args:
        sublayers: sublayer name (``encoder.0.ffn``) to kept units to ms; 0 units, which take 0 ms, and all of
            them are always there.
        block_ms: by stack, what one block takes beyond its sublayers.
        total_ms: of one call of the dense model.
    """

    sublayers: Mapping[str, Mapping[int, float]]
    block_ms: Mapping[str, float]
    total_ms: float

    def units(self, name: str) -> int:
        """Units of a sublayer when nothing is removed."""
        return max(self.sublayers[name])

    def ms(self, name: str, kept: int) -> float:
        """What a sublayer adds with ``kept`` units, linear between the measured counts.

        Raises:
            ValueError: if it has fewer units than that.
        """
        points = sorted(self.sublayers[name].items())
        counts, times = zip(*points, strict=True)
        if not 0 <= kept <= counts[-1]:
            raise ValueError(f"{name} has {counts[-1]} units; asked for the time of {kept}.")
        return float(np.interp(kept, counts, times))

    def predict(self, kept: Mapping[str, int]) -> float:
        """Ms of one call with these numbers of units; sublayers that are not named stay whole."""
        left = {name: kept.get(name, self.units(name)) for name in self.sublayers}
        saved = sum(self.ms(name, self.units(name)) - self.ms(name, count) for name, count in left.items())
        return self.total_ms - saved - self._empty_blocks_ms(left)

    def _empty_blocks_ms(self, left: Mapping[str, int]) -> float:
        blocks: dict[str, dict[str, bool]] = {}
        for name, count in left.items():
            stack, index, _ = name.split(".")
            is_full = blocks.setdefault(stack, {})
            is_full[index] = is_full.get(index, False) or count > 0
        return sum(
            self.block_ms.get(stack, 0.0) * (len(is_full) - max(1, sum(is_full.values())))
            for stack, is_full in blocks.items()
        )


class Stopwatch(Protocol):
    """Times a model on this device at the recipe's speed settings; what a target has for a latency budget."""

    def table(self) -> LatencyTable:
        """What each part takes; measured once."""

    def ratio(self, plan: PruningPlan) -> Measured:
        """The model cut by ``plan`` against the dense one, measured side by side."""
