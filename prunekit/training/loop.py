"""The one training loop: fine-tuning, pruning and recovery all run through ``Trainer.fit``."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from torch.utils.data import DataLoader

from prunekit.errors import TrainingError
from prunekit.progress import Progress
from prunekit.training import checkpoints
from prunekit.training.batches import bucketed_batches, total_steps

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
    ) -> FitResult:
        """Train ``model`` in place and return how it went; the best eligible state is loaded at the end.

        Gradients of the model are clipped together; AdamW (betas 0.9, 0.999); the model's learning rate warms
        up and falls linearly to zero.

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

        Raises:
            TrainingError: if the loss is not finite.
        """
        state = _Stage(self, stage, model, task, spec, groups, {"model": model, **(modules or {})})
        state.resume()
        model.train()
        self.folder.mkdir(parents=True, exist_ok=True)
        with (
            state.log() as log,
            self.progress.task(stage, total=state.steps, start=state.done) as advance,
        ):
            for batches in state.updates():
                figures = state.update(batches, loss)
                if after_step:
                    after_step(state.done)
                due = assess_every and state.done % assess_every == 0
                if assess and (due or state.done == state.steps):
                    figures |= state.assess(assess)
                log.write(json.dumps({"stage": stage, "step": state.done, **figures}) + "\n")
                if state.done % spec.checkpoint_every == 0 or state.done == state.steps:
                    state.save()
                advance(1, loss=figures["loss"])
        model.eval()
        state.load_best()
        self.steps += state.done
        return FitResult(state.done, state.seconds(), state.best_step, state.best_rank, state.figures)


class _Stage:
    """The mutable state of one call of ``Trainer.fit``."""

    def __init__(
        self,
        trainer: Trainer,
        name: str,
        model: nn.Module,
        task: Task,
        spec: StageSpec,
        groups: Sequence[ParameterGroup],
        modules: Mapping[str, nn.Module],
    ) -> None:
        self.trainer, self.name, self.model, self.task, self.spec = trainer, name, model, task, spec
        self.modules = modules
        self.examples = task.examples("train")
        self.lengths = task.lengths("train")
        self.steps = total_steps(len(self.examples), spec)
        self.started, self.earlier_s = time.perf_counter(), 0.0
        self.done = 0
        self.best_step: int | None = None
        self.best_rank: tuple[float, ...] = ()
        self.figures: dict[str, float] = {}
        # The precision is process-wide in accelerate; each stage sets its own.
        AcceleratorState._reset_state()
        bf16 = use_bf16(spec.precision, trainer.device)
        self.accelerator = Accelerator(mixed_precision="bf16" if bf16 else "no")
        for module in modules.values():
            module.to(self.accelerator.device)
        self.trained = [p for p in model.parameters() if p.requires_grad]
        self.optimizer, self.own_groups = self._optimizer(groups)

    def _optimizer(self, groups: Sequence[ParameterGroup]) -> tuple[torch.optim.Optimizer, int]:
        decay = [p for p in self.trained if p.ndim > 1]
        rest = [p for p in self.trained if p.ndim <= 1]
        rate = self.spec.learning_rate
        options: list[dict[str, Any]] = [
            {"params": decay, "lr": rate, "weight_decay": self.spec.weight_decay},
            {"params": rest, "lr": rate, "weight_decay": 0.0},
        ]
        options += [
            {"params": list(g.parameters), "lr": g.learning_rate, "weight_decay": 0.0, "maximize": g.maximize}
            for g in groups
        ]
        optimizer = torch.optim.AdamW([o for o in options if o["params"]], lr=rate)
        return optimizer, sum(1 for o in options[:2] if o["params"])

    def seconds(self) -> float:
        """Wall seconds that the stage has taken, in this process and before it."""
        return self.earlier_s + time.perf_counter() - self.started

    def learning_rate(self) -> float:
        """The model's rate at this step: linear warm-up, then linear decay to zero."""
        warmup = round(self.spec.warmup_ratio * self.steps)
        rising = (self.done + 1) / (warmup + 1)
        falling = (self.steps - self.done) / max(1, self.steps - warmup)
        return self.spec.learning_rate * min(rising, falling, 1.0)

    def updates(self) -> Iterator[list[Batch]]:
        """Groups of micro-batches, one group an update, from the first update not yet done."""
        accumulate = self.spec.gradient_accumulation
        per_epoch = math.ceil(len(self.lengths) / self.spec.batch_size)
        seen = self.done * accumulate
        pending: list[Batch] = []
        while self.done < self.steps:
            epoch, skip = divmod(seen, per_epoch)
            batches = bucketed_batches(
                self.lengths, self.spec.batch_size, seed=self.trainer.seed, epoch=epoch
            )
            loader: Iterable[Batch] = DataLoader(
                self.examples,  # type: ignore[arg-type]
                batch_sampler=batches[skip:],
                collate_fn=self.task.collate,
                generator=torch.Generator(),  # else a resumed epoch draws one global random number more
            )
            for batch in loader:
                pending.append({name: t.to(self.accelerator.device) for name, t in batch.items()})
                seen += 1
                if len(pending) == accumulate:
                    yield pending
                    pending = []
                    if self.done >= self.steps:
                        return

    def update(self, batches: Sequence[Batch], loss: Loss) -> dict[str, float]:
        """One optimiser step over the micro-batches; the figures are their means."""
        sums: dict[str, float] = {}
        for batch in batches:
            with self.accelerator.autocast():
                value, figures = loss(batch, self.done)
            self.accelerator.backward(value / len(batches))
            for name, figure in {"loss": value, **figures}.items():
                number = figure.item() if isinstance(figure, Tensor) else figure
                sums[name] = sums.get(name, 0.0) + number / len(batches)
        norm = self.accelerator.clip_grad_norm_(self.trained, self.spec.max_grad_norm)
        sums["grad_norm"] = float(norm) if norm is not None else 0.0
        if not math.isfinite(sums["loss"] + sums["grad_norm"]):
            raise TrainingError(
                f"{self.name}: the loss is {sums['loss']:g} and its gradient's norm {sums['grad_norm']:g} at "
                f"step {self.done + 1} (terms: {sums}). The last checkpoint is kept. Lower learning_rate "
                f"({self.spec.learning_rate:g}) or use precision: fp32."
            )
        sums["learning_rate"] = self.learning_rate()
        for group in self.optimizer.param_groups[: self.own_groups]:
            group["lr"] = sums["learning_rate"]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.done += 1
        return sums

    def assess(self, assess: Callable[[int], Assessment]) -> dict[str, float]:
        """Evaluate, and keep this state if it is the best eligible one so far."""
        # Measuring must not change training: an evaluation that draws random numbers would.
        with checkpoints.random_state_kept():
            self.model.eval()
            found = assess(self.done)
            self.model.train()
        if found.eligible and (self.best_step is None or found.rank > self.best_rank):
            self.best_step, self.best_rank = self.done, found.rank
            checkpoints.save_tensors(self._path("best"), checkpoints.module_state(self.modules), {})
        self.figures = dict(found.figures)
        return self.figures

    def load_best(self) -> None:
        """Put the best eligible state back into the modules, if there is one."""
        if self.best_step is not None and self.best_step != self.done:
            tensors, _ = checkpoints.load_tensors(self._path("best"))
            checkpoints.load_module_state(self.modules, tensors)

    def _path(self, kind: str) -> Path:
        return self.trainer.folder / "checkpoints" / f"{self.name}-{kind}.safetensors"

    def save(self) -> None:
        """Write everything that resuming needs."""
        random_tensors, random_facts = checkpoints.random_state()
        tensors = checkpoints.module_state(self.modules) | checkpoints.optimizer_state(self.optimizer)
        facts = {
            "step": self.done,
            "seconds": self.seconds(),
            "best_step": self.best_step,
            "best_rank": self.best_rank,
            "figures": self.figures,
            "random": random_facts,
        }
        checkpoints.save_tensors(self._path("last"), tensors | random_tensors, facts)

    def resume(self) -> None:
        """Continue from the last checkpoint, or start with this run's seed."""
        path = self._path("last")
        if not path.exists():
            torch.manual_seed(self.trainer.seed)
            return
        tensors, facts = checkpoints.load_tensors(path)
        checkpoints.load_module_state(self.modules, tensors)
        checkpoints.load_optimizer_state(self.optimizer, tensors)
        self.done = facts["step"]
        self.earlier_s = facts["seconds"]
        self.trainer.earlier_s += self.earlier_s
        self.best_step = facts["best_step"]
        self.best_rank = tuple(facts["best_rank"])
        self.figures = facts["figures"]
        checkpoints.restore_random_state(tensors, facts["random"])

    def log(self) -> IO[str]:
        """The log, cut back to the steps that the checkpoint holds, opened for appending."""
        path = self.trainer.folder / "train.jsonl"
        if path.exists():
            rows = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
            kept = [r for r in rows if r["stage"] != self.name or r["step"] <= self.done]
            path.write_text("".join(json.dumps(row) + "\n" for row in kept))
        return path.open("a", buffering=1)


def task_loss(model: nn.Module) -> Loss:
    """The model's own loss on a batch."""

    def loss(batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor | float]]:
        return model(**batch).loss, {}

    return loss
