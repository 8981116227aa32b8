"""One stage of training: its updates, what is saved of it, and how it goes on after an interruption."""

from __future__ import annotations

import math
import os
import signal as signals
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader

from prunekit import interrupts, ranks
from prunekit.errors import CheckpointError, TrainingError
from prunekit.files import writing
from prunekit.training import checkpoints, guards, share
from prunekit.training.batches import bucketed_batches, total_steps
from prunekit.training.log import TrainingLog

if TYPE_CHECKING:
    from prunekit.recipe import StageSpec
    from prunekit.tasks.base import Task
    from prunekit.training.loop import Assessment, Batch, Kept, Loss, ParameterGroup, Trainer


class Stage:
    """The mutable state of one call of ``Trainer.fit``, whose arguments these are.

    Attributes:
        steps: updates that the stage has.
        done: updates done.
        unjudged: figures of the last update where an interruption came before its assessment, else none.
    """

    def __init__(
        self,
        trainer: Trainer,
        name: str,
        model: nn.Module,
        task: Task,
        spec: StageSpec,
        groups: Sequence[ParameterGroup],
        modules: Mapping[str, nn.Module],
        accelerator: Accelerator,
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
        self.unjudged: dict[str, float] | None = None
        self.saved: int | None = None
        self.accelerator = accelerator
        for module in modules.values():
            module.to(self.accelerator.device)
        self.trained = [p for p in model.parameters() if p.requires_grad]
        self.own = [p for group in groups for p in group.parameters]
        self.named = guards.parameters(modules)
        known = {id(p) for _, p in self.named}
        self.named += [(f"groups.{n}", p) for n, p in enumerate(self.own) if id(p) not in known]
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
                batch_sampler=[ranks.dealt(batch) for batch in batches[skip:]],
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
            with share.reducing(loss, last=batch is batches[-1]):
                with self.accelerator.autocast():
                    value, figures = loss(batch, self.done)
                self.accelerator.backward(value / len(batches))
            for name, figure in {"loss": value, **figures}.items():
                number = figure.item() if isinstance(figure, Tensor) else figure
                sums[name] = sums.get(name, 0.0) + number / len(batches)
        sums = share.averaged(sums)
        # The norm before the clipping: clipping by a norm that is NaN would leave no gradient to look at.
        norm = guards.gradient_norm(self.trained)
        self._check_step(sums, float(norm), batches)
        torch.nn.utils.clip_grads_with_norm_(self.trained, self.spec.max_grad_norm, norm)
        sums["grad_norm"] = float(norm)
        sums["learning_rate"] = self.learning_rate()
        for group in self.optimizer.param_groups[: self.own_groups]:
            group["lr"] = sums["learning_rate"]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.done += 1
        return sums

    def _check_step(self, figures: Mapping[str, float], norm: float, batches: Sequence[Batch]) -> None:
        found = guards.symptom(figures, norm, float(guards.gradient_norm(self.own)))
        if found is not None:
            # Of several processes one may have had the data that broke it.
            places = ranks.gathered(guards.place(self.named, batches))
            told = next((place for place in places if guards.IN_DATA in place), places[0])
            raise TrainingError(f"{self.name}: at step {self.done + 1} {found}. {told} {self._advice()}")

    def _check_state(self) -> None:
        """Let no state be saved that is not finite."""
        learned = {id(p) for p in (*self.trained, *self.own)}
        found = guards.first_bad((name, p) for name, p in self.named if id(p) in learned)
        if found is not None:
            raise TrainingError(
                f"{self.name}: after step {self.done} the weights are not finite and were not saved. "
                f"{found}. {self._advice()}"
            )

    def _advice(self) -> str:
        kept = "No state of this stage was saved before."
        if self.saved is not None:
            kept = f"The state after step {self.saved} is kept in checkpoints/{self._path('last').name}."
        bf16 = self.accelerator.mixed_precision == "bf16"
        return guards.advice(self.spec, kept, bf16=bf16, masks=bool(self.own))

    def finish_step(
        self, figures: dict[str, float], assess: Callable[[int], Assessment] | None, every: int | None
    ) -> None:
        """Assess and save if it is time, and log the step.

        Args:
            figures: of the update.
            assess: see ``Trainer.fit``.
            every: likewise.

        Raises:
            Interrupted: if a signal asked to stop; the state is saved.
        """
        last = self.done == self.steps
        if assess is not None and (last or (every and self.done % every == 0)):
            try:
                figures = figures | self.assess(assess)
            except interrupts.Interrupted as stop:
                self.save(unjudged=figures)
                raise self._stopped(stop) from None
        self._log.add(self.done, figures)
        # Whichever process was told: all have to stop after the same step.
        signal = ranks.greatest(interrupts.asked() or 0)
        if signal or last or self.done % self.spec.checkpoint_every == 0:
            self.save()
        if signal:
            raise self._stopped(interrupts.Interrupted(signals.Signals(signal)))

    def _stopped(self, stop: interrupts.Interrupted) -> interrupts.Interrupted:
        saved = f" after step {self.done} of {self.steps} of {self.name}, whose state is saved"
        return interrupts.Interrupted(stop.received, saved)

    def assess(self, assess: Callable[[int], Assessment]) -> dict[str, float]:
        """Evaluate, and keep this state if it is the best eligible one so far."""
        # Measuring must not change training: an evaluation that draws random numbers would.
        with checkpoints.random_state_kept():
            self.model.eval()
            # Several processes answer together, so that none may leave in the middle.
            with interrupts.let_through() if ranks.count() == 1 else nullcontext():
                found = assess(self.done)
            self.model.train()
        if found.eligible and (self.best_step is None or found.rank > self.best_rank):
            self._check_state()
            self.best_step, self.best_rank = self.done, found.rank
            tensors = checkpoints.module_state(self.modules)
            # Beside the best state that the last checkpoint speaks of: a crash before the next one needs it.
            checkpoints.save_tensors(self._path("next"), tensors, {"step": self.done})
        self.figures = dict(found.figures)
        return self.figures

    def keep(self, found: Kept) -> dict[str, float]:
        """Save the states that are to be kept of this step; the figures are for the log."""
        if found.states:
            self._check_state()
        for name, noted in found.states.items():
            tensors = checkpoints.module_state(self.modules)
            checkpoints.save_tensors(self._path(name), tensors, {"step": self.done, **noted})
        return dict(found.figures)

    def load_best(self) -> None:
        """Put the best eligible state back into the modules, if there is one.

        Raises:
            CheckpointError: if its file is missing, damaged or of another step.
        """
        if self.best_step is None or self.best_step == self.done:
            return
        path = self._path("best")
        # The last state alone would find every step done, and look for the best one again.
        advice = f"Delete it and {self._path('last').name} to start this stage again."
        tensors, facts = checkpoints.load_tensors(path, advice)
        if facts["step"] != self.best_step:
            raise CheckpointError(
                f"{path.name} holds step {facts['step']}, but the best state was that of step "
                f"{self.best_step}. {advice}"
            )
        checkpoints.load_module_state(self.modules, tensors)

    def _path(self, kind: str) -> Path:
        return self.trainer.folder / "checkpoints" / f"{self.name}-{kind}.safetensors"

    def save(self, *, unjudged: Mapping[str, float] | None = None) -> None:
        """Write everything that resuming needs.

        Args:
            unjudged: see the attribute.
        """
        self._check_state()
        self._log.settle()
        random = ranks.gathered(checkpoints.random_state())
        tensors = checkpoints.module_state(self.modules) | checkpoints.optimizer_state(self.optimizer)
        facts = {
            "step": self.done,
            "seconds": self.seconds(),
            "best_step": self.best_step,
            "best_rank": self.best_rank,
            "figures": self.figures,
            "unjudged": unjudged,
            "random": [own_facts for _, own_facts in random],
        }
        for rank, (drawn, _) in enumerate(random):
            tensors |= {f"random/{rank}/{name}": state for name, state in drawn.items()}
        checkpoints.save_tensors(self._path("last"), tensors, facts)
        self.saved = self.done
        ranks.from_first(self._settle_best)

    def _settle_best(self) -> None:
        """Make the newest best state the best one, now that the last checkpoint speaks of it."""
        newest = self._path("next")
        if newest.exists():
            if checkpoints.load_facts(newest)["step"] == self.best_step:
                with writing(self._path("best")):
                    os.replace(newest, self._path("best"))
            else:
                newest.unlink()

    def resume(self) -> None:
        """Continue from the last checkpoint, or start with this run's seed.

        Raises:
            CheckpointError: if the checkpoint is damaged or of another format.
        """
        ranks.wait()
        path = self._path("last")
        # Masks are drawn by the first process, dropout by each.
        checkpoints.seed_random(self.trainer.seed + ranks.index())
        if not path.exists():
            ranks.from_first(lambda: self._path("next").unlink(missing_ok=True))
            return
        tensors, facts = checkpoints.load_tensors(path)
        checkpoints.load_module_state(self.modules, tensors)
        checkpoints.load_optimizer_state(self.optimizer, tensors)
        self.done = self.saved = facts["step"]
        self.earlier_s = facts["seconds"]
        self.trainer.earlier_s += self.earlier_s
        self.best_step = facts["best_step"]
        self.best_rank = tuple(facts["best_rank"])
        self.figures, self.unjudged = facts["figures"], facts["unjudged"]
        if ranks.index() < len(facts["random"]):  # the run may go on with more processes
            start = f"random/{ranks.index()}/"
            drawn = {name[len(start) :]: t for name, t in tensors.items() if name.startswith(start)}
            checkpoints.restore_random_state(drawn, facts["random"][ranks.index()])
        ranks.from_first(self._settle_best)

    @contextmanager
    def log(self) -> Iterator[None]:
        """The log of the run is open inside, cut back to the steps that are done."""
        self._log = TrainingLog(self.trainer.folder, self.name, self.done)
        try:
            yield
        finally:
            self._log.close()
