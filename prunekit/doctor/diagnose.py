"""``prunekit doctor``: runs the experiments, interleaved with the model itself, and hands their times on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from prunekit.doctor import says, verdicts
from prunekit.doctor.experiments import (
    HALF_NEURONS,
    Experiment,
    cut_experiments,
    narrow_copy,
    rounding_experiment,
    setting_experiments,
)
from prunekit.doctor.subject import Side, Subject, load_subject
from prunekit.doctor.widths import matrix_widths, sublayer_widths
from prunekit.errors import PrunekitError
from prunekit.measure.failures import ROW_FAILURES, describe, free_memory
from prunekit.measure.prepare import generates
from prunekit.measure.speed import Contestant, measure_speed, random_inputs
from prunekit.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from prunekit.plugins import Registry
    from prunekit.recipe import SpeedSpec

FORMAT = 1
MODEL = "as it is"
LARGEST_BATCH = 64
"""Batches are doubled up to this, or to twice the asked one, unless all is known before."""
_COMPARED = ("speedup", "speedup_low", "speedup_high", "verdict")
_SETTINGS = (
    *("mode", "device", "dtype", "attention", "threads", "batch_size", "input_tokens", "num_beams"),
    *("new_tokens", "length_penalty", "static_cache", "compile", "rounds", "warmup", "seed", "clock"),
    "environment",
)


def diagnose(
    name: str, options: Mapping[str, Any], *, registry: Registry, progress: Progress | None = None
) -> dict[str, Any]:
    """Where a model's time goes, what bounds it, and what would make it faster, each with its measurement.

    Args:
        name: hub id, folder, run folder or ``embedded:NAME``; of a run, its pruned model is looked at, beside
            the dense one.
        options: keys of `SpeedSpec` given by the user.
        registry: gives the adapters.
        progress: draws a bar for each measurement.

    Returns:
        Plain data; docs/doctor.md lists the keys.

    Raises:
        PrunekitError: if the model cannot be loaded, or cannot be run at these settings.
    """
    return examine(load_subject(name, options, registry.adapters), progress=progress)


def examine(subject: Subject, *, progress: Progress | None = None) -> dict[str, Any]:
    """The same for a model that is loaded already."""
    side, spec = subject.side, subject.spec
    origin = subject.dense.target if subject.dense else None
    cuts: list[Experiment] = []
    rounded = narrow = None
    if side.target is not None:
        cuts = cut_experiments(side.target, spec, origin=origin.structure if origin else None)
        rounded = rounding_experiment(side.target, spec)
        narrow = narrow_copy(side.target, spec)
    experiments = [*cuts, *([rounded] if rounded else []), *setting_experiments(side.model, spec)]
    result, rows = _run(side, experiments, spec, progress)
    whole = result["models"][MODEL]
    entry, run = _split(subject, progress)
    ladder = _ladder(side.model, narrow, spec, progress)
    pairs = verdicts.doublings(ladder, spec.seed)
    bound = verdicts.bound(pairs, spec.batch_size)
    if bound.get("batch") == spec.batch_size:
        rows.append(verdicts.larger_batch(bound, result["control"]))
    found = {
        "format": FORMAT,
        "model": side.name,
        "settings": {key: result.get(key) for key in _SETTINGS},
        "control": result["control"],
        "noise": result["noise"],
        "median_ms": whole["median_ms"],
        "time": verdicts.time_shares({**(entry or whole), "median_ms": whole["median_ms"]}, rows),
        "bound": bound,
        "width_from": verdicts.width_from(ladder),
        "batches": [_without_samples(row) for row in ladder],
        "doublings": pairs,
        "dominant": verdicts.dominant(rows),
        "experiments": verdicts.ranked(rows),
        "no_cuts": side.no_units or (None if cuts else "nothing is left to halve"),
        "widths": sublayer_widths(side.target.structure) if side.target else matrix_widths(side.model),
        "run": run,
        "measurement": result,
    }
    return {**found, "says": says.sentences(found)}


def _run(
    side: Side, experiments: list[Experiment], spec: SpeedSpec, progress: Progress | None
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The speed result of the model and everything tried on it, and a row for each experiment."""
    contestants = {MODEL: Contestant(side.model, spec)}
    contestants |= {
        experiment.name: Contestant(experiment.model, experiment.spec) for experiment in experiments
    }
    result = _tried(contestants, side.model, spec, progress, label="experiments", parts=False)
    if isinstance(result, str):
        raise PrunekitError(f"{side.name} cannot be measured at batch {spec.batch_size}: {result}")
    base_ms = result["models"][MODEL]["median_ms"]
    keys = ("name", "kind", "factor", "change", "left")
    rows = [
        {key: getattr(experiment, key) for key in keys}
        | {"how": list(experiment.how)}
        | _gain(result["models"][experiment.name], base_ms)
        for experiment in experiments
    ]
    return result, rows


def _gain(entry: Mapping[str, Any], base_ms: float) -> dict[str, Any]:
    if "error" in entry:
        return {"error": entry["error"]}
    return {
        **{key: entry[key] for key in ("median_ms", *_COMPARED)},
        "saved_ms": base_ms - entry["median_ms"],
    }


def _ladder(
    model: PreTrainedModel, narrow: PreTrainedModel | None, spec: SpeedSpec, progress: Progress | None
) -> list[dict[str, Any]]:
    """The model, and beside it half its neurons, at batches that double, until both questions are settled."""
    rows: list[dict[str, Any]] = []
    for batch in batches(spec.batch_size):
        own = spec.model_copy(update={"batch_size": batch})
        models = {MODEL: model} if narrow is None else {MODEL: model, HALF_NEURONS: narrow}
        found = _tried(models, model, own, progress, label=f"batch {batch}", parts=False)
        if isinstance(found, str):
            rows.append({"batch": batch, "error": found})
            break
        entry = found["models"][MODEL]
        row = {"batch": batch, "median_ms": entry["median_ms"], "samples_ms": entry["samples_ms"]}
        if narrow is not None:
            row["narrow"] = _gain(found["models"][HALF_NEURONS], entry["median_ms"])
        rows.append(row)
        pairs = verdicts.doublings(rows, spec.seed)
        settled = narrow is None or verdicts.width_from(rows) is not None
        if batch >= 2 * spec.batch_size and settled and _is_compute_bound(pairs):
            break
    return rows


def batches(asked: int) -> list[int]:
    """Powers of 2, the asked batch and its double, in ascending order."""
    limit = max(2 * asked, LARGEST_BATCH)
    powers = [2**power for power in range(limit.bit_length()) if 2**power <= limit]
    return sorted({*powers, asked, 2 * asked})


def _is_compute_bound(pairs: list[dict[str, Any]]) -> bool:
    return bool(pairs) and pairs[-1]["ratio"] >= verdicts.COMPUTE_FROM


def _split(
    subject: Subject, progress: Progress | None
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """The model with its parts timed, and for a run the comparison with its dense model."""
    side, dense, spec = subject.side, subject.dense, subject.spec
    if dense is None:
        run = {"error": subject.no_dense} if subject.no_dense else None
    else:
        models = {"dense": dense.model, "pruned": side.model}
        found = _tried(models, dense.model, spec, progress, label="dense and pruned")
        problem = found if isinstance(found, str) else found["models"]["pruned"].get("error")
        if not isinstance(found, str) and problem is None:
            return found["models"]["pruned"], _compared(dense, side, found)
        run = {"error": problem}
    if not generates(side.model):
        return None, run
    found = _tried({MODEL: side.model}, side.model, spec, progress, label="parts")
    return (None if isinstance(found, str) else found["models"][MODEL]), run


def _compared(dense: Side, side: Side, found: Mapping[str, Any]) -> dict[str, Any]:
    """A run's dense and pruned model side by side."""
    before, after = found["models"]["dense"], found["models"]["pruned"]
    parts = verdicts.removed_time(verdicts.time_shares(before), verdicts.time_shares(after))
    return {
        **{key: after[key] for key in _COMPARED},
        "dense": dense.name,
        "dense_ms": before["median_ms"],
        "pruned_ms": after["median_ms"],
        "parts": parts,
        "outside": verdicts.outside(parts),
        "kept": _kept(dense, side),
        "parameters": [before["parameters"], after["parameters"]],
        "macs": [before["macs"], after["macs"]] if before["macs"] and after["macs"] else None,
        "control": found["control"],
        "measurement": found,
    }


def _kept(dense: Side, pruned: Side) -> list[dict[str, Any]]:
    """Blocks, heads and neurons of both models, by stack."""
    if dense.target is None or pruned.target is None:
        return []
    rows = []
    for stack in dense.target.structure.stacks:
        row: dict[str, Any] = {"stack": stack}
        for unit in ("block", "head", "neuron"):
            row[unit] = [_count(side.target, stack, unit) for side in (dense, pruned) if side.target]
        rows.append(row)
    return rows


def _count(target: Any, stack: str, unit: str) -> int:
    if unit == "block":
        return int(target.structure.stacks[stack].depth)
    subs = target.structure.sublayers.values()
    return sum(sub.units.size for sub in subs if sub.stack == stack and sub.units.kind == unit)


def _tried(
    models: Mapping[str, Any],
    of: PreTrainedModel,
    spec: SpeedSpec,
    progress: Progress | None,
    *,
    label: str,
    parts: bool = True,
) -> dict[str, Any] | str:
    """Times on random inputs for ``of``, or why there are none; what a failed call held is given back."""
    try:
        inputs = random_inputs(of, spec, spec.seed)
        return measure_speed(models, inputs, spec, parts=parts, progress=progress, label=label)
    except ROW_FAILURES as error:
        message = describe(error)
    free_memory()
    return message


def _without_samples(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != "samples_ms"}
