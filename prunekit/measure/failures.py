"""What may go wrong with one row of a measurement while the others go on."""

from __future__ import annotations

import gc

import torch

from prunekit.errors import PrunekitError

ROW_FAILURES = (PrunekitError, MemoryError, RuntimeError, ValueError, TypeError, IndexError, ImportError)
"""What a model's call may raise for reasons of its own: sizes, memory, kernels that the device lacks."""

_NO_MEMORY = ("out of memory", "not enough memory", "can't allocate memory", "alloc_failed")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device or the host had no memory left; the CPU's allocator has no error class of its own."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in _NO_MEMORY)


def describe(error: BaseException) -> str:
    """One line for the row: what happened and what to do."""
    if is_out_of_memory(error):
        return "out of memory: ask for a smaller batch or length, or fewer models at a time."
    if isinstance(error, PrunekitError):
        return str(error)
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def free_memory() -> None:
    """Give back what a failed call left; not inside an ``except`` block, which still holds its frames."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
