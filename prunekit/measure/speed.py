"""How fast models are: side by side in one process, every sample kept, a model against itself as control.

Rounds are interleaved, in changing order, so that a machine that warms up or gets busy slows all models
alike. The first model is the reference; it runs twice a round, and a speedup counts only where it stands out
of the difference between those two.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from prunekit.errors import PrunekitError
from prunekit.measure import statistics
from prunekit.measure.contestants import Contestant, Entry, make_entries, try_to_prepare
from prunekit.measure.environment import environment_record
from prunekit.measure.gpu import GpuReader, gpu_reader
from prunekit.measure.inputs import random_inputs
from prunekit.measure.prepare import generates, threads_set
from prunekit.measure.rounds import run_rounds
from prunekit.measure.timing import Clock, CudaClock, HostClock, Instruments, Sample, no_energy
from prunekit.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from prunekit.recipe import SpeedSpec

__all__ = ["Contestant", "as_pair", "measure_speed", "random_inputs"]

FORMAT = 1
ENERGY_AT_LEAST_MS = 1000.0
"""A GPU's energy counter moves in steps of up to a tenth of a second; over less than this it says nothing."""
_MIB = 2**20
_SETTINGS = ("dtype", "num_beams", "new_tokens", "length_penalty", "static_cache", "compile")
_GENERATE_ONLY = ("num_beams", "new_tokens", "length_penalty", "static_cache")


def measure_speed(
    models: Mapping[str, PreTrainedModel | Contestant],
    inputs: Mapping[str, Tensor],
    spec: SpeedSpec,
    *,
    parts: bool = True,
    progress: Progress | None = None,
    clock: Callable[[], float] | Clock | None = None,
    label: str = "Timing",
) -> dict[str, Any]:
    """Times of every model on one batch, and its speedup over the first.

    Encoder-decoders with a language head are timed in ``generate`` (see
    `prunekit.measure.generation.time_generate`), all others in ``forward``, under inference mode. All calls
    are made in every round; the first ``spec.warmup`` rounds are thrown away.

    Args:
        models: name to model or `Contestant`, at least one, all on one device (CPU or CUDA). While measured
            they are in eval mode, ``spec.dtype`` (every floating tensor) and ``spec.attention``; then all is
            put back exactly.
        inputs: the batch, ``[B, ...]`` each; labels are left out, tensors move to the models' device.
        spec: how to measure; batch size and input length are read from ``inputs``.
        parts: also time what generation consists of, in calls of their own; without them a round of
            ``generate`` takes a third of the time.
        progress: draws one bar.
        clock: seconds, or a clock, in place of the host's clock or CUDA events; for tests.
        label: of the bar.

    Returns:
        Plain data. ``models[name]`` has ``median_ms, p10_ms, p90_ms, p99_ms, samples_ms`` of the whole call;
        ``samples_per_s``, for ``generate`` ``tokens_per_s``; ``macs`` of the call (``None`` where they cannot
        be counted) and ``achieved_gflops``; ``energy_j`` of a call (where the GPU counts it, and the rounds
        took at least a second); ``peak_mib`` (own weights plus the most that the call held on top; ``None``
        off CUDA), ``weights_mib``, ``parameters``, ``attention``; ``settings`` and ``output_check`` where
        they apply; for ``generate`` also ``parts`` (the same five figures each, ``natural`` with the
        ``tokens`` it ran for). Every model but the reference has ``speedup, speedup_low, speedup_high,
        verdict``, for the call and for each part. ``control`` is the reference against itself in the same
        form, ``noise`` what that says of the machine. A model that failed has only ``error``, a text.
        ``state`` has ``load_average`` and ``gpu`` ``before`` and ``after``.

    Raises:
        PrunekitError: if there is no model, the models cannot be compared (devices, or only some generate),
            or the reference cannot be measured.
    """
    mode, device = _check(models)
    reader = gpu_reader(device)
    ticker = _clock(clock, device)
    with ExitStack() as restored:
        restored.enter_context(threads_set(spec.threads))
        entries = make_entries(models, spec)
        before = _state(reader)
        for entry in entries:
            try_to_prepare(entry, inputs, restored)
            _refuse_without_reference(entries[0])
        twin = replace(entries[0], samples=[])
        run_rounds(
            [twin, *entries],
            Instruments(ticker, reader.energy_mj if reader else no_energy),
            spec,
            parts=parts,
            progress=progress,
            label=label,
        )
        for reference in (twin, entries[0]):
            _refuse_without_reference(reference)
        control = _result(entries[0], twin, twin, spec)
        return {
            **_settings(entries[0], inputs, spec, mode=mode, clock=ticker.name),
            "control": control,
            "noise": statistics.noise(control),
            "models": {entry.name: _row(entries[0], twin, entry, spec) for entry in entries},
            "state": {"before": before, "after": _state(reader)},
            "environment": environment_record(),
        }


def as_pair(result: Mapping[str, Any], dense: str, pruned: str) -> dict[str, Any]:
    """One model against the reference, in the shape of a run report's ``speed``.

    Args:
        result: what `measure_speed` returned.
        dense: name of the reference.
        pruned: name of the other model.

    Returns:
        The settings and the control as they were, ``dense`` and ``pruned`` (times, memory, parts), and on the
        top level ``speedup, speedup_low, speedup_high, verdict``.

    Raises:
        PrunekitError: if ``dense`` is not the reference, or ``pruned`` was not measured against it.
    """
    others = [name for name in result["models"] if name != result["reference"]]
    if dense != result["reference"] or pruned not in others:
        raise PrunekitError(
            f"no speedup of {pruned!r} over {dense!r} in this measurement: its reference is "
            f"{result['reference']!r}, measured against it: {', '.join(others) or 'nothing'}. "
            f"Measure them together, {dense!r} first."
        )
    entry = dict(result["models"][pruned])
    if "error" in entry:
        raise PrunekitError(f"{pruned} could not be measured: {entry['error']}")
    lifted = {key: entry.pop(key) for key in ("speedup", "speedup_low", "speedup_high", "verdict")}
    shared = {key: value for key, value in result.items() if key not in ("models", "reference")}
    return shared | {"dense": result["models"][dense], "pruned": entry} | lifted


def _check(models: Mapping[str, PreTrainedModel | Contestant]) -> tuple[str, torch.device]:
    """What is timed ("generate" or "forward") and where, once it is sure that the models can be compared."""
    if not models:
        raise PrunekitError("no model to measure. Give at least one; the first is the reference.")
    plain = {name: m.model if isinstance(m, Contestant) else m for name, m in models.items()}
    places = {name: str(model.device) for name, model in plain.items()}
    if len(set(places.values())) > 1 or next(iter(places.values())).partition(":")[0] not in ("cpu", "cuda"):
        found = ", ".join(f"{name} on {place}" for name, place in places.items())
        raise PrunekitError(
            f"speed is measured on one device, cpu or cuda; found {found}. Move them with .to()."
        )
    modes = {name: "generate" if generates(model) else "forward" for name, model in plain.items()}
    if len(set(modes.values())) > 1:
        found = ", ".join(f"{name} by {mode}" for name, mode in modes.items())
        raise PrunekitError(f"these models cannot be compared: {found}. Measure them in separate runs.")
    return next(iter(modes.values())), next(iter(plain.values())).device


def _clock(given: Callable[[], float] | Clock | None, device: torch.device) -> Clock:
    if given is None:
        return CudaClock(device) if device.type == "cuda" else HostClock()
    return HostClock(given) if callable(given) else given


def _refuse_without_reference(reference: Entry) -> None:
    if reference.error:
        raise PrunekitError(reference.error)


def _row(reference: Entry, twin: Entry, entry: Entry, spec: SpeedSpec) -> dict[str, Any]:
    if entry.error:
        return {"error": entry.error}
    result = _result(reference, twin, entry, spec, speedup=entry is not reference)
    batch, seconds = len(next(iter(entry.batch.values()))), result["median_ms"] / 1000
    rates = {"samples_per_s": batch / seconds}
    if entry.mode == "generate":
        rates["tokens_per_s"] = batch * entry.spec.new_tokens / seconds
    counted = {
        "macs": entry.macs,
        "achieved_gflops": None if entry.macs is None else 2 * entry.macs / seconds / 1e9,
        "energy_j": _energy_j(entry.samples),
    }
    return _facts(entry) | rates | counted | result


def _result(
    reference: Entry, twin: Entry, own: Entry, spec: SpeedSpec, *, speedup: bool = True
) -> dict[str, Any]:
    """Summary of one contestant's call, its parts beside it."""

    def times(entry: Entry, part: str) -> list[float]:
        return [sample.times_ms[part] for sample in entry.samples]

    def figures(part: str) -> dict[str, Any]:
        result = statistics.summary(times(own, part))
        # A compiled model has other parts than a plain one; a part of no time has no ratio.
        if speedup and part in reference.samples[0].times_ms and min(times(own, part)) > 0:
            result |= statistics.compare(
                times(reference, part), times(twin, part), times(own, part), spec.seed
            )
        return result

    result = figures("call")
    parts = {part: figures(part) for part in own.samples[0].times_ms if part != "call"}
    if parts:
        parts["natural"]["tokens"] = own.samples[-1].natural_tokens
        result["parts"] = parts
    return result


def _energy_j(samples: Sequence[Sample]) -> float | None:
    """Joules of one call, over all timed calls together."""
    spent = [sample.energy_mj for sample in samples if sample.energy_mj is not None]
    if len(spent) < len(samples) or sum(s.times_ms["call"] for s in samples) < ENERGY_AT_LEAST_MS:
        return None
    return sum(spent) / len(spent) / 1000


def _facts(entry: Entry) -> dict[str, Any]:
    model = entry.model
    tensors = [*model.parameters(), *model.buffers()]
    weight_bytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    peaks = [sample.peak_bytes for sample in entry.samples if sample.peak_bytes is not None]
    facts: dict[str, Any] = {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "weights_mib": weight_bytes / _MIB,
        "peak_mib": (weight_bytes + max(peaks)) / _MIB if peaks else None,
        "attention": model.config._attn_implementation,
    }
    if entry.own:
        facts["settings"] = entry.own
    if entry.output_check:
        facts["output_check"] = entry.output_check
    return facts


def _state(reader: GpuReader | None) -> dict[str, Any]:
    return {
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "gpu": reader.state() if reader else None,
    }


def _settings(
    reference: Entry, inputs: Mapping[str, Tensor], spec: SpeedSpec, *, mode: str, clock: str
) -> dict[str, Any]:
    asked = {
        key: None if mode == "forward" and key in _GENERATE_ONLY else getattr(spec, key) for key in _SETTINGS
    }
    return {
        "format": FORMAT,
        "reference": reference.name,
        "mode": mode,
        "device": reference.model.device.type,
        "attention": reference.model.config._attn_implementation,
        "threads": torch.get_num_threads(),
        "batch_size": len(next(iter(inputs.values()))),
        "input_tokens": inputs["input_ids"].shape[1] if "input_ids" in inputs else None,
        "input_shapes": {name: list(tensor.shape) for name, tensor in inputs.items()},
        **asked,
        "rounds": spec.rounds,
        "warmup": spec.warmup,
        "seed": spec.seed,
        "clock": clock,
    }
