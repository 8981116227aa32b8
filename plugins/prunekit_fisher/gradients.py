"""Gradients of the task's loss in the masks, and the Fisher information they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from prunekit import ranks
from prunekit.errors import DataError
from prunekit.progress import Progress
from prunekit.scoring.frozen import frozen, to_model
from prunekit.scoring.scores import Scores

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from prunekit.pruning.target import PrunableModel


def fisher_scores(
    target: PrunableModel,
    groups: Sequence[str],
    batches: Sequence[Mapping[str, Tensor]],
    *,
    progress: Progress | None = None,
) -> Scores:
    """The diagonal of the empirical Fisher information of the masks, all of them 1.

    Kwon et al. 2022 (arXiv:2204.09656): removing a unit ``u`` raises the loss by about half of
    ``F_u = sum_t g_tu^2``, where ``g_t`` is the gradient in the masks of batch ``t``'s mean loss. Squares are
    of batch means, as in the released code, not of single examples.

    Args:
        target: the dense model; it is left as it was.
        groups: the unit groups to score.
        batches: model inputs with labels; of several processes each takes some.
        progress: where to draw.

    Returns:
        ``F`` (float64), and the gradients ``g``, ``[batches, N]``, in the model's dtype.

    Raises:
        DataError: if the batches make no loss.
        PrunekitError: if the model's weights are not finite, or in less than float32.
    """
    model = target.model
    options: Any = {"dtype": model.dtype, "device": model.device, "requires_grad": True}
    masks = {name: torch.ones(target.groups[name].size, **options) for name in groups}
    bars = progress or Progress(quiet=True)
    with frozen(model), torch.enable_grad(), bars.task("Fisher", total=len(batches)) as advance:

        def of_batch(batch: Mapping[str, Tensor]) -> list[Tensor]:
            with target.masked(masks):
                loss = _loss(model, to_model(batch, model))
            gradients = torch.autograd.grad(loss, list(masks.values()))
            advance()
            return [gradient.cpu() for gradient in gradients]

        found = ranks.each(batches, of_batch)
    # [batches, N] each
    gradients = {name: torch.stack(parts) for name, *parts in zip(groups, *found, strict=True)}
    return Scores({name: g.double().square().sum(0) for name, g in gradients.items()}, gradients=gradients)


def _loss(model: PreTrainedModel, batch: Mapping[str, Tensor]) -> Tensor:
    output, labels = model(**batch), batch.get("labels")
    loss: Tensor | None = getattr(output, "loss", None)
    if loss is None and labels is not None and getattr(output, "logits", None) is not None:
        # DeiT with a distillation token classifies, but leaves the loss to whoever distils.
        loss = cross_entropy(output.logits, labels) if labels.ndim == 1 else None
    if loss is None:
        raise DataError(
            f"fisher needs the loss of labelled examples, and {type(model).__name__} gives none for batches "
            f"of {', '.join(sorted(batch))}. Use a task with labels and a model with a head for it, or a "
            "method that needs no labels (optin, magnitude)."
        )
    return loss
