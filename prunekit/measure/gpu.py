"""What a GPU was doing around a measurement: clocks, throttling, power, and who else was on it."""

from __future__ import annotations

import importlib
import os
import subprocess
import warnings
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, Protocol

import torch

_MIB = 2**20
# Bits of NVML's clock event reasons; nvidia-smi prints the same mask.
_REASONS = {
    0x001: "idle",
    0x002: "application clocks",
    0x004: "power cap",
    0x008: "hardware slowdown",
    0x010: "sync boost",
    0x020: "software thermal slowdown",
    0x040: "hardware thermal slowdown",
    0x080: "power brake",
    0x100: "display clocks",
}
_QUERY = {
    "name": "name",
    "driver": "driver_version",
    "sm_clock_mhz": "clocks.sm",
    "max_sm_clock_mhz": "clocks.max.sm",
    "memory_clock_mhz": "clocks.mem",
    "temperature_c": "temperature.gpu",
    "power_w": "power.draw",
    "power_limit_w": "power.limit",
    "utilisation": "utilization.gpu",
    "memory_used_mib": "memory.used",
    "throttle_reasons": "clocks_throttle_reasons.active",
}
_WORDS = ("name", "driver", "throttle_reasons")


class GpuReader(Protocol):
    """Reads one GPU from outside the CUDA stream."""

    def state(self) -> dict[str, Any]:
        """``source``, the facts of `gpu_reader`, and ``None`` for each that this GPU does not tell."""

    def energy_mj(self) -> int | None:
        """Millijoules since the driver was loaded, where the GPU counts them."""


def gpu_reader(device: torch.device) -> GpuReader | None:
    """The reader for ``device``: NVML through ``pynvml`` if it is installed, else ``nvidia-smi``, else none.

    ``state()`` has ``source, name, driver, sm_clock_mhz, max_sm_clock_mhz, memory_clock_mhz,
    throttle_reasons`` (words; empty where nothing held the clocks down), ``temperature_c, power_w,
    power_limit_w, utilisation`` (percent), ``memory_used_mib`` and ``processes``: ``pid, memory_mib, own`` of
    every process that computes on the GPU.
    """
    if device.type != "cuda":
        return None
    properties: Any = torch.cuda.get_device_properties(device)
    # CUDA_VISIBLE_DEVICES renumbers the devices that torch sees; only the id means the same to the driver.
    identity = f"GPU-{properties.uuid}"
    return nvml_reader(_pynvml(), identity) or smi_reader(_nvidia_smi, identity)


def nvml_reader(nvml: ModuleType | Any | None, identity: str) -> GpuReader | None:
    """Reader over the module ``pynvml``; ``None`` where it is missing or finds no such GPU."""
    if nvml is None:
        return None
    try:
        nvml.nvmlInit()
        return _Nvml(nvml, nvml.nvmlDeviceGetHandleByUUID(identity))
    except nvml.NVMLError:
        return None


def smi_reader(query: Callable[[Sequence[str]], str | None], identity: str) -> GpuReader | None:
    """Reader over ``nvidia-smi``, called with arguments; ``None`` where it does not answer."""
    reader = _Smi(query, identity)
    return reader if reader.state()["name"] else None


class _Nvml:
    def __init__(self, nvml: Any, handle: Any) -> None:
        self._nvml, self._handle = nvml, handle

    def state(self) -> dict[str, Any]:
        nvml, ask = self._nvml, self._ask
        power, limit = ask("nvmlDeviceGetPowerUsage"), ask("nvmlDeviceGetEnforcedPowerLimit")
        rates, memory = ask("nvmlDeviceGetUtilizationRates"), ask("nvmlDeviceGetMemoryInfo")
        running = ask("nvmlDeviceGetComputeRunningProcesses") or []
        return {
            "source": "pynvml",
            "name": _text(ask("nvmlDeviceGetName")),
            "driver": _text(self._told(nvml.nvmlSystemGetDriverVersion)),
            "sm_clock_mhz": ask("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_SM),
            "max_sm_clock_mhz": ask("nvmlDeviceGetMaxClockInfo", nvml.NVML_CLOCK_SM),
            "memory_clock_mhz": ask("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_MEM),
            "temperature_c": ask("nvmlDeviceGetTemperature", nvml.NVML_TEMPERATURE_GPU),
            "power_w": None if power is None else power / 1000,
            "power_limit_w": None if limit is None else limit / 1000,
            "utilisation": None if rates is None else rates.gpu,
            "memory_used_mib": None if memory is None else memory.used / _MIB,
            "throttle_reasons": _reasons(ask("nvmlDeviceGetCurrentClocksThrottleReasons")),
            "processes": [_process(found.pid, _mib(found.usedGpuMemory)) for found in running],
        }

    def energy_mj(self) -> int | None:
        found = self._ask("nvmlDeviceGetTotalEnergyConsumption")
        return None if found is None else int(found)

    def _ask(self, function: str, *arguments: Any) -> Any:
        return self._told(getattr(self._nvml, function), self._handle, *arguments)

    def _told(self, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except self._nvml.NVMLError:  # this GPU, or this user, is not told
            return None


class _Smi:
    def __init__(self, query: Callable[[Sequence[str]], str | None], identity: str) -> None:
        self._query, self._identity = query, identity

    def state(self) -> dict[str, Any]:
        rows = self._rows(f"--query-gpu={','.join(_QUERY.values())}")
        cells = rows[0] if rows and len(rows[0]) == len(_QUERY) else [""] * len(_QUERY)
        facts: dict[str, Any] = {
            key: _known(cell) if key in _WORDS else _number(cell)
            for key, cell in zip(_QUERY, cells, strict=True)
        }
        mask = facts["throttle_reasons"]
        facts["throttle_reasons"] = _reasons(int(mask, 16) if mask else None)
        running = self._rows("--query-compute-apps=pid,used_memory")
        processes = [_process(int(pid), _number(memory)) for pid, memory in running]
        return {"source": "nvidia-smi", **facts, "processes": processes}

    def energy_mj(self) -> int | None:
        return None  # nvidia-smi prints power, and starting it around every call would disturb the call

    def _rows(self, query: str) -> list[list[str]]:
        answer = self._query([query, "--format=csv,noheader,nounits", f"--id={self._identity}"]) or ""
        return [[cell.strip() for cell in line.split(",")] for line in answer.splitlines() if line.strip()]


def _pynvml() -> ModuleType | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an older package of that name tells of its successor
            return importlib.import_module("pynvml")
    except ImportError:
        return None


def _nvidia_smi(arguments: Sequence[str]) -> str | None:
    try:
        return subprocess.run(
            ["nvidia-smi", *arguments], capture_output=True, text=True, timeout=10, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None


def _process(pid: int, memory_mib: float | None) -> dict[str, Any]:
    return {"pid": pid, "memory_mib": memory_mib, "own": pid == os.getpid()}


def _reasons(mask: int | None) -> list[str] | None:
    return None if mask is None else [word for bit, word in _REASONS.items() if mask & bit]


def _text(value: str | bytes | None) -> str | None:
    return value.decode() if isinstance(value, bytes) else value


def _mib(size: int | None) -> float | None:
    return None if size is None else size / _MIB


def _known(cell: str) -> str | None:
    return None if not cell or cell.startswith("[") or cell == "N/A" else cell


def _number(cell: str) -> float | None:
    try:
        return float(cell)
    except ValueError:  # [N/A], [Not Supported]
        return None
