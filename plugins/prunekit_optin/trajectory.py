"""Which tensors of a model are compared for which unit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from prunekit.adapters.base import Structure
from prunekit.errors import UnsupportedModelError
from prunekit.pruning.units import Sublayer

Features = Literal["ffn_output", "block_output", "block_norm"]


@dataclass(frozen=True)
class Feature:
    """One compared tensor.

    Args:
        path: the module that gives it.
        stack: whose tokens it holds.
        position: of the block it belongs to, counted over all stacks in the order they run.
        reached: whether units of its own block can change it; the norm at a block's start lies before them.
    """

    path: str
    stack: str
    position: int
    reached: bool = True


class Trajectory:
    """The compared tensors of a model, in the order they are computed.

    Args:
        structure: the model's.
        features: what each block contributes: the output of its second feed-forward matrix, its own output,
            or the output of its first norm.
        last_output: with ``block_norm``, whether the last block's output is compared too. Without it nothing
            behind the last block's units is compared, as in the released vision code.

    Raises:
        UnsupportedModelError: if ``block_norm`` is asked of a model that normalises after each sublayer.
    """

    def __init__(self, structure: Structure, features: Features, *, last_output: bool = True) -> None:
        self._starts: dict[str, int] = {}
        total = 0
        for name, stack in structure.stacks.items():
            self._starts[name] = total
            total += stack.depth
        self.length = total
        self.tensors: list[Feature] = []
        for name, stack in structure.stacks.items():
            for index in range(stack.depth):
                path = _module(structure, f"{name}.{index}", f"{stack.blocks}.{index}", features)
                if path is not None:
                    reached = features != "block_norm"
                    self.tensors.append(Feature(path, name, self._starts[name] + index, reached))
        if features == "block_norm" and last_output:
            name, stack = list(structure.stacks.items())[-1]
            self.tensors.append(Feature(f"{stack.blocks}.{stack.depth - 1}", name, total - 1))

    def position(self, sublayer: Sublayer) -> int:
        """Which block, counted over all stacks, the sublayer belongs to."""
        return self._starts[sublayer.stack] + sublayer.block

    def behind(self, position: int) -> list[Feature]:
        """What is compared for units of the block at ``position``.

        All that belongs to later blocks, or for the last block what its own units reach. Empty where pruning
        left nothing to compare.
        """
        later = [tensor for tensor in self.tensors if tensor.position > position]
        return later or [tensor for tensor in self.tensors if tensor.position == position and tensor.reached]


def _module(structure: Structure, name: str, block: str, features: Features) -> str | None:
    """The module of block ``name`` that gives its tensor; none where the sublayer was removed earlier."""
    if features == "block_output":
        return block
    ffn = structure.sublayers.get(f"{name}.ffn")
    if features == "ffn_output":
        return None if ffn is None else ffn.output
    first = structure.sublayers.get(f"{name}.self_attn")
    if first is not None and first.post_norm:
        raise UnsupportedModelError(
            "features: block_norm compares the norm at the start of each block, but this model normalises "
            "after each sublayer. Write features: block_output, which is normalised there."
        )
    return None if first is None else first.norm
