"""One update in several processes: each computes its part of every batch, and gradients are averaged.

A part weighs as many examples as it has, so an update is that of one process with the whole batch wherever
the loss is a mean over examples. Terms that are means over tokens are weighted by those here. Where there is
one process, everything hands back what it is given. A loss that counts padding is an exception: each part is
padded to the longest example of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from prunekit import ranks

if TYPE_CHECKING:
    from prunekit.training.loop import Batch, Loss

IGNORED = -100
"""The label of positions that count for nothing, as transformers has it."""


_share = 1.0
"""How many of a batch's examples this process has, in units of an even share."""


def weighted(mean: Tensor, counted: Tensor) -> Tensor:
    """A mean over some of this process's positions, such that the loss takes it for one over all processes'.

    Args:
        mean: scalar, a term of a loss.
        counted: how many positions it is over, scalar.
    """
    if ranks.count() == 1:
        return mean
    return mean * (_part(counted) / _share)


def _part(counted: Tensor) -> Tensor:
    """How many of all processes' these are, in units of an even share."""
    return counted * ranks.count() / ranks.total(counted).clamp_min(1)


def of_labels(loss: Tensor, batch: Batch) -> Tensor:
    """A model's own loss on its batch: a mean over labelled tokens, or over examples."""
    labels = batch.get("labels")
    if labels is not None and labels.ndim == 2 and not labels.is_floating_point():
        return weighted(loss, (labels != IGNORED).sum())
    return loss


def averaged(figures: Mapping[str, float]) -> dict[str, float]:
    """Figures of an update, each the mean over processes."""
    if ranks.count() == 1:
        return dict(figures)
    means = ranks.mean(torch.tensor(list(figures.values()), dtype=torch.float64))
    return dict(zip(figures, means.tolist(), strict=True))


def reduced(loss: Loss, modules: Iterable[nn.Module], own: Sequence[nn.Parameter]) -> Loss:
    """The loss, such that going back through it leaves the same gradients in every process.

    Args:
        loss: see ``prunekit.training.loop.Loss``.
        modules: all that it is computed from and that is trained.
        own: trained parameters outside of them.
    """
    if ranks.count() == 1:
        return loss
    ranks.begin()
    # What a step leaves out (a sublayer whose mask is closed) is found anew each time.
    return DistributedDataParallel(_Loss(loss, modules, own), find_unused_parameters=True)


def reducing(loss: Loss, *, last: bool) -> AbstractContextManager[Any]:
    """Around one micro-batch, forward and backward; gradients are averaged at the last one of an update."""
    return loss.no_sync() if isinstance(loss, DistributedDataParallel) and not last else nullcontext()


class _Loss(nn.Module):
    """A loss as a module, whose parameters are all that is trained by it."""

    def __init__(self, loss: Loss, modules: Iterable[nn.Module], own: Sequence[nn.Parameter]) -> None:
        super().__init__()
        self.loss = loss
        self.parts = nn.ModuleList(modules)
        known = {id(parameter) for parameter in self.parts.parameters()}
        self.own = nn.ParameterList([parameter for parameter in own if id(parameter) not in known])

    def forward(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        """As the loss; its figures are cut off from the graph, which is searched for what was used."""
        global _share
        _share = float(_part(torch.tensor(len(next(iter(batch.values()))))))
        try:
            value, figures = self.loss(batch, step)
        finally:
            share, _share = _share, 1.0
        plain = {name: f.detach() if isinstance(f, Tensor) else f for name, f in figures.items()}
        return value * share, {name: figure * share for name, figure in plain.items()}
