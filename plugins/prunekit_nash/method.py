"""NASH: shorten the decoder, learn which encoder units to drop, cut to the budget.

The decoder's blocks are chosen by a rule, or learned too (the ablation of the paper's table 3).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel

from prunekit.errors import BudgetError, UnsupportedModelError
from prunekit.method import MethodInfo
from prunekit.pruning.layers import select_layers
from prunekit.pruning.plan import PruningPlan
from prunekit.pruning.units import block_group, in_scope, sublayer_group
from prunekit_nash.config import DECODER_LAYERS, INFO, NashConfig

if TYPE_CHECKING:
    from prunekit.learned.goal import Goal
    from prunekit.pruning.target import PrunableModel
    from prunekit.recipe import BudgetSpec
    from prunekit.tasks.base import Task
    from prunekit.training.loop import Trainer
    from prunekit_nash.latency import Shape, TimedChoice


class Nash:
    """NASH on T5 and BART."""

    info: ClassVar[MethodInfo] = INFO
    Config: ClassVar[type[BaseModel]] = NashConfig

    def __init__(self, config: NashConfig) -> None:
        self.config = config

    def plan(self, target: PrunableModel, task: Task, budget: BudgetSpec, trainer: Trainer) -> PruningPlan:
        """Train a student under masks; keep what the masks kept.

        The student's decoder is shortened before, or learns under masks of its own what to lose.

        Under a latency budget the decoder's depth and the encoder's sparsity are chosen before, by time.

        Raises:
            UnsupportedModelError: if the model has no encoder and decoder.
            BudgetError: if the budget reaches beyond the encoder, the steps cannot reach it, no shape is as
                fast as it asks, or a milestone is not on the way.
            TrainingError: if the learned sparsity ends further from the target than ``sparsity_tolerance``.
        """
        # Imported here so that listing methods does not load torch.
        from prunekit.learned.reach import check_reachable
        from prunekit.learned.stage import MaskTraining
        from prunekit_nash.loss import StudentLoss

        config = self.config
        _check(target, budget, config)
        shape, timed = _shape(target, config, budget, trainer.folder)
        layers = _layers(target, config, shape)
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
        goals = _goals(student, config, budget, shape)
        if timed:
            # A run that cannot learn the chosen sparsity is refused before it leaves anything in its folder.
            examples = len(task.examples("train"))
            check_reachable(INFO.name, goals, student.structure, config, trainer.spec, examples)
            timed.save(trainer.folder)
        masks = MaskTraining(INFO.name, config, student, loss, task, trainer, goals).run()
        student.model.requires_grad_(True)
        target.take_weights(student, shortened)
        plan = PruningPlan.from_masks(masks, target.groups).merged(shortened)
        return timed.recorded(plan) if timed else plan


def _shape(
    target: PrunableModel, config: NashConfig, budget: BudgetSpec, folder: Path
) -> tuple[Shape, TimedChoice | None]:
    """What the recipe says to keep, or what a latency budget leaves, which comes with how it was chosen."""
    from prunekit_nash.latency import Shape, TimedChoice

    if budget.metric != "latency":
        return Shape(config.decoder_layers or DECODER_LAYERS, budget.share), None
    choice = TimedChoice.kept_or_made(target, config, budget, folder)
    return choice.shape, choice


def _layers(target: PrunableModel, config: NashConfig, shape: Shape) -> tuple[int, ...]:
    """The decoder blocks that the student has: all of them where the choice is learned."""
    depth = target.structure.stacks["decoder"].depth
    if config.selection == "auto" or config.selection == "auto-blocks":
        select_layers(depth, shape.decoder_layers)  # refuses more blocks than there are
        return tuple(range(depth))
    return select_layers(depth, shape.decoder_layers, config.selection)


def _goals(student: PrunableModel, config: NashConfig, budget: BudgetSpec, shape: Shape) -> list[Goal]:
    """The encoder's budget by heads and neurons; where it is learned, the decoder's depth by wholes."""
    from prunekit.learned.goal import Goal

    structure = student.structure
    costs = student.parameter_costs(budget.scope)
    units = tuple(structure.sublayers[name].units.name for name in costs)
    goals = [Goal("encoder", costs, units, shape.encoder_sparsity, budget.round_to)]
    decoder = structure.stacks["decoder"]
    if config.selection.startswith("auto") and shape.decoder_layers < decoder.depth:
        wholes = tuple(sublayer_group("decoder", role) for role in decoder.roles)
        goals.append(
            Goal(
                "decoder",
                student.parameter_costs(["decoder.*"]),
                wholes if config.selection == "auto" else (block_group("decoder"),),
                1 - shape.decoder_layers / decoder.depth,
            )
        )
    return goals


def _check(target: PrunableModel, budget: BudgetSpec, config: NashConfig) -> None:
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
            "shortened by decoder_layers, whatever the scope)."
        )
    if budget.metric == "macs":
        raise BudgetError(
            "nash counts its budget in params, not macs. Write budget.metric: params, or latency with a "
            "ratio of times."
        )
    if budget.round_to and not config.snap_to_budget:
        raise BudgetError(
            f"nash: without snap_to_budget each group loses what its own masks amount to, so widths are no "
            f"multiples of budget.round_to = {budget.round_to}. Leave out one of the two."
        )
    if budget.metric == "latency" and config.save_at:
        raise BudgetError(
            "nash: save_at names sparsities of the encoder, but a latency budget chooses that by time, with "
            "the decoder's depth. Write budget.sparsity and decoder_layers, or leave out save_at and run "
            "each ratio with `prunekit compare --sweep budget.ratio=...`."
        )
    if budget.metric == "latency" and config.selection == "auto":
        raise BudgetError(
            "nash: with selection: auto it is learned which sublayers of the decoder go, and they differ in "
            "time, so no shape can be chosen before training. Under a latency budget write selection: "
            "auto-blocks, or a rule such as uniform."
        )
