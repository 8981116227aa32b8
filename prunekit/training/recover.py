"""Recovery: training the pruned model after surgery."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from prunekit.training.distill import counted_positions, logit_kl, predicted
from prunekit.training.loop import Batch, FitResult, Loss, task_loss
from prunekit.training.share import of_labels

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from prunekit.recipe import RecoverSpec
    from prunekit.tasks.base import Task
    from prunekit.training.loop import Trainer


def recover(
    pruned: PreTrainedModel, dense: PreTrainedModel, task: Task, spec: RecoverSpec, trainer: Trainer
) -> FitResult:
    """Train ``pruned`` in place on the task's loss, and on the dense model's predictions if asked to.

    Where ``spec`` asks for no steps, the model stays as it is and no data is looked at.
    """
    if spec.is_empty:
        return FitResult(steps=0, seconds=0.0)
    loss = task_loss(pruned)
    if spec.distill is not None and spec.distill.logits:
        dense.to(trainer.device).eval()
        loss = _distilling(loss, pruned, dense, spec.distill.logits, spec.distill.temperature)
    return trainer.fit("recover", pruned, task, spec, loss)


def _distilling(
    task: Loss, pruned: PreTrainedModel, dense: PreTrainedModel, weight: float, temperature: float
) -> Loss:
    def loss(batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        output = pruned(**batch)
        with torch.no_grad():
            expected = predicted(dense, dense(**batch), batch)
        found = predicted(pruned, output, batch)
        counted = counted_positions(found, batch.get("labels"))
        term = logit_kl(found, expected, counted, temperature=temperature)
        own = of_labels(output.loss, batch)
        return own + weight * term, {"task": own, "distill": term}

    return loss
