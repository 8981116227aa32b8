"""Distillation terms between a teacher and a pruned student, and the hooks that record what they compare.

Everything is computed in float32, whatever the precision of the models.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from prunekit.errors import UnsupportedModelError
from prunekit.outputs import predictions
from prunekit.training.share import IGNORED, weighted

Direction = Literal["forward", "reverse"]


def logit_kl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels_mask: Tensor,
    *,
    temperature: float,
    direction: Direction = "forward",
) -> Tensor:
    """Divergence between the softened predictions, averaged over the target tokens that are not padding.

    Hinton et al. 2015 (arXiv:1503.02531), with their factor ``temperature ** 2`` that keeps the gradient's
    size. The released NASH code sums over target positions, padding included, and divides by the batch size.

    Args:
        student_logits: ``[..., V]``, for instance ``[B, T, V]`` or, for one label per example, ``[B, V]``.
        teacher_logits: same shape.
        labels_mask: ``[...]``, nonzero where the position counts (``labels != -100``).
        temperature: above 0; higher softens both sides.
        direction: ``forward`` is KL(teacher || student), as in CoFi; ``reverse`` is KL(student || teacher),
            as written in the NASH paper.

    Returns:
        Scalar, at least 0 up to rounding; 0 if no position counts.

    Raises:
        UnsupportedModelError: if there is one output (a regression head): its softmax is 1 whatever it is.
    """
    if student_logits.shape[-1] == 1:
        raise UnsupportedModelError(
            "Distilling predictions compares probabilities, but this model has one output, a regression "
            "head, whose softmax is always 1: the term would be 0 whatever the student answers. Set its "
            "weight (prediction_weight, or recover.distill.logits) to 0 and train on the labels."
        )
    student = torch.log_softmax(student_logits.float() / temperature, dim=-1)
    teacher = torch.log_softmax(teacher_logits.float() / temperature, dim=-1)
    reference, other = (teacher, student) if direction == "forward" else (student, teacher)
    divergence = (reference.exp() * (reference - other)).sum(-1)  # [...]
    return temperature**2 * _masked_mean(divergence, labels_mask)


def predicted(model: nn.Module, output: Any, batch: Mapping[str, Tensor]) -> Tensor:
    """Return the predictions to distil, logits whose last axis is a distribution; see ``predictions``.

    Args:
        model: named in messages.
        output: what it gave.
        batch: what it was given.

    Raises:
        UnsupportedModelError: if the model predicts nothing.
    """
    found = predictions(output, batch)
    if found is None:
        raise UnsupportedModelError(
            f"{type(model).__name__} gives no logits, so there are no predictions to distil. Load the model "
            "with its task's head."
        )
    return found


def counted_positions(logits: Tensor, labels: Tensor | None) -> Tensor:
    """Where predictions count: the labelled tokens, or everywhere if a label belongs to a whole example.

    Args:
        logits: ``[B, T, V]``, ``[B, V]`` for one prediction an example, ``[B, 2, S]`` for start and end.
        labels: ``[B, T]`` with -100 where there is none, or anything else; none where a batch has no
            ``labels``, as for start and end.

    Returns:
        Bool, ``[B, T]``, ``[B]`` or ``[B, 2]``.
    """
    if logits.ndim == 3 and labels is not None and labels.ndim == 2:
        return labels != IGNORED
    return torch.ones(logits.shape[:-1], dtype=torch.bool, device=logits.device)


def hidden_mse(
    student_states: Sequence[Tensor],
    teacher_states: Sequence[Tensor],
    pairs: Sequence[tuple[int, int]],
    mask: Tensor,
) -> Tensor:
    """Squared distance of paired hidden states: mean over positions and width, summed over the pairs.

    The layer terms of the NASH paper, without their weight. Compare raw block outputs: the last hidden state
    that transformers reports for T5 has already passed the final norm.

    Args:
        student_states: one ``[B, T, D]`` per student block.
        teacher_states: one ``[B, T, D]`` per teacher block.
        pairs: (student block, teacher block) positions in the two lists, at least one.
        mask: ``[B, T]``, nonzero where the position is not padding.

    Returns:
        Scalar, at least 0; 0 if every position is padding.
    """
    terms = []
    for student_block, teacher_block in pairs:
        difference = student_states[student_block].float() - teacher_states[teacher_block].float()
        terms.append(_masked_mean(difference.square().mean(-1), mask))
    return torch.stack(terms).sum()


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    counts = mask != 0
    number = counts.sum()
    return weighted(values.masked_fill(~counts, 0).sum() / number.clamp_min(1), number)


@contextmanager
def record_block_outputs(modules: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """Record what each module puts out, while the context is open.

    Args:
        modules: blocks whose output is a hidden state, or a tuple that starts with one.

    Yields:
        One tensor per module, in the given order, still attached to the graph. A later forward pass replaces
        the entries of the list; an entry is an empty tensor until its module has run.
    """
    outputs = [torch.empty(0) for _ in modules]
    with ExitStack() as hooks:
        for position, module in enumerate(modules):
            hooks.enter_context(module.register_forward_hook(partial(_store_output, outputs, position)))
        yield outputs


def _store_output(
    outputs: list[Tensor], position: int, module: nn.Module, arguments: Any, output: Any
) -> None:
    outputs[position] = output[0] if isinstance(output, tuple) else output
