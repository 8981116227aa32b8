"""Names and sizes of everything that can be removed from a model."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from prunekit.shown import Shown, as_html, as_text

Kind = Literal["head", "neuron", "sublayer", "block", "hidden"]
Role = Literal["self_attn", "cross_attn", "ffn"]

HIDDEN = "hidden"
"""Name of the one group of hidden units: the dimensions of the residual stream."""


@dataclass(frozen=True)
class Slice:
    """One axis of one parameter that shrinks with a unit group.

    Args:
        parameter: dotted name in the model's state.
        axis: which axis of it; unit ``j`` owns entries ``j * width`` to ``(j + 1) * width``.
    """

    parameter: str
    axis: int


@dataclass(frozen=True)
class UnitGroup:
    """Units that one mask, score or keep-list vector speaks of.

    Args:
        name: path a person can read, such as ``encoder.0.self_attn.heads``.
        kind: what a unit is.
        size: number of units ``N``.
        width: entries of each sliced axis per unit (the head size for heads, else 1).
        slices: the axes that shrink; empty for sublayers and blocks, which go as a whole. A tied parameter is
            named once.
    """

    name: str
    kind: Kind
    size: int
    width: int = 1
    slices: tuple[Slice, ...] = ()


class UnitGroups(dict[str, UnitGroup]):
    """A model's unit groups by name; shown as a table in which blocks that are alike share a line."""

    def __repr__(self) -> str:
        return as_text([self._shown()])

    def _repr_html_(self) -> str:
        return as_html([self._shown()])

    def _shown(self) -> Shown:
        rows = [(name, group.kind, str(group.size), str(group.width)) for name, group in _folded(self)]
        ranges = [name for name, *_ in rows if "{" in name]
        notes = [f"{ranges[0]}: one such group in each of these blocks."] if ranges else []
        return Shown(f"{len(self)} groups of units", ("group", "kind", "size", "width"), rows, notes)


_IN_A_BLOCK = re.compile(r"(.+?)\.(\d+)\.(.+)")


def _folded(groups: dict[str, UnitGroup]) -> list[tuple[str, UnitGroup]]:
    """Names and groups, neighbouring blocks that are alike under one name: ``encoder.{0..3}.ffn.neurons``."""
    columns: dict[tuple[str, str], list[tuple[int, UnitGroup]]] = {}
    for name, group in groups.items():
        place = _IN_A_BLOCK.fullmatch(name)
        key, block = ((place[1], place[3]), int(place[2])) if place else ((name, ""), -1)
        columns.setdefault(key, []).append((block, group))
    folded = []
    for (first, rest), column in columns.items():
        runs: list[list[tuple[int, UnitGroup]]] = []
        for block, group in column:
            if runs and _continues(runs[-1][-1], (block, group)):
                runs[-1].append((block, group))
            else:
                runs.append([(block, group)])
        for run in runs:
            (start, group), (end, _) = run[0], run[-1]
            blocks = f"{{{start}..{end}}}" if end > start else str(start)
            folded.append((f"{first}.{blocks}.{rest}" if rest else first, group))
    return folded


def _continues(last: tuple[int, UnitGroup], following: tuple[int, UnitGroup]) -> bool:
    (before, one), (block, other) = last, following
    return block == before + 1 and (one.size, one.width) == (other.size, other.width)


@dataclass(frozen=True)
class Sublayer:
    """One attention or feed-forward sublayer of a block, found in a model.

    Args:
        name: ``encoder.0.self_attn``.
        stack: ``encoder`` or ``decoder``.
        block: index in the stack's ModuleList.
        role: what it computes.
        units: its heads or neurons.
        inputs: module paths of the projections into the units (query, key, value, or the first FFN matrices).
        output: module path of the projection back to the residual stream.
        norm: module path of its normalisation.
        post_norm: whether the norm comes after the residual addition (BERT, BART).
    """

    name: str
    stack: str
    block: int
    role: Role
    units: UnitGroup
    inputs: tuple[str, ...]
    output: str
    norm: str
    post_norm: bool

    @property
    def modules(self) -> tuple[str, ...]:
        """Paths of every module that goes when the whole sublayer goes."""
        return (*self.inputs, self.output, self.norm)


@dataclass(frozen=True)
class Stack:
    """An encoder or decoder: a ModuleList of blocks.

    Args:
        name: ``encoder`` or ``decoder``.
        blocks: module path of the ModuleList.
        depth: number of blocks.
        roles: the sublayers of each block, in order.
    """

    name: str
    blocks: str
    depth: int
    roles: tuple[Role, ...]


@dataclass(frozen=True)
class StreamNorm:
    """A normalisation outside the blocks whose width is the residual stream's.

    Args:
        path: of the module.
        before: what a hidden mask does to its input: multiplies it, takes removed dimensions out, or nothing,
            because removed dimensions are zero there already.
        after: the same for its output; ``mask`` where that is the residual stream itself (post-norm).
    """

    path: str
    before: Literal["mask", "support", "nothing"]
    after: Literal["mask", "support"]


@dataclass(frozen=True)
class TiedHead:
    """An output projection that may be one parameter with the embedding.

    Args:
        weight: name of its weight.
        embedding: name of the embedding's weight.
        norm: path of the norm whose output it reads.
        stack: where the last norm that is left of this stack comes between, if any is (post-norm).
    """

    weight: str
    embedding: str
    norm: str
    stack: str | None = None


@dataclass(frozen=True)
class Stream:
    """The residual stream outside the blocks: what is as wide as the model there.

    Args:
        sources: module paths whose output is a stream's first state; empty where a norm comes first.
        written: axes of parameters that write that first state.
        norms: normalisations.
        read: axes of parameters that read the stream.
        own: prefixes of other modules' parameters that are as wide, but no part of the stream.
        head: the output projection that may be tied, if there is one.
    """

    sources: tuple[str, ...]
    written: tuple[Slice, ...]
    norms: tuple[StreamNorm, ...]
    read: tuple[Slice, ...] = ()
    own: tuple[str, ...] = ()
    head: TiedHead | None = None


def sublayer_group(stack: str, role: str) -> str:
    """Name of the group whose unit ``i`` is sublayer ``role`` of block ``i``."""
    return f"{stack}.{role}"


def block_group(stack: str) -> str:
    """Name of the group whose unit ``i`` is block ``i`` of ``stack``."""
    return f"{stack}.blocks"


def in_scope(name: str, scope: tuple[str, ...] | list[str]) -> bool:
    """Whether a group name matches one of the patterns; every name does where there are none."""
    return not scope or any(fnmatchcase(name, pattern) for pattern in scope)
