"""Layer-wise distillation where the student loses layers as it trains: which pairs of blocks to compare.

Xia et al. 2022 (CoFi, arXiv:2204.00408), section 3.2. Some of a teacher's blocks are each matched, in every
step anew, with the student's block whose output is closest to theirs under a learned affine map. The released
code is written for twelve blocks; this is not.

Shapes: B examples, T positions, D width; I teacher blocks to compare, J student blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from prunekit import ranks
from prunekit.training.distill import hidden_mse

LayerMatching = Literal["same-index", "argmin", "top-down", "random", "windows"]

TEACHER_LAYERS = 4


class LayerTransform(nn.Module):
    """A learned affine map from the student's hidden states to the teacher's, in float32 under autocast too.

    One map serves all blocks of a stack. It is the identity at the start, and of no use after training.

    Args:
        width: D of both models.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, states: Tensor) -> Tensor:
        """The mapped states, ``[..., D]``, float32."""
        with torch.autocast(states.device.type, enabled=False):
            return functional.linear(states.float(), self.weight, self.bias)


def teacher_layers(depth: int, count: int = TEACHER_LAYERS) -> tuple[int, ...]:
    """The last block of each of ``count`` equal parts of a stack, or every block if there are no more.

    A block that the border between two parts goes through belongs to the lower part, so that the choice leans
    to later blocks: 12 gives (2, 5, 8, 11), CoFi's own four, and 6 gives (1, 2, 4, 5).

    Args:
        depth: number of blocks, at least 1.
        count: number of parts, at least 1.

    Returns:
        Indices (0-based), strictly ascending, always with the last block.
    """
    parts = min(count, depth)
    return tuple(-(-part * depth // parts) - 1 for part in range(1, parts + 1))


def compared_layers(depth: int, matching: LayerMatching, count: int = TEACHER_LAYERS) -> tuple[int, ...]:
    """The teacher's blocks that a step compares; see ``match_layers`` for the rules.

    ``random`` and ``windows`` draw from torch's global generator on the CPU at each call. The released code
    then raises the first index to at least 2, which makes the windows' first one always 2 and can put the
    random ones out of order or name a block twice; here the draw stands, as a fixed 2 means nothing in a
    stack of another depth.

    Args:
        depth: number of the teacher's blocks, at least 1.
        matching: the rule.
        count: how many to compare, where the rule does not compare all.

    Returns:
        Indices (0-based), strictly ascending.
    """
    if matching == "same-index":
        return tuple(range(depth))
    if matching == "random":
        return tuple(sorted(ranks.same(torch.randperm(depth, device="cpu"))[:count].tolist()))
    last = teacher_layers(depth, count)
    if matching == "windows":
        first = (0, *(index + 1 for index in last))
        return tuple(
            int(ranks.same(torch.randint(low, high + 1, (), device="cpu")))
            for low, high in zip(first, last, strict=False)
        )
    return last


def match_layers(
    distances: Tensor, alive: Sequence[bool], matching: LayerMatching
) -> tuple[tuple[int, int], ...]:
    """Pairs of (student block, row of ``distances``) to compare, in the order of the rows.

    In brackets the number that the released code knows a rule by (``layer_distill_version``):

    - ``same-index`` (2): every living block with the teacher's of the same index. The released code stops
      with an error here.
    - ``argmin`` (3): each row takes its closest student block, alive or dead.
    - ``top-down`` (4): rows choose from the last to the first, each its closest among the living blocks below
      the block chosen before; where none is left, it takes that block again. This is greedy: it does not look
      for the assignment with the smallest sum. Where no block is alive, all rows take the last one (the
      released code reads beyond the end).
    - ``random`` (5) and ``windows`` (6): as ``top-down``, on other rows (see ``compared_layers``).

    Among equally close blocks the lowest is taken.

    Args:
        distances: ``[I, J]``, on the CPU; ``same-index`` looks at its shape alone and wants I = J.
        alive: for each student block whether it still computes anything. A block is alive if its attention or
            its feed-forward sublayer is (the authors' later advice; their code looks at the attention alone).
        matching: the rule.
    """
    table = distances.tolist()
    blocks = range(len(alive))
    if matching == "same-index":
        return tuple((block, block) for block, _ in zip(blocks, table, strict=True) if alive[block])
    if matching == "argmin":
        return tuple((min(blocks, key=values.__getitem__), row) for row, values in enumerate(table))
    pairs: list[tuple[int, int]] = []
    chosen: int | None = None
    for row in reversed(range(len(table))):
        candidates = [block for block in blocks[:chosen] if alive[block]]
        if candidates:
            chosen = min(candidates, key=table[row].__getitem__)
        elif chosen is None:
            chosen = blocks[-1]
        pairs.append((chosen, row))
    return tuple(reversed(pairs))


@torch.no_grad()
def layer_distances(
    student_states: Sequence[Tensor], teacher_states: Sequence[Tensor], mask: Tensor
) -> Tensor:
    """Mean squared difference of every teacher state with every student state, without a graph.

    Args:
        student_states: J states, ``[B, T, D]``.
        teacher_states: I states, ``[B, T, D]``.
        mask: ``[B, T]``, nonzero where the position is not padding.

    Returns:
        ``[I, J]``, float32: the mean over the width and over the positions that count.
    """
    padding = mask == 0
    targets = torch.stack([state.float() for state in teacher_states])  # [I, B, T, D]
    columns = []
    for state in student_states:
        squares = (targets - state.float()).square_().mean(-1)  # [I, B, T]
        columns.append(squares.masked_fill_(padding, 0).sum((1, 2)))
    # Which blocks match must not depend on which process has which examples.
    return ranks.total(torch.stack(columns, dim=1)) / ranks.total((~padding).sum()).clamp_min(1)


def layer_loss(
    student_states: Sequence[Tensor],
    teacher_states: Sequence[Tensor],
    mask: Tensor,
    transform: nn.Module,
    alive: Tensor,
    matching: LayerMatching = "top-down",
    count: int = TEACHER_LAYERS,
) -> Tensor:
    """CoFi's layer term of one stack: the distances of the matched pairs, summed, without their weight.

    Only the matched pairs have a graph: all distances are computed without one first. The CPU waits for the
    device once.

    Args:
        student_states: raw outputs of the student's blocks, ``[B, T, D]`` each.
        teacher_states: raw outputs of the teacher's blocks, ``[B, T, D]`` each.
        mask: ``[B, T]``, nonzero where the position is not padding.
        transform: applied to the student's states.
        alive: ``[J]``, bool, on the states' device; see ``match_layers``.
        matching: the rule.
        count: how many of the teacher's blocks to compare, where the rule does not compare all.

    Returns:
        Scalar, float32, at least 0; 0 if every position is padding or no block is in a pair.
    """
    targets = [teacher_states[index] for index in compared_layers(len(teacher_states), matching, count)]
    shape = (len(targets), len(student_states))
    if matching == "same-index":
        distances = torch.zeros(shape, device=mask.device)  # the indices alone decide
    else:
        with torch.no_grad():
            mapped = [transform(state) for state in student_states]
        distances = layer_distances(mapped, targets, mask)
        del mapped
    # One transfer for both: each would wait for the device.
    numbers = torch.cat([distances.flatten(), alive.to(distances.dtype)]).cpu()
    living = [bool(value) for value in numbers[distances.numel() :].tolist()]
    pairs = match_layers(numbers[: distances.numel()].view(shape), living, matching)
    if not pairs:
        return torch.zeros((), device=mask.device)
    ours = [transform(student_states[block]) for block, _ in pairs]
    theirs = [targets[row] for _, row in pairs]
    return hidden_mse(ours, theirs, [(index, index) for index in range(len(pairs))], mask)
