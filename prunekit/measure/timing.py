"""Stamps in time, and one timed call between two of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Clock(Protocol):
    """Takes stamps that can be subtracted once the device has settled."""

    name: str

    def stamp(self) -> Any:
        """A point in time, taken without holding the device up."""

    def settle(self) -> None:
        """Wait until the device has done all it was asked."""

    def elapsed_ms(self, start: Any, end: Any) -> float:
        """Milliseconds between two stamps; call `settle` first."""


class HostClock:
    """The host's monotonic clock: right for a CPU, where a call returns when its work is done."""

    name = "host"

    def __init__(self, seconds: Callable[[], float] = time.perf_counter) -> None:
        self._seconds = seconds

    def stamp(self) -> float:
        """Seconds, now."""
        return self._seconds()

    def settle(self) -> None:
        """Nothing to wait for."""

    def elapsed_ms(self, start: float, end: float) -> float:
        """Milliseconds between two stamps."""
        return (end - start) * 1000.0


class CudaClock:
    """CUDA events: the GPU stamps them as it gets there, so parts are timed without stopping the stream.

    Args:
        device: a CUDA device.
        cuda: ``torch.cuda``, or something with its ``Event, current_stream, synchronize``.
    """

    name = "cuda events"

    def __init__(self, device: torch.device, cuda: Any = torch.cuda) -> None:
        self._device, self._cuda = device, cuda

    def stamp(self) -> Any:
        """An event in the current stream."""
        event = self._cuda.Event(enable_timing=True)
        event.record(self._cuda.current_stream(self._device))
        return event

    def settle(self) -> None:
        """Wait for the GPU."""
        self._cuda.synchronize(self._device)

    def elapsed_ms(self, start: Any, end: Any) -> float:
        """Milliseconds between two events."""
        return float(start.elapsed_time(end))


def no_energy() -> None:
    """The meter of a device that counts no energy."""


@dataclass(frozen=True)
class Instruments:
    """What a call is measured with: a clock, and a counter of millijoules where there is one."""

    clock: Clock
    energy_mj: Callable[[], int | None] = no_energy


@dataclass
class Sample:
    """One model's turn in one round.

    ``times_ms`` has ``call`` (what the headline number is about) and, for ``generate``, parts. ``peak_bytes``
    is the most that ``call`` held on top of what was held before it, ``energy_mj`` what it took (CUDA only).
    """

    times_ms: dict[str, float]
    peak_bytes: int | None = None
    energy_mj: int | None = None
    natural_tokens: int | None = None


def time_call(call: Callable[[], Any], device: torch.device, instruments: Instruments) -> tuple[Sample, Any]:
    """One call between two stamps, the device settled before and after, and what it returned."""
    clock = instruments.clock
    clock.settle()
    with _peak_memory(device) as peak:
        before = instruments.energy_mj()
        start = clock.stamp()
        returned = call()
        end = clock.stamp()
        clock.settle()
        after = instruments.energy_mj()
    spent = None if before is None or after is None else after - before
    return Sample({"call": clock.elapsed_ms(start, end)}, peak.get("bytes"), spent), returned


def time_forward(model: PreTrainedModel, batch: Mapping[str, Tensor], instruments: Instruments) -> Sample:
    """One forward pass, without loss."""
    inputs = forward_inputs(batch)
    return time_call(lambda: model(**inputs), model.device, instruments)[0]


def forward_inputs(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The batch without labels: a forward pass without them is inference."""
    return {name: tensor for name, tensor in batch.items() if name != "labels"}


@contextmanager
def _peak_memory(device: torch.device) -> Iterator[dict[str, int]]:
    """Fill ``bytes`` with the most that the block held on top of what was held before; empty off CUDA."""
    peak: dict[str, int] = {}
    if device.type != "cuda":
        yield peak
        return
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    yield peak
    peak["bytes"] = torch.cuda.max_memory_allocated(device) - before
