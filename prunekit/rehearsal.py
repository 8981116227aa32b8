"""What a run would need of memory, found by trying its steps on a few examples before it starts."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from prunekit.achieved import example
from prunekit.errors import PrunekitError
from prunekit.flops import count_macs
from prunekit.resources import FLOAT, MIB, LiveBytes, available_mib, settled_mib
from prunekit.training.checkpoints import random_state_kept
from prunekit.training.loop import FitResult, Loss, Trainer, task_loss
from prunekit.training.recover import recover

if TYPE_CHECKING:
    from prunekit.pruning.cost import Lengths
    from prunekit.pruning.plan import PruningPlan
    from prunekit.pruning.target import PrunableModel
    from prunekit.recipe import Recipe, ResolvedMethod, StageSpec, TrainSpec
    from prunekit.tasks.base import Task

COUNTS = (1, 3)
"""Examples of the two measurements that a line is drawn through."""
PATIENCE_S = 10.0
"""How long a method that trains nothing may be tried. What it takes only after that is not known."""
CHECKED = 8
"""Examples that a cut model is held against the masked one on."""
_LARGEST_POOLED = 32 * MIB


@dataclass(frozen=True)
class Need:
    """What tensors take while something runs, in bytes.

    Attributes:
        kept: however many examples a batch has.
        batch: of one batch.
        largest: the largest tensor of one batch.
    """

    kept: float = 0.0
    batch: float = 0.0
    largest: float = 0.0

    @property
    def freed(self) -> float:
        """Freed memory that the C library keeps for itself while batches follow each other.

        Once a block of up to 32 MiB was freed, glibc's allocator takes such blocks from its heap, and leaves
        twice that size unused at the heap's end (``mallopt(3)``). About as much again lies in gaps that do
        not fit the next block: measured, as ``benchmarks/README.md`` says, and not derived.
        """
        return 4 * min(self.largest, _LARGEST_POOLED)

    @property
    def total(self) -> float:
        """All of it."""
        return self.kept + self.batch + self.freed

    def beside(self, kept: float) -> Need:
        """The same with so much more that is kept."""
        return replace(self, kept=self.kept + kept)


class _Enough(BaseException):
    """Ends an attempt. No error, so that nothing on the way takes it for one of its own."""


class _Bounded(LiveBytes):  # type: ignore[no-untyped-call]  # torch's own
    """Counts until an attempt has taken long enough, or half of the memory that there is."""

    def __init__(self) -> None:
        super().__init__()
        self.until = time.monotonic() + PATIENCE_S
        available = available_mib()
        self.most = float("inf") if available is None else available * MIB / 2

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if self.now > self.most or time.monotonic() > self.until:
            raise _Enough
        return super().__torch_dispatch__(func, types, args, kwargs)


def line(run: Callable[[int], Any], examples: float) -> Need:
    """What tensors of that many examples take, drawn through what ``run(count)`` makes for one and three."""
    found = []
    for count in COUNTS:
        with LiveBytes() as live:
            run(count)
        found.append((live.peak, live.largest))
    (peak, largest), (later, later_largest) = found
    more = COUNTS[1] - COUNTS[0]
    return Need(
        batch=max(0.0, (later - peak) / more) * examples,
        largest=max(largest, largest + (later_largest - largest) / more * (examples - COUNTS[0])),
    )


def _drop_gradient(parameter: torch.Tensor) -> None:
    parameter.grad = None


class Rehearsal(Trainer):
    """A trainer that runs single steps, and notes what training would need.

    Args:
        folder: where methods may leave files.
        spec: the recipe's ``train`` section.
        longest: training examples, the longest ones.
        live: counts what a method makes before it trains.
        seed: the recipe's.

    Attributes:
        needs: of each stage that was asked for.
    """

    def __init__(
        self, folder: Path, spec: TrainSpec, longest: Sequence[Any], live: LiveBytes, *, seed: int
    ) -> None:
        super().__init__(folder, spec, seed=seed)
        self.longest, self.live = longest, live
        self.device = torch.device("cpu")
        self.needs: list[Need] = []

    def fit(
        self, stage: str, model: nn.Module, task: Task, spec: StageSpec, loss: Loss, **settings: Any
    ) -> FitResult:
        """Note what a stage of training needs; nothing is trained."""
        held = self.live.now
        modules = [model, *(settings.get("modules") or {}).values()]
        learned = [p for module in modules for p in module.parameters() if p.requires_grad]

        def step(count: int) -> None:
            value, _ = loss(task.collate(self.longest[:count]), 0)
            value.backward()  # type: ignore[no-untyped-call]

        # Gradients are counted apart: beside few examples they would be the most of what is alive.
        hooks = [p.register_post_accumulate_grad_hook(_drop_gradient) for p in learned]
        was_training = model.training
        model.train()
        found = line(step, spec.batch_size)
        model.train(was_training)
        for hook in hooks:
            hook.remove()
        state = sum(p.numel() for module in modules for p in module.parameters()) * FLOAT
        trained = sum(p.numel() for p in learned) * FLOAT
        # Gradients and two moments; a checkpoint is a copy of weights and moments, made between two batches.
        self.needs.append(Need(held + 3 * trained, max(found.batch, state + 2 * trained), found.largest))
        return FitResult(steps=0, seconds=0.0)


def planning(
    target: PrunableModel, task: Task, recipe: Recipe, method: ResolvedMethod, longest: Sequence[Any]
) -> tuple[Need, PruningPlan | None]:
    """What the method needs to make its plan, and the plan where nothing has to be learned for it.

    The method is tried, with single steps in place of training. One that trains nothing is stopped after
    ``PATIENCE_S`` seconds, or when it has taken half of the memory that there is. Where it refuses to begin,
    as the run will then too, a method that trains is taken to train the model on the task alone.
    """
    plan = None
    with _Bounded() as live:
        trains = method.method_class.info.trains
        if trains:
            live.until = live.most = float("inf")
        with tempfile.TemporaryDirectory() as folder:
            # A folder inside: methods look for results of other runs beside their own.
            home = Path(folder) / "runs" / "rehearsal"
            trainer = Rehearsal(home, method.train, longest, live, seed=recipe.seed)
            # A method that learns may refuse what single steps have taught it.
            with suppress(PrunekitError, _Enough):
                plan = method.method_class(method.config).plan(target.copy(), task, method.budget, trainer)
        if trains and not trainer.needs:
            copied = target.copy()
            trainer.fit("train", copied.model, task, method.train, task_loss(copied.model))
    if trainer.needs:
        return max(trainer.needs, key=lambda need: need.total), None
    return Need(live.peak, largest=live.largest), plan


def recovering(
    target: PrunableModel,
    task: Task,
    method: ResolvedMethod,
    longest: Sequence[Any],
    plan: PruningPlan | None,
) -> Need:
    """What recovery needs beside the dense model; without a plan, of a model that nothing was cut from."""
    if method.recover.is_empty:
        return Need()
    with LiveBytes() as live, tempfile.TemporaryDirectory() as folder:
        trainer = Rehearsal(Path(folder), method.train, longest, live, seed=0)
        cut = target.pruned(plan) if plan else target.copy()
        recover(cut.model, target.model, task, method.recover, trainer)
    return max(trainer.needs, key=lambda need: need.total, default=Need())


@random_state_kept()
def memory_estimate(
    target: PrunableModel, task: Task, recipe: Recipe, method: ResolvedMethod
) -> dict[str, float | None]:
    """What a run adds to the memory of a process that has loaded the model, in MiB.

    The method and the recovery are tried with steps on one and on three of the longest examples, from which
    tensors of a batch are reckoned; weights, gradients and optimiser state are counted; data and libraries by
    how the process has grown meanwhile.

    Returns:
        ``process``, as it is before; ``data`` and ``libraries``; for each stage what it takes beside these:
        ``planning``, ``checking``, ``recovery``, ``evaluation``, ``timing``; ``peak``, data, libraries, and
        the largest stage; ``total``, ``process`` with ``peak``; and ``available``.
    """
    process = settled_mib()
    lengths, longest = _data(target, task, recipe, method)
    data = max(0.0, settled_mib() - process)
    size = target.model.num_parameters() * FLOAT
    evaluate, speed = recipe.evaluate, recipe.speed

    def answered(split: str, batch: float, beams: int) -> Need:
        return line(
            lambda count: task.predict(
                target.model, longest[split][:count], batch_size=count, num_beams=beams
            ),
            batch,
        )

    # As every run does; what counts them is loaded for it.
    count_macs(target.model, example(target.model, lengths))
    planned, plan = planning(target, task, recipe, method, longest.get("train", []))
    stages = {
        "planning": planned,
        # The model and the pruned one, as they are and in both precisions; float64 takes twice the room.
        "checking": answered("validation", 2 * CHECKED, 1).beside(8 * size),
        "recovery": recovering(target, task, method, longest.get("train", []), plan),
        "evaluation": answered(evaluate.split, evaluate.batch_size, evaluate.num_beams).beside(2 * size),
        "timing": answered(evaluate.split, speed.batch_size, speed.num_beams).beside(2 * size),
    }
    libraries = max(0.0, settled_mib() - process - data)
    # Stages give back what they freed (``release_memory``), so the largest one alone counts.
    largest = max(need.total for need in stages.values()) / MIB
    found = {
        "process": process,
        "data": data,
        "libraries": libraries,
        **{name: need.total / MIB for name, need in stages.items()},
        "peak": data + libraries + largest,
        "total": process + data + libraries + largest,
    }
    available = available_mib()
    return {
        **{name: round(value, 1) for name, value in found.items()},
        "available": None if available is None else round(available, 1),
    }


def _data(
    target: PrunableModel, task: Task, recipe: Recipe, method: ResolvedMethod
) -> tuple[Lengths, dict[str, list[Any]]]:
    """Tokens that MACs are counted for, and the longest examples of the splits that the run uses."""
    # Every report counts MACs, at the mean length of some data where the recipe and the model have none.
    counted = target.lengths(method.budget.macs, task)
    splits = ["validation", recipe.evaluate.split]
    if method.method_class.info.trains or not method.recover.is_empty:
        splits.insert(0, "train")
    limits = {recipe.evaluate.split: recipe.evaluate.limit}
    return counted, {split: _longest(task, split, limits.get(split)) for split in splits}


def _longest(task: Task, split: str, limit: int | None) -> list[Any]:
    lengths, examples = task.lengths(split)[:limit], task.examples(split)
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])[: COUNTS[-1]]
    return [examples[index] for index in order]
