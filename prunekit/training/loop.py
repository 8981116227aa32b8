"""The one training loop: fine-tuning, pruning and recovery all run through ``Trainer.fit``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from prunekit import interrupts, ranks
from prunekit.progress import Progress
from prunekit.training import checkpoints, share
from prunekit.training.stage import Stage

if TYPE_CHECKING:
    from prunekit.recipe import StageSpec, TrainSpec
    from prunekit.tasks.base import Task

Batch = dict[str, Tensor]
"""What a task's ``collate`` gives, ``[B, ...]`` each."""
Loss = Callable[[Batch, int], tuple[Tensor, dict[str, Tensor | float]]]
"""``loss(batch, step)`` gives the scalar to minimise and figures for the log."""


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share a learning rate, beside the model's own.

    Args:
        parameters: the tensors to update; never part of the gradient clipping, which is the model's.
        learning_rate: constant over the run (mask logits and multipliers are not decayed).
        maximize: ascend instead of descend (Lagrange multipliers).
    """

    parameters: Sequence[nn.Parameter]
    learning_rate: float
    maximize: bool = False


@dataclass(frozen=True)
class Assessment:
    """What an evaluation during training found.

    Args:
        figures: numbers for the log.
        eligible: whether this state may become the best checkpoint.
        rank: higher is better, compared left to right.
    """

    figures: Mapping[str, float]
    eligible: bool = True
    rank: tuple[float, ...] = ()


@dataclass(frozen=True)
class Kept:
    """What of a step is kept beside what training itself needs.

    Args:
        figures: numbers for the log.
        states: by the name of a file in ``checkpoints/``, without the stage's, what to note in it beside the
            state of all modules.
    """

    figures: Mapping[str, float] = field(default_factory=dict)
    states: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass
class FitResult:
    """How a stage ended: updates done, wall seconds, the best checkpoint's step and rank.

    Seconds before an interruption count, as far as the checkpoint that training went on from knows of them.
    """

    steps: int
    seconds: float
    best_step: int | None = None
    best_rank: tuple[float, ...] = ()
    figures: dict[str, float] = field(default_factory=dict)


def use_bf16(precision: str, device: torch.device) -> bool:
    """Whether to train under bfloat16 autocast: if asked for, or ``auto`` on a GPU that has it."""
    if precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported()
    return precision == "bf16"


class Trainer:
    """Runs training stages of one run, each resumable from its last checkpoint.

    Args:
        folder: the run folder; the log goes to ``train.jsonl``, states to ``checkpoints/``.
        spec: the recipe's ``train`` section, for methods to train by.
        seed: decides data order, dropout and every sampled mask.
        progress: where to draw.

    Attributes:
        earlier_s: wall seconds that stages resumed here had taken in processes before this one.
        reused_s: wall seconds that results taken from other runs had taken there; methods add to it.
        steps: updates done by all stages so far, those before an interruption included.
        warnings: what a report should say of the training, a sentence each without its full stop; methods
            add to it.
        milestones: how each of a method's milestones fared (``prunekit.learned.milestones``).
        milestone: where it is set, methods train nothing, but take the state that was kept for it.
    """

    def __init__(
        self, folder: Path, spec: TrainSpec, *, seed: int = 0, progress: Progress | None = None
    ) -> None:
        self.folder = folder
        self.spec = spec
        self.seed = seed
        self.progress = progress or Progress(quiet=True)
        self.earlier_s = 0.0
        self.reused_s = 0.0
        self.steps = 0
        self.warnings: list[str] = []
        self.milestones: list[dict[str, Any]] = []
        self.milestone: float | None = None
        ranks.begin()
        self.device: torch.device = Accelerator().device

    @checkpoints.random_state_kept()
    def fit(
        self,
        stage: str,
        model: nn.Module,
        task: Task,
        spec: StageSpec,
        loss: Loss,
        *,
        groups: Sequence[ParameterGroup] = (),
        modules: Mapping[str, nn.Module] | None = None,
        after_step: Callable[[int], None] | None = None,
        assess: Callable[[int], Assessment] | None = None,
        assess_every: int | None = None,
        keep: Callable[[int], Kept] | None = None,
    ) -> FitResult:
        """Train ``model`` in place and return how it went; the best eligible state is loaded at the end.

        In several processes each computes its part of every batch. Gradients of the model are clipped
        together; AdamW (betas 0.9, 0.999); the model's learning rate warms up and falls linearly to zero. A
        signal that the program catches (``prunekit.interrupts``) ends training after the step at work, with
        its state saved.

        Args:
            stage: name of the stage, unique in the run.
            model: updated in place; parameters with ``requires_grad=False`` are left alone.
            task: gives training examples and batches.
            spec: epochs, batch size, rates.
            loss: see ``Loss``.
            groups: parameters outside the model, with their own rates.
            modules: modules outside the model whose state belongs to checkpoints.
            after_step: called after each update with the number of updates done.
            assess: called every ``assess_every`` updates and at the end.
            assess_every: updates; none means at the end only.
            keep: called after each update, after ``after_step``; what it says is kept at once.

        Raises:
            TrainingError: if the loss, one of its terms, a gradient or a state to be saved is not finite.
            Interrupted: if a signal asked for it.
        """
        accelerator = self._accelerator(spec.precision)
        state = Stage(
            self, stage, model, task, spec, groups, {"model": model, **(modules or {})}, accelerator
        )
        state.resume()
        loss = share.reduced(loss, state.modules.values(), state.own)
        model.train()
        with (
            state.log(),
            self.progress.task(stage, total=state.steps, start=state.done) as advance,
            interrupts.held(),
        ):
            if state.unjudged is not None:
                state.finish_step(state.unjudged, assess, assess_every)
            for batches in state.updates():
                figures = state.update(batches, loss)
                if after_step:
                    after_step(state.done)
                if keep:
                    figures |= state.keep(keep(state.done))
                state.finish_step(figures, assess, assess_every)
                advance(1, loss=figures["loss"])
        model.eval()
        state.load_best()
        self.steps += state.done
        return FitResult(state.done, state.seconds(), state.best_step, state.best_rank, state.figures)

    def _accelerator(self, precision: str) -> Accelerator:
        # The precision is process-wide in accelerate; each stage sets its own.
        AcceleratorState._reset_state()
        return Accelerator(mixed_precision="bf16" if use_bf16(precision, self.device) else "no")


def task_loss(model: nn.Module) -> Loss:
    """The model's own loss on a batch."""

    def loss(batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        return share.of_labels(model(**batch).loss, batch), {}

    return loss
