"""What a number was measured on: versions, processor, GPU and driver."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from prunekit import ranks


def environment_record() -> dict[str, Any]:
    """Versions and hardware of this process, as plain data; a fact that cannot be found is ``None``.

    Keys: ``python, torch, transformers, prunekit`` (versions), ``system``, ``cpu`` (model name),
    ``cpu_count`` (logical), ``threads`` (those torch uses), ``processes`` (of the run), ``deterministic``
    (whether torch uses such kernels only), ``gpu`` (name), ``gpu_count``, ``cuda`` (the version torch was
    built for), ``driver``.
    """
    has_gpu = torch.cuda.is_available()
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": _version("transformers"),
        "prunekit": _version("prunekit"),
        "system": f"{platform.system()} {platform.machine()}".strip(),
        "cpu": cpu_name(),
        "cpu_count": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "processes": ranks.launched(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "gpu": torch.cuda.get_device_name() if has_gpu else None,
        "gpu_count": torch.cuda.device_count() if has_gpu else 0,
        "cuda": torch.version.cuda,
        "driver": _driver() if has_gpu else None,
    }


def cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str | None:
    """Processor's model name as the system states it, or ``None`` where it states none."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor()) or None


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:  # run from a source tree
        return None


def _driver() -> str | None:
    # torch knows only the CUDA version that the driver supports, not the driver's own.
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.strip().partition("\n")[0] or None
