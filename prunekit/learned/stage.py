"""The training stage of methods that learn masks: weights and logits together, under sparsity constraints."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from prunekit.errors import TrainingError
from prunekit.learned.config import LearnedMasksConfig
from prunekit.learned.drift import drift_warnings
from prunekit.learned.goal import Goal, labelled
from prunekit.learned.milestones import (
    STAGE,
    Milestones,
    check_milestones,
    load_state,
    milestones,
    missed_warnings,
)
from prunekit.learned.reach import check_reachable
from prunekit.learned.snap import rounded_masks, snapped_masks
from prunekit.pruning.cost import sparsity
from prunekit.training import l0
from prunekit.training.batches import total_steps
from prunekit.training.lagrangian import Lagrangian
from prunekit.training.log import read_rows
from prunekit.training.loop import Assessment, Batch, ParameterGroup, Trainer

if TYPE_CHECKING:
    from prunekit.pruning.target import PrunableModel
    from prunekit.tasks.base import Task

StudentLoss = Callable[[Batch, Mapping[str, Tensor]], tuple[Tensor, dict[str, Tensor | float]]]
"""``loss(batch, masks)`` gives the loss without the sparsity terms, and its terms for the log.

The masks are those that the model runs under in this step, ``[N]`` by group; none while nothing is masked.
"""


class MaskTraining:
    """One run of the stage: one set of masks, and a pair of multipliers for each goal.

    Args:
        method: name of the method, for messages.
        config: how masks are learned and cut.
        student: trained in place.
        loss: everything of the loss but the sparsity terms.
        task: training and validation data.
        trainer: runs it.
        goals: what to reach; no group of masks belongs to two of them.
        extra: modules that are trained with the model, at its learning rate, and are in its checkpoints.
    """

    def __init__(
        self,
        method: str,
        config: LearnedMasksConfig,
        student: PrunableModel,
        loss: StudentLoss,
        task: Task,
        trainer: Trainer,
        goals: Sequence[Goal],
        extra: Mapping[str, nn.Module] | None = None,
    ) -> None:
        self.method, self.config, self.student, self.student_loss = method, config, student, loss
        self.task, self.trainer, self.goals = task, trainer, tuple(goals)
        self.model = nn.ModuleDict({"model": student.model, **extra}) if extra else student.model
        groups = student.groups
        self.masks = l0.L0Masks(
            {name: (groups[name].size, groups[name].kind) for goal in goals for name in goal.masks},
            droprate_init=config.droprate_init,
            generator=torch.Generator().manual_seed(trainer.seed),
        ).to(trainer.device)
        self.sizes = [
            goal.expected_size(student.structure, config.count, trainer.device) for goal in self.goals
        ]
        self.examples = len(task.examples("train"))
        self.steps = total_steps(self.examples, trainer.spec)
        self.warmup = int(config.sparsity_warmup * self.steps)
        self.lagrangians = [
            Lagrangian(
                goal.sparsity,
                self.warmup,
                start=min(start, goal.sparsity),
                lambda_2=config.initial_lambda_2,
            )
            for goal, start in zip(
                self.goals,
                self.expected_sparsities() if config.start_from_current else [0.0] * len(self.goals),
                strict=True,
            )
        ]

    def expected_sparsities(self) -> list[float]:
        """The sparsity that the masks' probabilities amount to, for each goal."""
        with torch.no_grad():
            probabilities = self.masks.probabilities()
            return [float(size.sparsity(probabilities)) for size in self.sizes]

    def run(self) -> dict[str, Tensor]:
        """Train, and give the final masks by group, ``[N]``, on the CPU.

        What a report should say of how it went is added to the trainer's warnings and milestones. Where the
        trainer asks for a milestone, its state is taken and cut to it, and nothing is trained.

        Raises:
            BudgetError: before anything is trained, if the goals cannot be reached, or a milestone is not on
                the way to them.
            TrainingError: if no evaluation found every goal's sparsity within the tolerance.
            CheckpointError: if the state of a milestone is missing or damaged.
        """
        spec, trainer = self.trainer.spec, self.trainer
        if trainer.milestone is not None:
            return self._at(trainer.milestone)
        starts = [lagrangian.start for lagrangian in self.lagrangians]
        check_milestones(self.method, self.goals, starts, self.config)
        check_reachable(self.method, self.goals, self.student.structure, self.config, spec, self.examples)
        if self.config.prepruning_epochs:
            before = spec.model_copy(update={"epochs": self.config.prepruning_epochs, "max_steps": None})
            trainer.fit("prepruning", self.model, self.task, before, self._loss_without_masks)
        rate = spec.mask_learning_rate
        multipliers = [p for lagrangian in self.lagrangians for p in lagrangian.parameters()]
        result = trainer.fit(
            STAGE,
            self.model,
            self.task,
            spec,
            self._loss,
            groups=[
                ParameterGroup(list(self.masks.parameters()), rate),
                ParameterGroup(multipliers, rate, maximize=True),
            ],
            modules={
                "masks": self.masks,
                **{
                    labelled(self.goals, goal, "lagrangian"): lagrangian
                    for goal, lagrangian in zip(self.goals, self.lagrangians, strict=True)
                },
            },
            after_step=lambda step: self.masks.clamp_(),
            assess=self._assess,
            assess_every=spec.eval_every,
            keep=self._milestones().after if self.config.save_at else None,
        )
        masks = self.final_masks()
        if result.best_step is None:
            raise TrainingError(self._missed(masks))
        steps = [row for row in read_rows(trainer.folder) if row["stage"] == STAGE]
        trainer.warnings += drift_warnings(steps, self.goals, tolerance=self.config.sparsity_tolerance)
        fared = milestones(steps, self.config)
        trainer.milestones += [each._asdict() for each in fared]
        trainer.warnings += missed_warnings(fared, self.config)
        return {name: mask.cpu() for name, mask in masks.items()}

    def _milestones(self) -> Milestones:
        """What asks after each step which of them are met."""

        def reached() -> float:
            if self.config.snap_to_budget:
                return self.expected_sparsities()[0]
            return self._realised(self.final_masks())[0]

        return Milestones(self.trainer.folder, self.config, self.lagrangians[0].target_at, reached)

    def _at(self, sparsity: float) -> dict[str, Tensor]:
        """The masks of a milestone, whose weights are put into the model."""
        load_state(self.trainer.folder, sparsity, {"model": self.model, "masks": self.masks})
        self.goals = (replace(self.goals[0], sparsity=sparsity),)
        return {name: mask.cpu() for name, mask in self.final_masks().items()}

    def _loss_without_masks(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        return self.student_loss(batch, {})

    def _loss(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        masks = self.masks.sample()
        with self.student.masked(masks):
            loss, figures = self.student_loss(batch, masks)
        probabilities = self.masks.probabilities()
        figures = dict(figures)
        for goal, size, lagrangian in zip(self.goals, self.sizes, self.lagrangians, strict=True):
            expected = size.sparsity(probabilities)
            loss = loss + lagrangian.penalty(expected, step)
            found: dict[str, Tensor | float] = {
                "sparsity": expected,
                "target": lagrangian.target_at(step),
                "lambda_1": lagrangian.lambda_1,
                "lambda_2": lagrangian.lambda_2,
            }
            figures |= {labelled(self.goals, goal, name): figure for name, figure in found.items()}
        return loss, figures

    def final_masks(self) -> dict[str, Tensor]:
        """Masks of the cut: to each goal's budget, or every group rounded by itself."""
        final, structure = self.config.final_mask, self.student.structure
        if not self.config.snap_to_budget:
            return rounded_masks(self.masks, final)
        masks: dict[str, Tensor] = {}
        for goal in self.goals:
            masks |= snapped_masks(goal, self.masks, structure, final)
        return masks

    def _assess(self, step: int) -> Assessment:
        if step < self.warmup:
            return Assessment({}, eligible=False)
        masks = self.final_masks()
        with self.student.masked(masks):
            found = self.task.evaluate(
                self.student.model, "validation", batch_size=128, limit=self.config.validation_limit
            ).metrics
        realised = self._realised(masks)
        figures = {
            labelled(self.goals, goal, "realised_sparsity"): figure
            for goal, figure in zip(self.goals, realised, strict=True)
        }
        primary = found[self.task.primary_metric]
        rank = (primary if self.task.higher_is_better else -primary, sum(realised))
        return Assessment({**found, **figures}, not self._outside(masks), rank)

    def _realised(self, masks: Mapping[str, Tensor]) -> list[float]:
        keep = {name: mask.nonzero().flatten().tolist() for name, mask in masks.items()}
        return [sparsity(goal.costs, self.student.structure, keep) for goal in self.goals]

    def _outside(self, masks: Mapping[str, Tensor]) -> list[tuple[Goal, float]]:
        """Goals whose learned sparsity is outside the tolerance, with that sparsity."""
        # Snapping may close a small gap; it must not hide that the masks never learned the target.
        learned = self.expected_sparsities() if self.config.snap_to_budget else self._realised(masks)
        return [
            (goal, reached)
            for goal, reached in zip(self.goals, learned, strict=True)
            if not abs(reached - goal.sparsity) <= self.config.sparsity_tolerance
        ]

    def _missed(self, masks: Mapping[str, Tensor]) -> str:
        config = self.config
        ends = "; ".join(
            f"the {goal.name}'s sparsity ended at {reached:.4f}, {abs(reached - goal.sparsity):.4f} "
            f"{'above' if reached > goal.sparsity else 'below'} the target of {goal.sparsity:g}"
            for goal, reached in self._outside(masks)
        )
        return (
            f"{self.method}: {ends} and outside the tolerance of {config.sparsity_tolerance:g}, and no "
            f"evaluation after the warm-up (step {self.warmup} of {self.steps}) was inside it. Train longer "
            f"(train.epochs), raise train.mask_learning_rate (now {self.trainer.spec.mask_learning_rate:g}), "
            f"shorten sparsity_warmup (now {config.sparsity_warmup:g}), evaluate more often "
            f"(train.eval_every), or outweigh the task's loss with a larger initial_lambda_2 (now "
            f"{config.initial_lambda_2:g})."
            + ("" if config.snap_to_budget else " With snap_to_budget the cut meets it to one unit.")
        )
