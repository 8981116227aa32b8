"""What a run needs of memory and disk, told before it starts; and what to lower where it was not enough."""

from __future__ import annotations

import shutil
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from prunekit.errors import PrunekitError, RunFolderError
from prunekit.measure.failures import free_memory, is_out_of_memory

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from prunekit.recipe import Recipe, ResolvedMethod
    from prunekit.tasks.base import Task

MIB = 1024 * 1024
_FLOAT = 4  # bytes; weights, gradients and optimiser state are float32
_COUNTS = (1, 3)  # examples of the two measurements that a line is drawn through


TO_LOWER = {
    "training": "train.batch_size, and raise train.gradient_accumulation by as much",
    "planning": "train.batch_size (and raise train.gradient_accumulation by as much), or the method's own "
    "number of examples or batch size, if it has one",
    "recovering": "recover.batch_size, and raise recover.gradient_accumulation by as much",
    "evaluating": "evaluate.batch_size or evaluate.num_beams",
    "timing": "speed.batch_size, speed.num_beams or speed.new_tokens",
}
"""The recipe keys that decide how much memory a stage takes, by what it is doing."""


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own
    """Counts the bytes of tensors that operations inside make, while they live.

    Attributes:
        now: bytes alive.
        peak: the most that were alive at once.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now: int = 0
        self.peak: int = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        before = {id(leaf.untyped_storage()) for leaf in tree_leaves((args, kwargs)) if _is_tensor(leaf)}
        for leaf in tree_leaves(output):
            if _is_tensor(leaf) and id(leaf.untyped_storage()) not in before:
                self._add(leaf.untyped_storage())
        return output

    def _add(self, storage: Any) -> None:
        key = id(storage)  # stays the same for as long as the storage lives
        if key in self._known:
            return
        self._known.add(key)
        size = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)


def process_mib() -> float:
    """Resident memory of this process in MiB; 0 where the system does not tell."""
    return _kib(Path("/proc/self/status"), "VmRSS") / 1024


def available_mib() -> float | None:
    """Memory that programs can still have, in MiB; none where the system does not tell."""
    found = _kib(Path("/proc/meminfo"), "MemAvailable")
    return found / 1024 if found else None


def _kib(path: Path, key: str) -> int:
    try:
        lines = path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:  # not Linux
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(key + ":")), 0)


def bytes_per_example(run: Callable[[int], Any]) -> float:
    """Bytes that an example more adds to the peak, of tensors that ``run(examples)`` makes."""
    peaks: list[int] = []
    for count in _COUNTS:
        with LiveBytes() as live:
            run(count)
        peaks.append(live.peak)
    return max(0.0, (peaks[1] - peaks[0]) / (_COUNTS[1] - _COUNTS[0]))


def memory_estimate(
    model: PreTrainedModel, task: Task, recipe: Recipe, method: ResolvedMethod
) -> dict[str, float | None]:
    """What a run adds to the memory of a process that has loaded the model, in MiB.

    Weights, gradients and optimiser state are counted; activations are measured on steps of one and of three
    of the longest examples; data and libraries by how the process grows meanwhile. Memory that a method takes
    for statistics of its own is not known here.

    Returns:
        ``process``, as it is before; ``data`` and ``libraries``; for each stage what it takes beside these:
        ``planning``, ``checking``, ``recovery``, ``evaluation``, ``timing``; ``peak``, data, libraries, and
        the most that stages take for weights and, again, for one batch; ``total``, ``process`` with
        ``peak``; and ``available``.
    """
    process = process_mib()
    trains = method.method_class.info.trains
    splits = ["validation", recipe.evaluate.split]
    if trains or not method.recover.is_empty:
        splits.insert(0, "train")
    limits = {recipe.evaluate.split: recipe.evaluate.limit}
    longest = {split: _longest(task, split, limits.get(split)) for split in splits}
    data = max(0.0, process_mib() - process)
    evaluate = recipe.evaluate
    trained = 0.0
    if "train" in longest:
        trained = bytes_per_example(lambda count: _train_step(model, task, longest["train"][:count]))
    answered = bytes_per_example(
        lambda count: task.predict(
            model, longest[evaluate.split][:count], batch_size=count, num_beams=evaluate.num_beams
        )
    )
    libraries = max(0.0, process_mib() - process - data)
    size = model.num_parameters() * _FLOAT
    # Gradients and two moments; moments and weights once more while a checkpoint is written.
    training = 7 * size
    beams = recipe.speed.num_beams / evaluate.num_beams
    # By stage: copies of the weights and what goes with them; tensors of one batch.
    stages = {
        "planning": (training if trains else 2 * size, trained * method.train.batch_size if trains else 0.0),
        # The model and the pruned one in both precisions, and the copy that is being cut.
        "checking": (8 * size, 0.0),
        "recovery": (0.0, 0.0)
        if method.recover.is_empty
        else (size + training, trained * method.recover.batch_size),
        "evaluation": (2 * size, answered * evaluate.batch_size),
        "timing": (3 * size, answered * recipe.speed.batch_size * beams),
    }
    parts = {name: sum(both) / MIB for name, both in stages.items()}
    # Freed weights and freed activations are of different sizes: an allocator keeps room for either.
    peak = data + libraries + sum(max(column) for column in zip(*stages.values(), strict=True)) / MIB
    found = {"process": process, "data": data, "libraries": libraries, **parts, "peak": peak}
    rounded: dict[str, float | None] = {name: round(value, 1) for name, value in found.items()}
    available = available_mib()
    return {
        **rounded,
        "total": round(process + peak, 1),
        "available": None if available is None else round(available, 1),
    }


def _longest(task: Task, split: str, limit: int | None) -> list[Any]:
    lengths, examples = task.lengths(split)[:limit], task.examples(split)
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])[: _COUNTS[-1]]
    return [examples[index] for index in order]


def _train_step(model: PreTrainedModel, task: Task, examples: Sequence[Any]) -> None:
    """A forward and a backward pass; the model is as it was afterwards."""
    with torch.random.fork_rng(devices=[]):
        was_training = model.training
        model.train()
        model(**task.collate(examples)).loss.backward()
        model.train(was_training)
    model.zero_grad(set_to_none=True)


def disk_estimate(parameters: int, method: ResolvedMethod) -> dict[str, float]:
    """The most that a run's folder holds at once, in MiB.

    Args:
        parameters: of the dense model; the pruned one has no more.
        method: whose training and recovery leave states.

    Returns:
        ``models``, the cut and the final one; ``states`` of training, to go on from; ``writing``, the largest
        file once more, since a new one is complete before it replaces the old; ``peak``, all together.
    """
    size = parameters * _FLOAT / MIB
    state = 3 * size  # weights and two moments
    planning = state + size if method.method_class.info.trains else 0.0
    recovery = 0.0 if method.recover.is_empty else state
    found = {
        "models": 2 * size,
        "states": planning + recovery,
        "writing": state if planning or recovery else size,
    }
    return {name: round(value, 1) for name, value in {**found, "peak": sum(found.values())}.items()}


def check_disk(folder: Path, needed_mib: float) -> None:
    """Refuse a folder whose disk has no room for a run; what the folder holds already counts as room.

    Raises:
        RunFolderError: naming both figures.
    """
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())
    free = free_mib(there)
    held = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / MIB
    if free + held < needed_mib:
        raise RunFolderError(
            f"{folder}: the run may need {needed_mib:,.0f} MiB of disk, and there are {free:,.0f} MiB free. "
            "Make room there, or give a folder on another disk with --out."
        )


def free_mib(folder: Path) -> float:
    """Room on the disk of an existing folder, in MiB."""
    return shutil.disk_usage(folder).free / MIB


@contextmanager
def lower_if_out_of_memory(doing: str) -> Iterator[None]:
    """Tell of memory that ran out as one message; everything else passes. Also good as a decorator.

    Args:
        doing: a key of ``TO_LOWER``.

    Raises:
        PrunekitError: in place of an error about memory, of a device's or the host's.
    """
    try:
        yield
        return
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        first = " ".join(str(error).split())[:200] or type(error).__name__
        found = PrunekitError(
            f"out of memory while {doing} ({first}). Lower {TO_LOWER[doing]}. A changed recipe needs another "
            "--out; what the run finished, and its last checkpoint, stay in its folder."
        )
    # The failed call's frames hold its tensors, so the error is not chained.
    free_memory()
    raise found
