"""Kernels that give the same bits every time, for as long as a run wants them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
# What torch asks for: eight buffers of 4 MiB, handed out in a fixed order.
_WORKSPACE = ":4096:8"


@contextmanager
def deterministic(wanted: bool = True) -> Iterator[None]:
    """Inside, torch uses deterministic kernels only, and refuses operations that have none.

    On the CPU runs repeat without it. On a GPU it must be entered before the first matrix product of the
    process, for cuBLAS reads its setting once; timings inside it are those of these kernels. Everything is as
    before afterwards.

    Args:
        wanted: whether to do anything.
    """
    if not wanted:
        yield
        return
    cudnn = torch.backends.cudnn
    before = torch.get_deterministic_debug_mode()
    flags, workspace = (cudnn.deterministic, cudnn.benchmark), os.environ.get(CUBLAS)
    if workspace not in (":4096:8", ":16:8"):
        os.environ[CUBLAS] = _WORKSPACE
    torch.use_deterministic_algorithms(True)
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(before)
        cudnn.deterministic, cudnn.benchmark = flags
        if workspace is None:
            os.environ.pop(CUBLAS, None)
        else:
            os.environ[CUBLAS] = workspace
