"""The pruning stage: weights and mask logits trained together under a sparsity constraint."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from prunekit.errors import BudgetError, TrainingError
from prunekit.pruning.budget import keep_by_score
from prunekit.pruning.cost import sparsity
from prunekit.training import l0
from prunekit.training.batches import total_steps
from prunekit.training.loop import Assessment, Batch, ParameterGroup, Trainer
from prunekit_nash.config import NashConfig

if TYPE_CHECKING:
    from prunekit.pruning.target import PrunableModel
    from prunekit.recipe import BudgetSpec
    from prunekit.tasks.base import Task
    from prunekit_nash.loss import StudentLoss


class MaskTraining:
    """One run of the pruning stage.

    Args:
        config: NASH's settings.
        student: the shortened model, trained in place.
        student_loss: everything of the loss but the sparsity term.
        task: training and validation data.
        budget: encoder sparsity.
        trainer: runs it.
    """

    def __init__(
        self,
        config: NashConfig,
        student: PrunableModel,
        student_loss: StudentLoss,
        task: Task,
        budget: BudgetSpec,
        trainer: Trainer,
    ) -> None:
        self.config, self.student, self.student_loss = config, student, student_loss
        self.task, self.budget, self.trainer = task, budget, trainer
        self.costs = student.parameter_costs(budget.scope)
        groups = student.groups
        self.names = [student.structure.sublayers[name].units.name for name in self.costs]
        self.masks = l0.L0Masks(
            {name: (groups[name].size, groups[name].kind) for name in self.names},
            droprate_init=config.droprate_init,
            generator=torch.Generator().manual_seed(trainer.seed),
        ).to(trainer.device)
        self.size = l0.ExpectedSize(
            [
                l0.SublayerCost(student.structure.sublayers[name].units.name, c.units, c.unit, c.fixed)
                for name, c in self.costs.items()
            ],
            count=config.size,
            device=trainer.device,
        )
        self.steps = total_steps(len(task.examples("train")), trainer.spec)
        self.warmup = int(config.sparsity_warmup * self.steps)
        start = self.expected_sparsity() if config.start_from_current else 0.0
        self.lagrangian = l0.Lagrangian(budget.sparsity, self.warmup, start=min(start, budget.sparsity))

    def expected_sparsity(self) -> float:
        """Sparsity that the mask probabilities amount to."""
        with torch.no_grad():
            return float(self.size.sparsity(self.masks.probabilities()))

    def run(self) -> dict[str, Tensor]:
        """Train, and give the final masks by group."""
        self._check_reachable()
        spec, trainer = self.trainer.spec, self.trainer
        if self.config.prepruning_epochs:
            before = spec.model_copy(update={"epochs": self.config.prepruning_epochs, "max_steps": None})
            trainer.fit("prepruning", self.student.model, self.task, before, self._loss_without_masks)
        rate = spec.mask_learning_rate
        result = trainer.fit(
            "prune",
            self.student.model,
            self.task,
            spec,
            self._loss,
            groups=[
                ParameterGroup(list(self.masks.parameters()), rate),
                ParameterGroup(list(self.lagrangian.parameters()), rate, maximize=True),
            ],
            modules={"masks": self.masks, "lagrangian": self.lagrangian},
            after_step=lambda step: self.masks.clamp_(),
            assess=self._assess,
            assess_every=spec.eval_every,
        )
        masks = self.final_masks()
        if result.best_step is None:
            raise TrainingError(self._missed(self._learned(masks)))
        return {name: mask.cpu() for name, mask in masks.items()}

    def _missed(self, reached: float) -> str:
        wanted, rate = self.budget.sparsity, self.trainer.spec.mask_learning_rate
        return (
            f"nash: the encoder's sparsity ended at {reached:.4f}, {abs(reached - wanted):.4f} "
            f"{'above' if reached > wanted else 'below'} the target of {wanted:g} and outside the tolerance "
            f"of {self.config.sparsity_tolerance:g}, and no evaluation after the warm-up (step {self.warmup} "
            f"of {self.steps}) was inside it. Train longer (train.epochs), raise train.mask_learning_rate "
            f"(now {rate:g}), shorten sparsity_warmup (now {self.config.sparsity_warmup:g}), or evaluate "
            "more often (train.eval_every)."
            + ("" if self.config.snap_to_budget else " With snap_to_budget the cut meets it to one unit.")
        )

    def _check_reachable(self) -> None:
        with torch.no_grad():
            lowest = {name: torch.full_like(p, l0.MIN_LOGIT) for name, p in self._logits().items()}
            cap = float(self.size.sparsity({n: l0.probability_open(p) for n, p in lowest.items()}))
        if self.budget.sparsity > cap:
            raise BudgetError(
                f"nash: a sparsity of {self.budget.sparsity:g} cannot be learned; with every mask at its "
                f"lower limit the expected sparsity is {cap:.4f}. Ask for at most {int(cap * 100) / 100:g}."
            )
        rate = self.trainer.spec.mask_learning_rate
        needed = l0.steps_to_reach(rate)
        if self.budget.sparsity and needed > self.steps:
            raise BudgetError(
                f"nash: {self.steps} training steps at a mask learning rate of {rate:g} cannot close a mask; "
                f"it takes at least {needed}. Raise train.epochs or train.mask_learning_rate (the paper's "
                "0.01 needs several hundred steps, 0.1 some tens)."
            )

    def _loss_without_masks(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        return self.student_loss(batch)

    def _loss(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        with self.student.masks(self.masks.sample()):
            loss, terms = self.student_loss(batch)
        expected = self.size.sparsity(self.masks.probabilities())
        penalty = self.lagrangian.penalty(expected, step)
        figures: dict[str, Tensor | float] = {
            **terms,
            "sparsity": expected,
            "target": self.lagrangian.target_at(step),
            "lambda_1": self.lagrangian.lambda_1,
            "lambda_2": self.lagrangian.lambda_2,
        }
        return loss + penalty, figures

    def _logits(self) -> dict[str, Tensor]:
        return {name: self.masks.log_alpha(name).detach() for name in self.names}

    def final_masks(self) -> dict[str, Tensor]:
        """Masks of the cut: to the budget by logits, or rounded group by group."""
        if not self.config.snap_to_budget:
            return self.masks.deterministic(self.config.final_mask)
        logits = self._logits()
        keep = keep_by_score(logits, self.costs, self.student.structure, self.budget.sparsity)
        masks = {}
        for name, kept in keep.items():
            index = torch.tensor(kept, dtype=torch.long, device=logits[name].device)
            soft = torch.sigmoid(l0.EVALUATION_GAIN / l0.TEMPERATURE * logits[name][index])
            values = soft if self.config.final_mask == "soft" else torch.ones_like(soft)
            masks[name] = torch.zeros_like(logits[name]).index_copy(0, index, values)
        return masks

    def _assess(self, step: int) -> Assessment:
        if step < self.warmup:
            return Assessment({}, eligible=False)
        masks = self.final_masks()
        with self.student.masks(masks):
            found = self.task.evaluate(
                self.student.model, "validation", batch_size=128, limit=self.config.validation_limit
            )
        realised = self._realised(masks)
        eligible = abs(self._learned(masks) - self.budget.sparsity) <= self.config.sparsity_tolerance
        primary = found[self.task.primary_metric]
        rank = (primary if self.task.higher_is_better else -primary, realised)
        return Assessment({**found, "realised_sparsity": realised}, eligible, rank)

    def _realised(self, masks: dict[str, Tensor]) -> float:
        keep = {name: mask.nonzero().flatten().tolist() for name, mask in masks.items()}
        return sparsity(self.costs, self.student.structure, keep)

    def _learned(self, masks: dict[str, Tensor]) -> float:
        # Snapping may close a small gap; it must not hide that the masks never learned the target.
        return self.expected_sparsity() if self.config.snap_to_budget else self._realised(masks)
