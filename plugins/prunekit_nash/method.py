"""NASH: shorten the decoder, learn which encoder units to drop, cut to the budget."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel

from prunekit.errors import BudgetError, UnsupportedModelError
from prunekit.method import MethodInfo
from prunekit.pruning.layers import select_layers
from prunekit.pruning.plan import PruningPlan
from prunekit.pruning.units import in_scope
from prunekit_nash.config import INFO, NashConfig

if TYPE_CHECKING:
    from prunekit.pruning.target import PrunableModel
    from prunekit.recipe import BudgetSpec
    from prunekit.tasks.base import Task
    from prunekit.training.loop import Trainer


class Nash:
    """NASH on T5 and BART."""

    info: ClassVar[MethodInfo] = INFO
    Config: ClassVar[type[BaseModel]] = NashConfig

    def __init__(self, config: NashConfig) -> None:
        self.config = config

    def plan(self, target: PrunableModel, task: Task, budget: BudgetSpec, trainer: Trainer) -> PruningPlan:
        """Train a shortened student under masks; keep what the masks kept.

        Raises:
            UnsupportedModelError: if the model has no encoder and decoder.
            BudgetError: if the budget reaches beyond the encoder, or the steps cannot reach it.
            TrainingError: if the learned sparsity ends further from the target than ``sparsity_tolerance``.
        """
        # Imported here so that listing methods does not load torch.
        from prunekit_nash.loss import StudentLoss
        from prunekit_nash.stage import MaskTraining

        config = self.config
        _check(target, budget)
        depth = target.structure.stacks["decoder"].depth
        layers = select_layers(depth, config.decoder_layers, config.selection)
        shortened = PruningPlan(keep={"decoder.blocks": layers} if len(layers) < depth else {})
        student = target.pruned(shortened)
        distils = config.prediction_weight or config.encoder_hidden_weight or config.decoder_hidden_weight
        teacher = target.copy() if distils else None
        if teacher is not None:
            teacher.model.to(trainer.device).eval().requires_grad_(False)
        if config.freeze_embeddings:
            student.model.get_input_embeddings().requires_grad_(False)
        loss = StudentLoss(config, student, teacher, layers)
        masks = MaskTraining(config, student, loss, task, budget, trainer).run()
        student.model.requires_grad_(True)
        target.take_weights(student, shortened)
        return PruningPlan.from_masks(masks, target.groups).merged(shortened)


def _check(target: PrunableModel, budget: BudgetSpec) -> None:
    if set(target.structure.stacks) != {"encoder", "decoder"}:
        raise UnsupportedModelError(
            f"nash shortens a decoder and narrows an encoder; {type(target.model).__name__} has only "
            f"{', '.join(target.structure.stacks)}. Use an encoder-decoder model (T5, BART)."
        )
    outside = [
        name
        for name, group in target.groups.items()
        if group.slices and not name.startswith("encoder.") and in_scope(name, budget.scope)
    ]
    if outside:
        raise BudgetError(
            f"nash learns masks for the encoder only, but the budget's scope includes {outside[0]} and "
            f"{len(outside) - 1} more outside it. Write budget.scope: ['encoder.*'] (the decoder is "
            "shortened by decoder_layers, whatever the budget)."
        )
    if budget.metric != "params":
        raise BudgetError(
            f"nash counts its budget in params, not {budget.metric}. Write budget.metric: params."
        )
