"""All models of a comparison timed together: one process, rounds interleaved, the dense one as reference."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from prunekit.comparison.groups import DENSE
from prunekit.errors import PrunekitError
from prunekit.files import write_text
from prunekit.json_files import read_json
from prunekit.measure.speed import measure_speed, random_inputs
from prunekit.models import load_model, model_fingerprint

if TYPE_CHECKING:
    from prunekit.progress import Progress
    from prunekit.recipe import SpeedSpec

FILE = "timing.json"


def time_together(
    dense: str, runs: Mapping[str, Path], spec: SpeedSpec, out: Path, progress: Progress
) -> tuple[dict[str, Any], dict[str, str]]:
    """Times of the dense model and of each run's, kept in ``out`` until models or settings change.

    Runs whose saved models are equal, byte for byte, are one model and timed once.

    Args:
        dense: name of the dense model.
        runs: folder of each run, by its name.
        spec: how to measure; its ``input_tokens`` are given.
        out: folder of the comparison.
        progress: draws a bar.

    Returns:
        What `prunekit.measure.speed.measure_speed` returns, or only ``error`` where it failed; and by run
        the name that its model has there.

    Raises:
        RunFolderError: if the times that were kept are damaged; the text says what to delete.
    """
    prints = {name: model_fingerprint(str(folder / "model")) for name, folder in runs.items()}
    first = {fingerprint: name for name, fingerprint in reversed(prints.items())}
    timed = {name: first[fingerprint] for name, fingerprint in prints.items()}
    asked = {
        "dense": model_fingerprint(dense),
        "models": {name: prints[name] for name in dict.fromkeys(timed.values())},
        "spec": spec.model_dump(mode="json"),
    }
    path = out / FILE
    if path.is_file():
        stored = read_json(path, "Delete it to time all models again.")
        if stored.get("asked") == asked and isinstance(stored.get("result"), dict):
            return stored["result"], timed
    try:
        result = _measure(dense, {name: runs[name] for name in asked["models"]}, spec, progress)
    except PrunekitError as error:
        return {"error": str(error)}, timed
    write_text(path, json.dumps({"asked": asked, "result": result}, indent=1) + "\n")
    return result, timed


def _measure(dense: str, runs: Mapping[str, Path], spec: SpeedSpec, progress: Progress) -> dict[str, Any]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    names = {DENSE: dense, **{name: str(folder / "model") for name, folder in runs.items()}}
    models = {name: load_model(source).to(device) for name, source in names.items()}
    inputs = random_inputs(models[DENSE], spec, spec.seed)
    return measure_speed(models, inputs, spec, parts=False, progress=progress, label="Timing all models")
