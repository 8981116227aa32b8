"""What a run needs of memory and disk, told before it starts; and what to lower where it was not enough."""

from __future__ import annotations

import ctypes
import gc
import shutil
import sys
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from prunekit.errors import PrunekitError, RunFolderError
from prunekit.measure.failures import free_memory, is_out_of_memory

if TYPE_CHECKING:
    from prunekit.recipe import ResolvedMethod

MIB = 1024 * 1024
FLOAT = 4  # bytes; weights, gradients and optimiser state are float32


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
        largest: bytes of the largest tensor.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now: int = 0
        self.peak: int = 0
        self.largest: int = 0
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
        self.largest = max(self.largest, size)
        weakref.finalize(storage, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)


def process_mib() -> float:
    """Resident memory of this process in MiB; 0 where the system does not tell."""
    return _kib(Path("/proc/self/status"), "VmRSS") / 1024


def release_memory() -> None:
    """Give back what was freed: tensors that only each other hold, and heap that the C library kept.

    Else a stage starts on top of the freed memory of the one before it, whose pieces do not fit its own.
    """
    gc.collect()
    # glibc alone has it.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def settled_mib() -> float:
    """``process_mib`` after ``release_memory``."""
    release_memory()
    return process_mib()


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


def disk_estimate(parameters: int, method: ResolvedMethod) -> dict[str, float]:
    """The most that a run's folder holds at once, in MiB.

    Args:
        parameters: of the dense model; the pruned one has no more.
        method: whose training and recovery leave states.

    Returns:
        ``models``, the cut one, the final one and milestones; ``states`` of training, to go on from and of
        milestones; ``writing``, the largest file once more, since a new one is complete before it replaces
        the old; ``peak``, all together.
    """
    size = parameters * FLOAT / MIB
    state = 3 * size  # weights and two moments
    planning = state + size if method.method_class.info.trains else 0.0
    milestones = len(getattr(method.config, "save_at", ()))  # a state and a cut model each
    recovery = 0.0 if method.recover.is_empty else state
    found = {
        "models": (2 + milestones) * size,
        "states": planning + recovery + milestones * size,
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
        release_memory()
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
