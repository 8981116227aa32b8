"""The training loss of NASH's pruning stage, without the sparsity term."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from prunekit.training.distill import hidden_mse, logit_kl, record_block_outputs
from prunekit.training.loop import Batch
from prunekit_nash.config import NashConfig

if TYPE_CHECKING:
    from prunekit.pruning.target import PrunableModel

IGNORED = -100


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
        config, labels = self.config, batch["labels"]
        targets = labels != IGNORED  # [B, T]
        terms: dict[str, Tensor | float] = {}
        total = labels.new_zeros((), dtype=torch.float32)
        with record_block_outputs(_blocks(self.student)) as own:
            logits = self.student.model(**batch).logits  # [B, T, V]
        if config.label_weight:
            pad = self.student.model.config.pad_token_id
            scored = torch.where(targets, labels, pad) if config.count_padding else labels
            terms["label"] = nn.functional.cross_entropy(logits.flatten(0, 1).float(), scored.flatten())
            total = total + config.label_weight * terms["label"]
        if self.teacher is None:
            return total, terms
        with torch.no_grad(), record_block_outputs(_blocks(self.teacher)) as theirs:
            expected = self.teacher.model(**batch).logits
        if config.prediction_weight:
            terms["prediction"] = logit_kl(
                logits, expected, targets, temperature=config.temperature, direction=config.kl_direction
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
            terms["decoder_hidden"] = hidden_mse(own[depth:], theirs[teacher_depth:], pairs, targets)
            total = total + config.decoder_hidden_weight * terms["decoder_hidden"]
        return total, terms


def _blocks(target: PrunableModel) -> list[nn.Module]:
    """Encoder blocks, then decoder blocks."""
    stacks = target.structure.stacks
    return [
        block
        for name in ("encoder", "decoder")
        for block in target.model.get_submodule(stacks[name].blocks).children()
    ]
