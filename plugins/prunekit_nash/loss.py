"""The training loss of NASH's pruning stage, without the sparsity term."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from prunekit.training.distill import (
    counted_positions,
    hidden_mse,
    logit_kl,
    predicted,
    record_block_outputs,
)
from prunekit.training.loop import Batch
from prunekit.training.share import IGNORED, of_labels, weighted
from prunekit_nash.config import NashConfig

if TYPE_CHECKING:
    from prunekit.pruning.target import PrunableModel


class StudentLoss:
    """Weighted sum of the KL term, the hidden-state terms and the label cross-entropy.

    NASH paper, section 4.3: ``KL + l_enc sum_i MSE_enc(i, i) + l_dec sum_i MSE_dec(i, S[i])``, where ``S[i]``
    is the teacher block that student block i was taken from. The released code computes the label
    cross-entropy alone.

    Args:
        config: weights, direction, temperature.
        student: the model that is trained.
        teacher: the dense model; unused, and may be none, where no term needs it.
        layers: ``S``, or all decoder blocks where the student has them all.
    """

    def __init__(
        self,
        config: NashConfig,
        student: PrunableModel,
        teacher: PrunableModel | None,
        layers: tuple[int, ...],
    ) -> None:
        self.config = config
        self.student = student
        self.teacher = teacher
        self.layers = layers

    def __call__(self, batch: Batch, masks: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor | float]]:
        """The loss, a scalar, and its unweighted terms; it asks nothing of the masks."""
        config, labels = self.config, batch.get("labels")
        terms: dict[str, Tensor | float] = {}
        total = torch.zeros((), device=self.student.model.device)
        with record_block_outputs(_blocks(self.student)) as own:
            output = self.student.model(**batch)
        if config.label_weight:
            terms["label"] = (
                of_labels(output.loss, batch) if labels is None else self._label_loss(output.logits, labels)
            )
            total = total + config.label_weight * terms["label"]
        if self.teacher is None:
            return total, terms
        with torch.no_grad(), record_block_outputs(_blocks(self.teacher)) as theirs:
            their_output = self.teacher.model(**batch)
        if config.prediction_weight:
            logits = predicted(self.student.model, output, batch)  # [B, T, V]
            terms["prediction"] = logit_kl(
                logits,
                predicted(self.teacher.model, their_output, batch),
                counted_positions(logits, labels),
                temperature=config.temperature,
                direction=config.kl_direction,
            )
            total = total + config.prediction_weight * terms["prediction"]
        depth = self.student.structure.stacks["encoder"].depth
        teacher_depth = self.teacher.structure.stacks["encoder"].depth
        if config.encoder_hidden_weight:
            pairs = [(i, i) for i in range(depth)]
            terms["encoder_hidden"] = hidden_mse(
                own[:depth], theirs[:teacher_depth], pairs, batch["attention_mask"]
            )
            total = total + config.encoder_hidden_weight * terms["encoder_hidden"]
        if config.decoder_hidden_weight:
            pairs = list(enumerate(self.layers))
            # A decoder without target tokens (BART's and T5's that mark answers) reads the input again.
            tokens = batch["attention_mask"] if labels is None else labels != IGNORED
            terms["decoder_hidden"] = hidden_mse(own[depth:], theirs[teacher_depth:], pairs, tokens)
            total = total + config.decoder_hidden_weight * terms["decoder_hidden"]
        return total, terms

    def _label_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        pad = self.student.model.config.pad_token_id
        scored = torch.where(labels != IGNORED, labels, pad) if self.config.count_padding else labels
        loss = nn.functional.cross_entropy(logits.flatten(0, 1).float(), scored.flatten())
        return weighted(loss, (scored != IGNORED).sum())


def _blocks(target: PrunableModel) -> list[nn.Module]:
    """Encoder blocks, then decoder blocks."""
    stacks = target.structure.stacks
    return [
        block
        for name in ("encoder", "decoder")
        for block in target.model.get_submodule(stacks[name].blocks).children()
    ]
