"""One timed call: a forward pass, or ``generate`` with its encoder and its tokens told apart."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn
from transformers import StoppingCriteriaList

from prunekit.errors import PrunekitError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Targets: a forward pass without them is inference, and `generate` writes its own decoder input.
_TARGETS = ("labels", "decoder_input_ids", "decoder_attention_mask")


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
    """CUDA events: the GPU stamps them as it gets there, so tokens are timed without stopping the stream."""

    name = "cuda events"

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def stamp(self) -> torch.cuda.Event:
        """An event in the current stream."""
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        return event

    def settle(self) -> None:
        """Wait for the GPU."""
        torch.cuda.synchronize(self._device)

    def elapsed_ms(self, start: torch.cuda.Event, end: torch.cuda.Event) -> float:
        """Milliseconds between two events."""
        return float(start.elapsed_time(end))


@dataclass
class Sample:
    """One model's turn in one round.

    ``times_ms`` has ``call`` (what the headline number is about) and, for ``generate``, also ``natural,
    encoder, first_token, per_token``. ``peak_bytes`` is the most that ``call`` held on top of what was held
    before it (CUDA only).
    """

    times_ms: dict[str, float]
    peak_bytes: int | None = None
    natural_tokens: int | None = None


@dataclass
class _Trace:
    """Stamps of one ``generate`` call; called after each token, as a stopping criterion that never stops."""

    clock: Clock
    start: Any = None
    end: Any = None
    encoder: list[Any] = field(default_factory=list)
    tokens: list[Any] = field(default_factory=list)

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        self.tokens.append(self.clock.stamp())
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)

    def ms(self, start: Any, end: Any) -> float:
        return self.clock.elapsed_ms(start, end)


def time_forward(model: PreTrainedModel, batch: Mapping[str, Tensor], clock: Clock) -> Sample:
    """One forward pass, without loss."""
    inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
    clock.settle()
    with _peak_memory(model.device) as peak:
        start = clock.stamp()
        model(**inputs)
        end = clock.stamp()
        clock.settle()
    return Sample({"call": clock.elapsed_ms(start, end)}, peak_bytes=peak.get("bytes"))


def time_generate(
    model: PreTrainedModel, batch: Mapping[str, Tensor], new_tokens: int, clock: Clock
) -> Sample:
    """Two ``generate`` calls: one forced to ``new_tokens`` tokens, one that ends where the model ends it.

    The parts come from inside the forced call, so they belong to the same run: the encoder from its entry to
    its exit, the first token from the start of the call (encoder and set-up included), the others as the time
    from first to last token over ``new_tokens - 1`` (left out where only one token is asked for).

    Raises:
        PrunekitError: if the forced call did not run for ``new_tokens`` steps.
    """
    inputs = {name: tensor for name, tensor in batch.items() if name not in _TARGETS}
    with _peak_memory(model.device) as peak:
        forced = _traced_generate(
            model, inputs, {"min_new_tokens": new_tokens, "max_new_tokens": new_tokens}, clock
        )
    if len(forced.tokens) != new_tokens:
        raise PrunekitError(
            f"{type(model).__name__}.generate ran for {len(forced.tokens)} tokens where {new_tokens} were "
            "forced, so its time says nothing. Check that the model's outputs are finite in this dtype."
        )
    natural = _traced_generate(model, inputs, {"max_new_tokens": new_tokens}, clock)
    times_ms = {
        "call": forced.ms(forced.start, forced.end),
        "natural": natural.ms(natural.start, natural.end),
        "encoder": forced.ms(*forced.encoder),
        "first_token": forced.ms(forced.start, forced.tokens[0]),
    }
    if new_tokens > 1:
        times_ms["per_token"] = forced.ms(forced.tokens[0], forced.tokens[-1]) / (new_tokens - 1)
    return Sample(times_ms, peak_bytes=peak.get("bytes"), natural_tokens=len(natural.tokens))


def _traced_generate(
    model: PreTrainedModel, inputs: Mapping[str, Tensor], lengths: Mapping[str, int], clock: Clock
) -> _Trace:
    config = copy.deepcopy(model.generation_config)
    for name, value in lengths.items():
        setattr(config, name, value)
    trace = _Trace(clock)
    with _stamped(model.get_encoder(), clock, trace.encoder):
        clock.settle()
        trace.start = clock.stamp()
        model.generate(**inputs, generation_config=config, stopping_criteria=StoppingCriteriaList([trace]))
        trace.end = clock.stamp()
        clock.settle()
    return trace


@contextmanager
def _stamped(module: nn.Module, clock: Clock, stamps: list[Any]) -> Iterator[None]:
    """Note when the module is entered and left."""
    hooks = (
        module.register_forward_pre_hook(lambda *_: stamps.append(clock.stamp())),
        module.register_forward_hook(lambda *_: stamps.append(clock.stamp())),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


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
