"""Which blocks of a stack stay, where only their number is given."""

from __future__ import annotations

from typing import Literal

from prunekit.errors import BudgetError

Selection = Literal["uniform", "uniform-paper", "uniform-float", "low", "high"]


def select_layers(
    depth: int, kept: int, selection: Selection = "uniform", *, stack: str = "decoder"
) -> tuple[int, ...]:
    """Indices (0-based, ascending) of the blocks to keep.

    With L = ``depth`` and d = ``kept`` >= 2:

    - ``uniform``: ``i (L - 1) // (d - 1)`` for i = 0..d-1, in exact integers; first and last always stay;
    - ``uniform-float``: ``floor((L - 1) / (d - 1) * i)`` as NASH's released code computes it, in floating
      point, which misses the last block for some pairs, such as (16, 12);
    - ``uniform-paper``: NASH's published ``floor((L - 1) / (d - 1)) * i``, which becomes ``low`` for large d;
    - ``low``, ``high``: the first or the last d.

    A single block is the last one under ``high`` and the first one otherwise (NASH's code divides by zero).

    Args:
        depth: blocks that there are.
        kept: blocks to keep.
        selection: the rule.
        stack: what an error calls the stack.

    Raises:
        BudgetError: if ``kept`` is not between 1 and ``depth``.
    """
    if not 1 <= kept <= depth:
        raise BudgetError(
            f"{stack}_layers = {kept}, but the {stack} has {depth} blocks; choose between 1 and {depth}."
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
