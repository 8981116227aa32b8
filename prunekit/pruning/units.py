"""Names and sizes of everything that can be removed from a model."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

Kind = Literal["head", "neuron", "sublayer", "block"]
Role = Literal["self_attn", "cross_attn", "ffn"]


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
        slices: the axes that shrink; empty for sublayers and blocks, which go as a whole.
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


def sublayer_group(stack: str, role: str) -> str:
    """Name of the group whose unit ``i`` is sublayer ``role`` of block ``i``."""
    return f"{stack}.{role}"


def block_group(stack: str) -> str:
    """Name of the group whose unit ``i`` is block ``i`` of ``stack``."""
    return f"{stack}.blocks"


def in_scope(name: str, scope: tuple[str, ...] | list[str]) -> bool:
    """Whether a group name matches one of the patterns; every name does where there are none."""
    return not scope or any(fnmatchcase(name, pattern) for pattern in scope)
