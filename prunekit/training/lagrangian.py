"""The Lagrangian that brings the expected sparsity of L0 masks to a target (Wang et al. 2020)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Lagrangian(nn.Module):
    """Two multipliers that push the expected sparsity to a target, which rises over a warm-up.

    ``penalty = lambda_1 gap + lambda_2 gap^2`` with ``gap = expected sparsity - target_at(step)``; Wang et
    al. 2020 (arXiv:1910.04732). The masks descend on it, the multipliers ascend: give these an optimiser
    group of their own with ``maximize=True``, no weight decay and the masks' learning rate, constant.
    ``lambda_1`` takes either sign; the gradient of ``lambda_2`` is a square, so it never falls.

    The state dict holds the multipliers only: to resume, build with the same arguments, load it, and go on at
    the same step.

    Args:
        target: sparsity to reach, in [0, 1).
        warmup_steps: optimiser steps until the target stands at ``target``; 0 puts it there at once.
        start: sparsity that the target starts from; the masks' initial one avoids a first push the wrong way.
        lambda_2: where the second multiplier starts; 0 in the references. Multipliers move one learning rate
            a step, so from 0 they need long to outweigh a task loss that resists. ``lambda_1`` then winds up
            while the sparsity lags and drives it past the target later; a large ``lambda_2`` holds it on the
            target from the first step, to within the resisting slope over ``2 lambda_2``.
    """

    def __init__(
        self, target: float, warmup_steps: int, *, start: float = 0.0, lambda_2: float = 0.0
    ) -> None:
        super().__init__()
        self.target = target
        self.warmup_steps = warmup_steps
        self.start = start
        self.lambda_1 = nn.Parameter(torch.zeros(()))
        self.lambda_2 = nn.Parameter(torch.tensor(float(lambda_2)))

    def target_at(self, step: int) -> float:
        """Target sparsity at a step, counted from 0 where pruning starts; linear, then constant."""
        if step >= self.warmup_steps:
            return self.target
        return self.start + (self.target - self.start) * step / self.warmup_steps

    def penalty(self, expected_sparsity: Tensor, step: int) -> Tensor:
        """The term to add to the loss: a scalar, float32, of either sign."""
        gap = expected_sparsity.float() - self.target_at(step)
        return self.lambda_1.float() * gap + self.lambda_2.float() * gap.square()
