"""The same models at every batch size and length; what cannot be measured says why, the rest goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from prunekit.errors import PrunekitError
from prunekit.measure.environment import environment_record
from prunekit.measure.failures import ROW_FAILURES, describe, free_memory
from prunekit.measure.inputs import check_positions, default_length, shared_inputs, takes_images
from prunekit.measure.prepare import generates
from prunekit.measure.speed import Contestant, measure_speed
from prunekit.measure.timing import Clock
from prunekit.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from prunekit.recipe import SpeedSpec

FORMAT = 1
_COMPARED = ("speedup", "speedup_low", "speedup_high", "verdict")


def measure_sweep(
    models: Mapping[str, PreTrainedModel | Contestant],
    spec: SpeedSpec,
    batches: Sequence[int],
    lengths: Sequence[int | None] = (None,),
    *,
    parts: bool = True,
    progress: Progress | None = None,
    clock: Callable[[], float] | Clock | None = None,
) -> dict[str, Any]:
    """`measure_speed` on random inputs at every batch size and length.

    Args:
        models: as for `measure_speed`; the first is the reference. They move to the GPU where there is one,
            and a model that does not fit there is an error of its rows.
        spec: how to measure; ``batch_size`` and ``input_tokens`` come from the sweep.
        batches: batch sizes, in the order to measure them.
        lengths: input tokens likewise; ``None`` is ``spec.input_tokens``, or 64, or as many as all models
            have positions for. Images have no length, so models of images have one column.
        parts: as for `measure_speed`.
        progress: draws one bar a cell.
        clock: as for `measure_speed`.

    Returns:
        Plain data: ``reference``, ``mode``, ``environment`` and ``cells``, each with ``batch_size``,
        ``input_tokens`` and what `measure_speed` returned. ``models[name]`` of a cell has only ``error``
        where the model could not be measured there. A cell whose reference failed has the times of the
        others without speedups, and neither ``control`` nor ``noise``.

    Raises:
        PrunekitError: if there is no model.
    """
    if not models:
        raise PrunekitError("no model to measure. Give at least one; the first is the reference.")
    contestants = {name: m if isinstance(m, Contestant) else Contestant(m) for name, m in models.items()}
    failed = _place(contestants) | _unlike_the_reference(contestants)
    images = takes_images(next(iter(contestants.values())).model)
    all_lengths = [None] if images else [_length(length, spec, contestants) for length in lengths]
    cells = [
        _cell(
            contestants,
            failed,
            spec.model_copy(update={"batch_size": batch, "input_tokens": length}),
            {"parts": parts, "progress": progress, "clock": clock},
        )
        for batch in batches
        for length in all_lengths
    ]
    reference = next(iter(contestants))
    return {
        "format": FORMAT,
        "reference": reference,
        "mode": _mode(contestants[reference]),
        "cells": cells,
        "environment": environment_record(),
    }


def _place(contestants: Mapping[str, Contestant]) -> dict[str, str]:
    """Move the models to the GPU where there is one; the value is what went wrong, by name."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    failed = {}
    for name, contestant in contestants.items():
        try:
            contestant.model.to(device)
        except ROW_FAILURES as error:
            failed[name] = describe(error)
        if name in failed:
            contestant.model.to("cpu")
            free_memory()
    return failed


def _unlike_the_reference(contestants: Mapping[str, Contestant]) -> dict[str, str]:
    (reference, first), *others = contestants.items()
    return {
        name: f"timed by {_what(other)}, but the reference {reference} by {_what(first)}: the times cannot "
        "be compared. Measure it in a run of its own."
        for name, other in others
        if _what(other) != _what(first)
    }


def _what(contestant: Contestant) -> str:
    return f"{_mode(contestant)} on {contestant.model.main_input_name}"


def _mode(contestant: Contestant) -> str:
    return "generate" if generates(contestant.model) else "forward"


def _length(asked: int | None, spec: SpeedSpec, contestants: Mapping[str, Contestant]) -> int:
    return asked or spec.input_tokens or default_length([c.model for c in contestants.values()])


def _cell(
    contestants: Mapping[str, Contestant],
    failed: Mapping[str, str],
    spec: SpeedSpec,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """One batch size at one length."""
    asked = {"batch_size": spec.batch_size, "input_tokens": spec.input_tokens}
    errors = {**_too_long(contestants, spec), **failed}
    label = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in asked.items() if value)
    measured: dict[str, Any] = {}
    while not measured and (left := _left(contestants, errors)):
        try:
            inputs = shared_inputs([contestant.model for contestant in left.values()], spec)
            measured = measure_speed(left, inputs, spec, label=label, **options)
        except ROW_FAILURES as error:  # of the first that is left: without it the next one leads
            errors[next(iter(left))] = describe(error)
    reference = next(iter(contestants))
    if measured.get("reference") not in (None, reference):
        measured = _without_reference(measured)
    rows = measured.get("models", {})
    both = {name: rows.get(name) or {"error": errors[name]} for name in contestants}
    return measured | asked | {"reference": reference, "models": both}


def _left(contestants: Mapping[str, Contestant], errors: Mapping[str, str]) -> dict[str, Contestant]:
    return {name: contestant for name, contestant in contestants.items() if name not in errors}


def _too_long(contestants: Mapping[str, Contestant], spec: SpeedSpec) -> dict[str, str]:
    errors = {}
    for name, contestant in contestants.items():
        try:
            check_positions("speed.input_tokens", spec.input_tokens or 0, contestant.model)
        except PrunekitError as error:
            errors[name] = str(error)
    return errors


def _without_reference(measured: Mapping[str, Any]) -> dict[str, Any]:
    """Times that stand alone: whom they were compared with is not whom the user asked to compare with."""
    rows = {}
    for name, row in measured["models"].items():
        rows[name] = _bare(row)
        if "parts" in row:
            rows[name]["parts"] = {part: _bare(figures) for part, figures in row["parts"].items()}
    kept = {key: value for key, value in measured.items() if key not in ("control", "noise")}
    return kept | {"models": rows}


def _bare(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in _COMPARED}
