"""Which cuts a table of times is measured on, and the table that their times make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import scipy.optimize

from prunekit.adapters.base import Structure
from prunekit.pruning.plan import PruningPlan
from prunekit.pruning.rounding import bundle_size
from prunekit.pruning.stopwatch import LatencyTable
from prunekit.pruning.units import Stack, Sublayer, UnitGroup, block_group

BLOCKS = "blocks"
STEP = 8
"""Widths that are measured are multiples of this: odd ones are slow on GPUs, whatever their number."""
_SHARES = (0.25, 0.5, 0.75)


@dataclass(frozen=True)
class Cut:
    """A cut model to be timed beside the dense one.

    Args:
        stack: what is cut.
        role: the sublayers that are, ``blocks`` where whole blocks go.
        kept: units that are left, by sublayer; none for blocks.
        plan: the cut.
    """

    stack: str
    role: str
    kept: dict[str, int]
    plan: PruningPlan


def cuts(structure: Structure) -> dict[tuple[str, str], list[Cut]]:
    """The cuts of each stack and role, and of each stack's blocks.

    All sublayers of a role are cut alike: to none, to ``STEP`` entries (below which nothing is gained but by
    cutting all), and to about 1/4, 1/2 and 3/4 in multiples of that. Of blocks the first half stays; a stack
    of one block has no such cut.
    """
    found: dict[tuple[str, str], list[Cut]] = {}
    for stack in structure.stacks.values():
        for role in stack.roles:
            levels: list[dict[str, int]] = []
            subs = _of(structure, stack, role)
            for number in range(len(_counts(subs[0].units)) if subs else 0):
                kept = {sub.name: _counts(sub.units)[number] for sub in subs}
                is_whole = all(kept[sub.name] == sub.units.size for sub in subs)
                if kept not in levels and not is_whole:
                    levels.append(kept)
            found[stack.name, role] = [
                Cut(stack.name, role, kept, PruningPlan(keep=_keep(subs, kept))) for kept in levels
            ]
        if stack.depth > 1:
            plan = PruningPlan(keep={block_group(stack.name): tuple(_first_half(stack))})
            found[stack.name, BLOCKS] = [Cut(stack.name, BLOCKS, {}, plan)]
    return {kind: own for kind, own in found.items() if own}


def tabulated(structure: Structure, found: Sequence[tuple[Cut, float]], total_ms: float) -> LatencyTable:
    """The table that measured cuts make.

    To keep more is taken never to be faster: where it was measured so, the counts share their mean
    (isotonic regression), and a block that seems to take less than its sublayers adds nothing to them.

    Args:
        structure: the dense model's.
        found: cuts with their time over the dense model's, each from a measurement side by side.
        total_ms: of the dense model.
    """
    sublayers: dict[str, dict[int, float]] = {}
    for stack in structure.stacks.values():
        for role in stack.roles:
            subs = _of(structure, stack, role)
            levels = [
                (cut.kept, ratio) for cut, ratio in found if (cut.stack, cut.role) == (stack.name, role)
            ]
            levels.append(({sub.name: sub.units.size for sub in subs}, 1.0))
            levels.sort(key=lambda level: sum(level[0].values()))
            fitted = scipy.optimize.isotonic_regression([ratio for _, ratio in levels]).x
            units = sum(sub.units.size for sub in subs)
            for sub in subs:
                own_ms = total_ms * sub.units.size / units
                sublayers[sub.name] = {
                    kept[sub.name]: float(own_ms * (ratio - fitted[0]))
                    for (kept, _), ratio in zip(levels, fitted, strict=True)
                }
    block_ms = dict.fromkeys(structure.stacks, 0.0)
    for cut, ratio in found:
        if cut.role == BLOCKS:
            stack = structure.stacks[cut.stack]
            gone = range(stack.depth)[len(_first_half(stack)) :]
            inside = sum(
                sublayers[sub.name][sub.units.size]
                for sub in structure.sublayers.values()
                if sub.stack == cut.stack and sub.block in gone
            )
            block_ms[cut.stack] = max(0.0, (total_ms * (1 - ratio) - inside) / len(gone))
    return LatencyTable(sublayers, block_ms, total_ms)


def _of(structure: Structure, stack: Stack, role: str) -> list[Sublayer]:
    return [sub for sub in structure.sublayers.values() if (sub.stack, sub.role) == (stack.name, role)]


def _counts(group: UnitGroup) -> list[int]:
    step = bundle_size(group, STEP)
    return [0, step, *(min(group.size, round(share * group.size / step) * step) for share in _SHARES)]


def _keep(subs: Sequence[Sublayer], kept: dict[str, int]) -> dict[str, tuple[int, ...]]:
    return {sub.units.name: tuple(range(kept[sub.name])) for sub in subs}


def _first_half(stack: Stack) -> range:
    return range(-(-stack.depth // 2))
