"""Which examples make up each batch, and how many updates a stage has."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from prunekit.recipe import StageSpec


def bucketed_batches(lengths: Sequence[int], batch_size: int, *, seed: int, epoch: int) -> list[list[int]]:
    """Indices of one epoch's batches: shuffled, examples of like length together to save padding."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order = torch.randperm(len(lengths), generator=generator).tolist()
    pool = batch_size * 50
    batches: list[list[int]] = []
    for start in range(0, len(order), pool):
        bucket = sorted(order[start : start + pool], key=lambda index: lengths[index])
        batches += [bucket[i : i + batch_size] for i in range(0, len(bucket), batch_size)]
    return [batches[i] for i in torch.randperm(len(batches), generator=generator).tolist()]


def total_steps(examples: int, spec: StageSpec) -> int:
    """Update steps that ``spec`` asks for on a training split of ``examples``; none for 0 epochs."""
    if spec.max_steps is not None:
        return spec.max_steps
    per_epoch = math.ceil(examples / spec.batch_size)
    return math.ceil(spec.epochs * per_epoch / spec.gradient_accumulation)
