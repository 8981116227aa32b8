"""Which decoder blocks stay."""

from __future__ import annotations

from typing import Literal

from prunekit.errors import BudgetError

Selection = Literal["uniform", "uniform-paper", "uniform-float", "low", "high"]


def select_layers(depth: int, kept: int, selection: Selection = "uniform") -> tuple[int, ...]:
    """Indices (0-based, ascending) of the blocks to keep.

    With L = ``depth`` and d = ``kept`` >= 2:

    - ``uniform``: ``i (L - 1) // (d - 1)`` for i = 0..d-1, in exact integers; first and last always stay;
    - ``uniform-float``: the released code's ``floor((L - 1) / (d - 1) * i)``, which misses the last block for
      some pairs, such as (16, 12);
    - ``uniform-paper``: the paper's ``floor((L - 1) / (d - 1)) * i``, which becomes ``low`` for large d;
    - ``low``, ``high``: the first or the last d.

    A single block is the last one under ``high`` and the first one otherwise; the reference divides by zero.

    Raises:
        BudgetError: if ``kept`` is not between 1 and ``depth``.
    """
    if not 1 <= kept <= depth:
        raise BudgetError(
            f"decoder_layers = {kept}, but the decoder has {depth} blocks; choose between 1 and {depth}."
        )
    if selection == "high":
        return tuple(range(depth - kept, depth))
    if selection == "low" or kept == 1:
        return tuple(range(kept))
    if selection == "uniform":
        return tuple(i * (depth - 1) // (kept - 1) for i in range(kept))
    if selection == "uniform-paper":
        return tuple((depth - 1) // (kept - 1) * i for i in range(kept))
    return tuple(int((depth - 1) / (kept - 1) * i) for i in range(kept))
