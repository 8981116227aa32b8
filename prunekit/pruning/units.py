"""Names and sizes of everything that can be removed from a model."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

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
