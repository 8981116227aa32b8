"""How fast models are: side by side in one process, every sample kept, a model against itself as control.

Rounds are interleaved, in changing order, so that a machine that warms up or gets busy slows all models
alike. The first model is the reference; it runs twice a round, and a speedup counts only where it stands out
of the difference between those two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from prunekit.errors import PrunekitError, UnsupportedModelError
from prunekit.measure import statistics
from prunekit.measure.environment import environment_record
from prunekit.measure.prepare import DTYPES, generates, prepared, threads_set
from prunekit.measure.timing import Clock, CudaClock, HostClock, Sample, time_forward, time_generate
from prunekit.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from prunekit.recipe import SpeedSpec

FORMAT = 1
DEFAULT_INPUT_TOKENS = 64
_MIB = 2**20


def measure_speed(
    models: Mapping[str, PreTrainedModel],
    inputs: Mapping[str, Tensor],
    spec: SpeedSpec,
    *,
    progress: Progress | None = None,
    clock: Callable[[], float] | None = None,
) -> dict[str, Any]:
    """Times of every model on one batch, and its speedup over the first.

    Encoder-decoders with a language head are timed in ``generate`` (forced length, natural length, and the
    parts of the forced call), all others in ``forward``, under inference mode. Both lengths run in every
    round; the first ``spec.warmup`` rounds are thrown away.

    Args:
        models: name to model, at least one, all on one device (CPU or CUDA). While measured they are in eval
            mode, ``spec.dtype`` (every floating tensor) and ``spec.attention``; then all is put back exactly.
        inputs: the batch, ``[B, ...]`` each; labels are left out, tensors move to the models' device.
        spec: how to measure; batch size and input length are read from ``inputs``.
        progress: draws one bar.
        clock: seconds, in place of the host's clock or CUDA events; for tests.

    Returns:
        Plain data. ``models[name]`` has ``median_ms, p10_ms, p90_ms, samples_ms`` of the whole call;
        ``peak_mib`` (own weights plus the most that the call held on top; ``None`` off CUDA),
        ``weights_mib``, ``parameters``, ``attention``; for ``generate`` also ``parts`` with ``natural,
        encoder, first_token, per_token`` (the same four figures each, ``natural`` with the ``tokens`` it ran
        for). Every model but the reference has ``speedup, speedup_low, speedup_high, verdict``, for the call
        and for each part. ``control`` is the reference against itself in the same form.

    Raises:
        PrunekitError: if there is no model, the models cannot be compared (devices, or only some generate),
            the decoder has fewer positions than ``spec.new_tokens``, or a forced length was not kept.
    """
    mode, device = _check(models, spec)
    ticker: Clock = HostClock(clock) if clock else CudaClock(device) if device.type == "cuda" else HostClock()
    contestants = [next(iter(models.values())), *models.values()]
    with ExitStack() as restored:
        restored.enter_context(threads_set(spec.threads))
        for model in models.values():
            restored.enter_context(prepared(model, spec))
        batch = _placed(inputs, device, DTYPES[spec.dtype])

        def sample(model: PreTrainedModel) -> Sample:
            if mode == "generate":
                return time_generate(model, batch, spec.new_tokens, ticker)
            return time_forward(model, batch, ticker)

        samples = _run_rounds(contestants, sample, spec, progress)
        twin, *measured = samples
        return {
            **_settings(models, batch, spec, mode=mode, clock=ticker.name),
            "control": _result(measured[0], twin, twin, spec),
            "models": {
                name: _facts(model, own)
                | _result(measured[0], twin, own, spec, speedup=own is not measured[0])
                for (name, model), own in zip(models.items(), measured, strict=True)
            },
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
    lifted = {key: entry.pop(key) for key in ("speedup", "speedup_low", "speedup_high", "verdict")}
    shared = {key: value for key, value in result.items() if key not in ("models", "reference")}
    return shared | {"dense": result["models"][dense], "pruned": entry} | lifted


def random_inputs(model: PreTrainedModel, spec: SpeedSpec, seed: int) -> dict[str, Tensor]:
    """A batch of the model's own form, for measuring without a task.

    Args:
        model: takes token ids or images.
        spec: gives ``batch_size`` and ``input_tokens`` (where it is None: 64, or all positions of a model
            that has fewer).
        seed: decides the batch.

    Returns:
        ``input_ids, attention_mask``, ``[B, T]``, without special tokens and all attended; or
        ``pixel_values``, ``[B, C, H, W]``, standard normal. On the CPU.

    Raises:
        UnsupportedModelError: if the model takes neither.
        PrunekitError: if the model has fewer positions than ``spec.input_tokens``.
    """
    generator = torch.Generator().manual_seed(seed)
    config = model.config
    if model.main_input_name == "pixel_values":
        size = config.image_size
        height, width = (size, size) if isinstance(size, int) else size
        shape = (spec.batch_size, config.num_channels, height, width)
        return {"pixel_values": torch.randn(shape, generator=generator)}
    if model.main_input_name != "input_ids":
        raise UnsupportedModelError(
            f"{type(model).__name__} takes {model.main_input_name!r}; random inputs exist for 'input_ids' "
            "and 'pixel_values'. Measure it with a task's batch instead."
        )
    positions = getattr(config, "max_position_embeddings", None)
    length = spec.input_tokens or min(DEFAULT_INPUT_TOKENS, positions or DEFAULT_INPUT_TOKENS)
    _check_positions("speed.input_tokens", length, positions, model)
    vocabulary = torch.arange(model.get_input_embeddings().num_embeddings)
    ordinary = vocabulary[
        ~torch.isin(vocabulary, torch.tensor(sorted(_special_ids(config)), dtype=torch.long))
    ]
    drawn = torch.randint(len(ordinary), (spec.batch_size, length), generator=generator)
    input_ids = ordinary[drawn]  # [B, T]
    return {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}


def _special_ids(config: Any) -> set[int]:
    names = ("pad", "bos", "eos", "unk", "sep", "cls", "mask", "decoder_start")
    found = [getattr(config, f"{name}_token_id", None) for name in names]
    return {i for ids in found if ids is not None for i in (ids if isinstance(ids, list) else [ids])}


def _check(models: Mapping[str, PreTrainedModel], spec: SpeedSpec) -> tuple[str, torch.device]:
    """What is timed ("generate" or "forward") and where, once it is sure that the models can be compared."""
    if not models:
        raise PrunekitError("no model to measure. Give at least one; the first is the reference.")
    places = {name: str(model.device) for name, model in models.items()}
    if len(set(places.values())) > 1 or next(iter(places.values())).partition(":")[0] not in ("cpu", "cuda"):
        found = ", ".join(f"{name} on {place}" for name, place in places.items())
        raise PrunekitError(
            f"speed is measured on one device, cpu or cuda; found {found}. Move them with .to()."
        )
    modes = {name: "generate" if generates(model) else "forward" for name, model in models.items()}
    if len(set(modes.values())) > 1:
        found = ", ".join(f"{name} by {mode}" for name, mode in modes.items())
        raise PrunekitError(f"these models cannot be compared: {found}. Measure them in separate runs.")
    mode, model = next(iter(modes.values())), next(iter(models.values()))
    if mode == "generate":
        positions = getattr(model.config, "max_position_embeddings", None)
        _check_positions("speed.new_tokens", spec.new_tokens, positions, model)
    return mode, model.device


def _check_positions(key: str, asked: int, positions: int | None, model: PreTrainedModel) -> None:
    if positions is not None and asked > positions:
        raise PrunekitError(
            f"{key} = {asked}, but {type(model).__name__} has {positions} positions. "
            f"Ask for {positions} or fewer."
        )


def _run_rounds(
    contestants: Sequence[PreTrainedModel],
    sample: Callable[[PreTrainedModel], Sample],
    spec: SpeedSpec,
    progress: Progress | None,
) -> list[list[Sample]]:
    """Samples by contestant, one a round, warm-up left out."""
    samples: list[list[Sample]] = [[] for _ in contestants]
    total = spec.warmup + spec.rounds
    bars = progress or Progress(quiet=True)
    with torch.inference_mode(), bars.task("Timing", total=total) as advance:
        for number in range(total):
            for index in _order(len(contestants), number):
                taken = sample(contestants[index])
                if number >= spec.warmup:
                    samples[index].append(taken)
            advance(1)
    return samples


def _order(count: int, number: int) -> list[int]:
    """Order of the contestants in one round.

    A plain rotation would let a model always run after the same other one, with what that one left in the
    caches. Rows of a Williams square (0, n-1, 1, n-2, ... shifted by the round), read backwards in every
    other cycle, put each model behind each other one equally often.
    """
    zigzag = [i // 2 if i % 2 == 0 else count - 1 - i // 2 for i in range(count)]
    row = [(i + number) % count for i in zigzag]
    return row[::-1] if number // count % 2 else row


def _result(
    reference: Sequence[Sample],
    twin: Sequence[Sample],
    own: Sequence[Sample],
    spec: SpeedSpec,
    *,
    speedup: bool = True,
) -> dict[str, Any]:
    """Summary of one contestant's call, its parts beside it."""

    def times(samples: Sequence[Sample], part: str) -> list[float]:
        return [sample.times_ms[part] for sample in samples]

    def figures(part: str) -> dict[str, Any]:
        result = statistics.summary(times(own, part))
        if speedup:
            result |= statistics.compare(
                times(reference, part), times(twin, part), times(own, part), spec.seed
            )
        return result

    result = figures("call")
    parts = {part: figures(part) for part in own[0].times_ms if part != "call"}
    if parts:
        parts["natural"]["tokens"] = own[-1].natural_tokens
        result["parts"] = parts
    return result


def _facts(model: PreTrainedModel, samples: Sequence[Sample]) -> dict[str, Any]:
    tensors = [*model.parameters(), *model.buffers()]
    weight_bytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    peaks = [sample.peak_bytes for sample in samples if sample.peak_bytes is not None]
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "weights_mib": weight_bytes / _MIB,
        "peak_mib": (weight_bytes + max(peaks)) / _MIB if peaks else None,
        "attention": model.config._attn_implementation,
    }


def _settings(
    models: Mapping[str, PreTrainedModel],
    batch: Mapping[str, Tensor],
    spec: SpeedSpec,
    *,
    mode: str,
    clock: str,
) -> dict[str, Any]:
    reference, model = next(iter(models.items()))
    return {
        "format": FORMAT,
        "reference": reference,
        "mode": mode,
        "device": model.device.type,
        "dtype": spec.dtype,
        "attention": model.config._attn_implementation,
        "threads": torch.get_num_threads(),
        "batch_size": len(next(iter(batch.values()))),
        "input_tokens": batch["input_ids"].shape[1] if "input_ids" in batch else None,
        "input_shapes": {name: list(tensor.shape) for name, tensor in batch.items()},
        "num_beams": spec.num_beams if mode == "generate" else None,
        "new_tokens": spec.new_tokens if mode == "generate" else None,
        "rounds": spec.rounds,
        "warmup": spec.warmup,
        "seed": spec.seed,
        "clock": clock,
    }


def _placed(inputs: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    return {
        name: tensor.to(device, dtype if tensor.is_floating_point() else tensor.dtype)
        for name, tensor in inputs.items()
    }
