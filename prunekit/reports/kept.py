"""Which heads, neurons, sublayers and blocks a run kept, layer by layer, as a map that pages can draw."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from prunekit.errors import PlanError

_UNITS = re.compile(r"(?P<stack>.+?)\.(?P<layer>\d+)\.(?P<role>[^.]+)\.(?P<units>heads|neurons)")


@dataclass(frozen=True)
class KeptUnits:
    """Units that stand side by side.

    Attributes:
        size: how many the dense model has.
        indices: those that are kept, rising, counted from 0 in the dense model.
    """

    size: int
    indices: tuple[int, ...]

    @property
    def kept(self) -> int:
        """How many are kept."""
        return len(self.indices)


@dataclass(frozen=True)
class KeptSublayer(KeptUnits):
    """One attention or feed-forward sublayer, and its heads or neurons.

    Attributes:
        role: ``self_attn``, ``cross_attn`` or ``ffn``.
        kind: what a unit is.
    """

    role: str
    kind: Literal["head", "neuron"]

    @property
    def removed(self) -> bool:
        """Whether nothing of it is left: its block, the whole sublayer or every one of its units went."""
        return not self.indices


@dataclass(frozen=True)
class KeptLayer:
    """One block of the dense model.

    Attributes:
        index: its place in the dense model, from 0.
        removed: whether the block went as a whole.
        sublayers: in the order of the stack's ``roles``.
    """

    index: int
    removed: bool
    sublayers: tuple[KeptSublayer, ...]

    def sublayer(self, role: str) -> KeptSublayer | None:
        """The sublayer of that role; none where the layer has no such one."""
        return next((sublayer for sublayer in self.sublayers if sublayer.role == role), None)


@dataclass(frozen=True)
class KeptStack:
    """An encoder or a decoder.

    Attributes:
        name: ``encoder`` or ``decoder``.
        roles: the roles of its sublayers, in order.
        layers: every block of the dense model, in order.
    """

    name: str
    roles: tuple[str, ...]
    layers: tuple[KeptLayer, ...]

    def total(self, role: str) -> tuple[int, int]:
        """Units of that role that all layers together keep, and how many there were."""
        found = [sublayer for layer in self.layers if (sublayer := layer.sublayer(role)) is not None]
        return sum(sublayer.kept for sublayer in found), sum(sublayer.size for sublayer in found)


@dataclass(frozen=True)
class KeptMap:
    """Everything that a run kept.

    Attributes:
        stacks: encoder first.
        hidden: the dimensions of the residual stream; none where the report does not say how many there were.
    """

    stacks: tuple[KeptStack, ...]
    hidden: KeptUnits | None


@dataclass(frozen=True)
class Overlap:
    """What two runs keep of one sublayer.

    Attributes:
        stack: ``encoder`` or ``decoder``.
        layer: its block.
        role: which sublayer of that.
        both: units that both keep.
        only_first: units that the first keeps alone.
        only_second: units that the second keeps alone.
    """

    stack: str
    layer: int
    role: str
    both: int
    only_first: int
    only_second: int


def kept_map(keep: Mapping[str, Sequence[int]], structure: Iterable[Mapping[str, Any]]) -> KeptMap:
    """The map of a plan.

    Args:
        keep: what ``plan.json`` has under that key: kept indices by group; an absent group stays whole.
        structure: what ``report.json`` has under that key: ``group``, ``kept`` and ``size`` of every group.

    Raises:
        PlanError: if the two do not speak of the same run; the text names the group.
    """
    rows = {row["group"]: row for row in structure}
    if unknown := sorted(keep.keys() - rows.keys()):
        raise PlanError(
            f"the plan names {', '.join(unknown)}, which the report's structure lacks: plan.json and "
            "report.json are not of one run."
        )
    places = [place for group in rows if (place := _UNITS.fullmatch(group))]
    names = dict.fromkeys(place["stack"] for place in places)
    stacks = tuple(
        _stack(name, [place for place in places if place["stack"] == name], keep, rows) for name in names
    )
    hidden = None
    if row := rows.get("hidden"):
        hidden = KeptUnits(row["size"], _indices("hidden", keep, rows))
    return KeptMap(stacks, hidden)


def overlap(first: KeptMap, second: KeptMap) -> list[Overlap]:
    """What two runs keep of each sublayer, in the order of the maps.

    Raises:
        PlanError: if the dense models do not have the same units; the text names what differs.
    """
    sides = [dict(_sublayers(found)) for found in (first, second)]
    for place in dict.fromkeys([*sides[0], *sides[1]]):
        one, other = (f"{side[place].size} units" if place in side else "none" for side in sides)
        if one != other:
            raise PlanError(
                f"{'.'.join(map(str, place))}: one run's dense model has {one} and the other's {other}. "
                "Lay runs side by side that prune the same architecture."
            )
    rows = []
    for place, sublayer in sides[0].items():
        ours, theirs = set(sublayer.indices), set(sides[1][place].indices)
        rows.append(Overlap(*place, len(ours & theirs), len(ours - theirs), len(theirs - ours)))
    return rows


def _sublayers(found: KeptMap) -> Iterator[tuple[tuple[str, int, str], KeptSublayer]]:
    for stack in found.stacks:
        for layer in stack.layers:
            for sublayer in layer.sublayers:
                yield (stack.name, layer.index, sublayer.role), sublayer


def _stack(
    name: str,
    places: Sequence[re.Match[str]],
    keep: Mapping[str, Sequence[int]],
    rows: Mapping[str, Mapping[str, Any]],
) -> KeptStack:
    layers = sorted({int(place["layer"]) for place in places})
    blocks = set(keep.get(f"{name}.blocks", layers))
    by_layer = {
        layer: tuple(_sublayer(place, blocks, keep, rows) for place in places if int(place["layer"]) == layer)
        for layer in layers
    }
    return KeptStack(
        name=name,
        roles=tuple(dict.fromkeys(place["role"] for place in places)),
        layers=tuple(KeptLayer(layer, layer not in blocks, found) for layer, found in by_layer.items()),
    )


def _sublayer(
    place: re.Match[str],
    blocks: set[int],
    keep: Mapping[str, Sequence[int]],
    rows: Mapping[str, Mapping[str, Any]],
) -> KeptSublayer:
    group, layer = place[0], int(place["layer"])
    alive = layer in blocks and layer in keep.get(f"{place['stack']}.{place['role']}", [layer])
    indices = _indices(group, keep, rows) if alive else ()
    if len(indices) != rows[group]["kept"]:
        raise PlanError(
            f"{group}: the plan keeps {len(indices)} units and the report counts {rows[group]['kept']}: "
            "plan.json and report.json are not of one run."
        )
    return KeptSublayer(
        size=rows[group]["size"],
        indices=indices,
        role=place["role"],
        kind="head" if place["units"] == "heads" else "neuron",
    )


def _indices(
    group: str, keep: Mapping[str, Sequence[int]], rows: Mapping[str, Mapping[str, Any]]
) -> tuple[int, ...]:
    """The kept indices of a group.

    Raises:
        PlanError: if they are not rising, or the dense model has no such units.
    """
    size = rows[group]["size"]
    indices = tuple(keep.get(group, range(size)))
    if any(b <= a for a, b in pairwise(indices)):
        raise PlanError(f"{group}: kept indices must be sorted and unique.")
    if indices and not (indices[0] >= 0 and indices[-1] < size):
        raise PlanError(
            f"{group}: the plan keeps unit {indices[-1] if indices[0] >= 0 else indices[0]} of {size}: "
            "plan.json and report.json are not of one run."
        )
    return indices
