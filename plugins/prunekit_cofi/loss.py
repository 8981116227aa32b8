"""The training loss of CoFi's pruning stage, without the sparsity term."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from prunekit.pruning.units import Stack, sublayer_group
from prunekit.training.distill import counted_positions, logit_kl, predicted, record_block_outputs
from prunekit.training.layers import LayerTransform, layer_loss
from prunekit.training.loop import Batch
from prunekit.training.share import IGNORED, of_labels
from prunekit_cofi.config import CofiConfig

if TYPE_CHECKING:
    from prunekit.pruning.target import PrunableModel


def layer_transforms(student: PrunableModel) -> dict[str, LayerTransform]:
    """A new affine map for each of the student's stacks, by the stack's name."""
    # Read from a tensor: the configuration of a model whose hidden units were pruned holds the width before.
    output: Any = student.model.get_submodule(next(iter(student.structure.sublayers.values())).output)
    width = output.weight.shape[0]
    return {stack: LayerTransform(width) for stack in student.structure.stacks}


class CofiLoss:
    """Weighted sum of the KL term, the layer terms and the label loss.

    CoFi paper, section 3.2, on each stack of the model alike. The released code computes the layer term over
    all positions, padding included, and the KL term per example.

    Args:
        config: weights, matching, temperature.
        student: the model that trains under masks.
        teacher: the dense model, in evaluation mode.
        transforms: an affine map for each of the student's stacks, by the stack's name; see
            ``layer_transforms``. Not used where ``layer_weight`` is 0.
    """

    def __init__(
        self,
        config: CofiConfig,
        student: PrunableModel,
        teacher: PrunableModel,
        transforms: Mapping[str, nn.Module],
    ) -> None:
        self.config = config
        self.student = student
        self.teacher = teacher
        self.transforms = transforms

    def __call__(self, batch: Batch, masks: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor | float]]:
        """The loss, a scalar, and its unweighted terms.

        Args:
            batch: what both models take.
            masks: by group, those that the student runs under now; empty while nothing is masked. They say
                which blocks are alive.

        Raises:
            UnsupportedModelError: if the model has one output and the KL term has a weight.
        """
        config, model, teacher = self.config, self.student.model, self.teacher.model
        terms: dict[str, Tensor | float] = {}
        total = torch.zeros((), device=model.device)
        with record_block_outputs(self._recorded(self.student)) as own:
            output = model(**batch)
        if config.label_weight:
            terms["label"] = of_labels(output.loss, batch)
            total = total + config.label_weight * terms["label"]
        if not (config.prediction_weight or config.layer_weight):
            return total, terms
        with torch.no_grad(), record_block_outputs(self._recorded(self.teacher)) as theirs:
            expected = teacher(**batch)
        if config.prediction_weight:
            logits, targets = predicted(model, output, batch), predicted(teacher, expected, batch)
            counted = counted_positions(logits, batch.get("labels"))
            prediction = logit_kl(logits, targets, counted, temperature=config.temperature)
            terms["prediction"] = prediction
            total = total + config.prediction_weight * prediction
        if config.layer_weight:
            for name, term in self._layer_terms(batch, masks, own, theirs).items():
                terms[f"{name}_layer"] = term
                total = total + config.layer_weight * term
        return total, terms

    def _layer_terms(
        self, batch: Batch, masks: Mapping[str, Tensor], own: Sequence[Tensor], theirs: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        terms = {}
        for stack in self.student.structure.stacks.values():
            ours, own = own[: stack.depth], own[stack.depth :]
            depth = self.teacher.structure.stacks[stack.name].depth
            targets, theirs = theirs[:depth], theirs[depth:]
            terms[stack.name] = layer_loss(
                ours,
                targets,
                _positions(stack, batch, ours[0]),
                self.transforms[stack.name],
                living_blocks(self.student, stack, masks),
                self.config.layer_matching,
            )
        return terms

    def _recorded(self, target: PrunableModel) -> list[nn.Module]:
        """The blocks of every stack, in order; none if no layer term wants them."""
        if not self.config.layer_weight:
            return []
        stacks = target.structure.stacks.values()
        return [block for stack in stacks for block in target.model.get_submodule(stack.blocks).children()]


def _positions(stack: Stack, batch: Batch, state: Tensor) -> Tensor:
    """Which positions of a stack's states are not padding, ``[B, T]``."""
    labels, mask = batch.get("labels"), batch.get("attention_mask")
    if stack.name == "decoder" and labels is not None and labels.ndim == 2:
        return labels != IGNORED
    # An image has no padding. A decoder without target tokens (BART's other heads) reads the input again.
    return torch.ones(state.shape[:2], device=state.device) if mask is None else mask


def living_blocks(target: PrunableModel, stack: Stack, masks: Mapping[str, Tensor]) -> Tensor:
    """Whether any sublayer of each block is alive, bool ``[depth]`` on the model's device.

    A sublayer is dead if its own mask is 0, if the masks of all its units are, or if it was removed before.
    """
    device = target.model.device
    alive, removed = torch.ones((), dtype=torch.bool, device=device), torch.zeros((), device=device).bool()
    states = []
    for block in range(stack.depth):
        for role in stack.roles:
            sublayer = target.structure.sublayers.get(f"{stack.name}.{block}.{role}")
            state = alive if sublayer else removed
            if sublayer and sublayer.units.name in masks:
                state = masks[sublayer.units.name].any()
            whole = masks.get(sublayer_group(stack.name, role))
            states.append(state if whole is None else state & (whole[block] != 0))
    return torch.stack(states).view(stack.depth, -1).any(1)
