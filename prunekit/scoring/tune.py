"""Scales for the kept units that bring a pruned model's activations back to the dense model's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from prunekit.progress import Advance, Progress
from prunekit.pruning.plan import PruningPlan
from prunekit.pruning.units import Stack, Sublayer
from prunekit.scoring.frozen import frozen
from prunekit.scoring.stream import Stream, valid_tokens

if TYPE_CHECKING:
    from prunekit.pruning.target import PrunableModel

DAMP = 1e-4
"""Weight of ``|scale - 1|^2``, as a share of the mean squared contribution of a unit."""

LARGEST = 10.0
"""A sublayer that asks for a larger scale fits noise, and is left as it is."""


def tune(
    target: PrunableModel,
    keep: Mapping[str, Sequence[int]],
    batches: Sequence[Mapping[str, Tensor]],
    *,
    damp: float = DAMP,
    progress: Progress | None = None,
) -> dict[str, tuple[float, ...]]:
    """One scale per kept unit, by damped least squares, sublayer after sublayer as the model computes.

    Kwon et al. 2022 (arXiv:2204.09656), mask tuning. The goal of a sublayer is the dense model's residual
    stream behind it (before the norm of post-norm models); the residual stream that the pruned model brings,
    tuned up to here, is subtracted. With one column of ``A`` per kept unit, its contribution to the stream:
    ``min |A s - B|^2 + damp m |s - 1|^2``, where ``m`` is the mean squared length of the columns. Padding
    tokens are left out.

    The goal is the dense model. The paper's released code instead prunes in two steps, and takes its goals
    from a model pruned at the square root of the constraint; it also leaves the first attention alone, gives
    attention a constant column, matches only the first token behind a classifier's last block, and ends all
    tuning at the first scale above 10 in size.

    Args:
        target: the dense model; it is left as it was.
        keep: for each tuned unit group the sorted indices that stay; other groups stay as they are.
        batches: model inputs; labels only mark a decoder's padding.
        damp: pull towards 1; above 0, so that a unit that is silent on all batches has an answer.
        progress: where to draw.

    Returns:
        Scales in the order of ``keep``; a group is absent where no unit is left, or where the equations ask
        for a scale of 0 or beyond 10 in size.

    Raises:
        PrunekitError: if the model's weights are not finite, or in less than float32.
    """
    tuning = _Tuning(target, keep, batches, damp)
    bars = progress or Progress(quiet=True)
    with frozen(target.model), torch.no_grad(), bars.task("Tuning", total=len(tuning.alive)) as advance:
        for stack in target.structure.stacks.values():
            if any(sub.stack == stack.name for sub in tuning.alive):
                tuning.run(stack, advance)
    return tuning.scale


class _Tuning:
    """The scales found so far, and the model pruned with them."""

    def __init__(
        self,
        target: PrunableModel,
        keep: Mapping[str, Sequence[int]],
        batches: Sequence[Mapping[str, Tensor]],
        damp: float,
    ) -> None:
        self.target, self.batches, self.damp = target, batches, damp
        self.keep = {name: tuple(kept) for name, kept in keep.items()}
        dead = target.structure.dead(keep)
        self.alive = [
            sub
            for sub in target.structure.sublayers.values()
            if sub.units.name in keep and sub.name not in dead
        ]
        self.scale: dict[str, tuple[float, ...]] = {}

    def run(self, stack: Stack, advance: Advance) -> None:
        """Add the scales of one stack; those of the stack before it are known."""
        batches = range(len(self.batches))
        teacher = Stream(self.target, stack, self.batches)
        with self._pruned():
            student = Stream(self.target, stack, self.batches)
        for block in range(stack.depth):
            here = [sub for sub in self.alive if sub.stack == stack.name and sub.block == block]
            goals = []
            for batch in batches:
                teacher.states[batch], seen = teacher.run(block, batch, here)
                goals.append({name: found.stream for name, found in seen.items()})
            for sub in here:
                self._tune(sub, student, [goal.pop(sub.name) for goal in goals])
                advance()
            with self._pruned():
                for batch in batches:
                    student.states[batch], _ = student.run(block, batch)

    def _tune(self, sub: Sublayer, student: Stream, goals: Sequence[Tensor]) -> None:
        equations = _Equations(self.target, sub, self.keep[sub.units.name])
        with self._pruned():
            for index, (batch, goal) in enumerate(zip(self.batches, goals, strict=True)):
                found = student.run(sub.block, index, [sub])[1][sub.name]
                equations.add(found.inputs, goal - found.stream, valid_tokens(batch, sub.stack))
        factors = equations.solve(self.damp)
        if factors is not None:
            self.scale[sub.units.name] = factors

    def _pruned(self) -> AbstractContextManager[None]:
        device = self.target.model.device
        masks = PruningPlan(keep=self.keep, scale=self.scale).masks(self.target.groups)
        return self.target.masked({name: mask.to(device) for name, mask in masks.items()})


class _Equations:
    """The normal equations of one sublayer for ``scale - 1``, in float64, summed up batch by batch.

    A unit contributes ``W_u x_u`` to a token, with ``W_u`` its columns of the output projection and ``x_u``
    its entries of the projection's input. So the products of contributions, summed over tokens, are
    ``(W^T W) * (x^T x)``, summed over each pair of units' entries; contributions are never formed.
    """

    def __init__(self, target: PrunableModel, sub: Sublayer, kept: Sequence[int]) -> None:
        weight = target.model.get_parameter(f"{sub.output}.weight")
        self.width = sub.units.width
        entries = [unit * self.width + entry for unit in kept for entry in range(self.width)]
        self.entries = torch.tensor(entries, device=weight.device)
        self.weight = weight.index_select(1, self.entries).double()  # [d, K * width]
        self.products = self.weight.new_zeros(len(entries), len(entries))
        self.right = self.weight.new_zeros(len(entries))

    def add(self, inputs: Tensor, missing: Tensor, tokens: Tensor | None) -> None:
        """Add a batch.

        Args:
            inputs: of the output projection, ``[B, T, N * width]``.
            missing: what the residual stream lacks with all scales 1, ``[B, T, d]``.
            tokens: which count, ``[B, T]``; all if none.
        """
        if tokens is not None:
            tokens = tokens.to(inputs.device)
            inputs, missing = inputs[tokens], missing[tokens]
        inputs = inputs.index_select(-1, self.entries).flatten(0, -2).double()  # [tokens, K * width]
        missing = missing.flatten(0, -2).double()  # [tokens, d]
        self.products += inputs.T @ inputs
        self.right += (inputs * (missing @ self.weight)).sum(0)

    def solve(self, damp: float) -> tuple[float, ...] | None:
        """The scales; none if there is no solution that can be trusted."""
        units = len(self.right) // self.width
        normal = (self.weight.T @ self.weight) * self.products
        normal = normal.reshape(units, self.width, units, self.width).sum((1, 3))  # [K, K]
        right = self.right.reshape(units, self.width).sum(1)
        diagonal = normal.diagonal()
        diagonal.add_(damp * diagonal.mean())
        factor, failed = torch.linalg.cholesky_ex(normal)
        if failed:
            return None
        scales = 1 + torch.cholesky_solve(right[:, None], factor)[:, 0]
        trusted = scales.isfinite() & (scales != 0) & (scales.abs() <= LARGEST)
        return tuple(scales.tolist()) if trusted.all() else None
