"""NASH: shorten the decoder, learn which encoder units to drop, cut to the budget.

The decoder's blocks are chosen by a rule, or learned too (the ablation of the paper's table 3).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel

from prunekit.errors import BudgetError, UnsupportedModelError
from prunekit.method import MethodInfo
from prunekit.pruning.layers import select_layers
from prunekit.pruning.plan import PruningPlan
from prunekit.pruning.units import block_group, in_scope, sublayer_group
from prunekit_nash.config import INFO, NashConfig

if TYPE_CHECKING:
    from prunekit.learned.goal import Goal
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
        """Train a student under masks; keep what the masks kept.

        The student's decoder is shortened before, or learns under masks of its own what to lose.

        Raises:
            UnsupportedModelError: if the model has no encoder and decoder.
            BudgetError: if the budget reaches beyond the encoder, or the steps cannot reach it.
            TrainingError: if the learned sparsity ends further from the target than ``sparsity_tolerance``.
        """
        # Imported here so that listing methods does not load torch.
        from prunekit.learned.stage import MaskTraining
        from prunekit_nash.loss import StudentLoss

        config = self.config
        _check(target, budget)
        layers = _layers(target, config)
        depth = target.structure.stacks["decoder"].depth
        shortened = PruningPlan(keep={"decoder.blocks": layers} if len(layers) < depth else {})
        student = target.pruned(shortened)
        distils = config.prediction_weight or config.encoder_hidden_weight or config.decoder_hidden_weight
        teacher = target.copy() if distils else None
        if teacher is not None:
            teacher.model.to(trainer.device).eval().requires_grad_(False)
        if config.freeze_embeddings:
            student.model.get_input_embeddings().requires_grad_(False)
        loss = StudentLoss(config, student, teacher, layers)
        goals = _goals(student, config, budget)
        masks = MaskTraining(INFO.name, config, student, loss, task, trainer, goals).run()
        student.model.requires_grad_(True)
        target.take_weights(student, shortened)
        return PruningPlan.from_masks(masks, target.groups).merged(shortened)


def _layers(target: PrunableModel, config: NashConfig) -> tuple[int, ...]:
    """The decoder blocks that the student has: all of them where the choice is learned."""
    depth = target.structure.stacks["decoder"].depth
    if config.selection == "auto" or config.selection == "auto-blocks":
        select_layers(depth, config.decoder_layers)  # refuses more blocks than there are
        return tuple(range(depth))
    return select_layers(depth, config.decoder_layers, config.selection)


def _goals(student: PrunableModel, config: NashConfig, budget: BudgetSpec) -> list[Goal]:
    """The encoder's budget by heads and neurons; where it is learned, the decoder's depth by wholes."""
    from prunekit.learned.goal import Goal

    structure = student.structure
    costs = student.parameter_costs(budget.scope)
    units = tuple(structure.sublayers[name].units.name for name in costs)
    goals = [Goal("encoder", costs, units, budget.sparsity)]
    decoder = structure.stacks["decoder"]
    if config.selection.startswith("auto") and config.decoder_layers < decoder.depth:
        wholes = tuple(sublayer_group("decoder", role) for role in decoder.roles)
        goals.append(
            Goal(
                "decoder",
                student.parameter_costs(["decoder.*"]),
                wholes if config.selection == "auto" else (block_group("decoder"),),
                1 - config.decoder_layers / decoder.depth,
            )
        )
    return goals


def _check(target: PrunableModel, budget: BudgetSpec) -> None:
    if set(target.structure.stacks) != {"encoder", "decoder"}:
        raise UnsupportedModelError(
            f"nash shortens a decoder and narrows an encoder; {type(target.model).__name__} has only "
            f"{', '.join(target.structure.stacks)}. Use an encoder-decoder model (T5, BART)."
        )
    outside = [
        name
        for name, group in target.groups.items()
        if group.kind in ("head", "neuron")
        and not name.startswith("encoder.")
        and in_scope(name, budget.scope)
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
