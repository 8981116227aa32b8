"""What the doctor looks at: a model or a run folder, loaded, with the settings it is measured at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from prunekit.errors import AdapterMismatchError, CheckpointError, PrunekitError, UnsupportedModelError
from prunekit.json_files import read_strictly
from prunekit.models import load_model
from prunekit.pruning.target import PrunableModel, find_adapter
from prunekit.recipe import SpeedSpec
from prunekit.shown import visible

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from prunekit.adapters.base import Adapter


@dataclass(frozen=True)
class Side:
    """A model, with its units where an adapter knows them.

    Args:
        name: as users write it.
        model: on the device that it is measured on.
        target: the same model with its units; none where it cannot be pruned.
        no_units: why it cannot, if so.
    """

    name: str
    model: PreTrainedModel
    target: PrunableModel | None
    no_units: str | None = None


@dataclass(frozen=True)
class Subject:
    """What is diagnosed.

    Args:
        side: the model, or a run's pruned model.
        spec: how it is measured.
        dense: a run's dense model; none for a model alone, or where it cannot be loaded.
        no_dense: why a run's dense model cannot be loaded, if so.
    """

    side: Side
    spec: SpeedSpec
    dense: Side | None = None
    no_dense: str | None = None


def load_subject(name: str, options: Mapping[str, Any], adapters: Mapping[str, Adapter]) -> Subject:
    """The model that ``name`` means, and for a finished run the model that it started from.

    Args:
        name: hub id, folder, run folder or ``embedded:NAME``.
        options: keys of `SpeedSpec` that win over a run's own settings and over the defaults.
        adapters: those installed.

    Raises:
        CheckpointError: if there is no such model, or a run's ``report.json`` cannot be read.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    side = make_side(name, load_model(name).to(device), adapters)
    report = read_report(Path(name))
    if report is None:
        return Subject(side, SpeedSpec(**options))
    spec = SpeedSpec(**{**_settings(report), **options})
    try:
        dense = make_side(report["model"], load_model(report["model"]).to(device), adapters)
    except PrunekitError as error:
        return Subject(side, spec, no_dense=str(error))
    return Subject(side, spec, dense)


def make_side(name: str, model: PreTrainedModel, adapters: Mapping[str, Adapter]) -> Side:
    """``model`` with its units, or with the reason why it has none."""
    try:
        return Side(name, model, PrunableModel(model, find_adapter(model, adapters)))
    except (UnsupportedModelError, AdapterMismatchError) as error:
        return Side(name, model, None, str(error))


def read_report(folder: Path) -> dict[str, Any] | None:
    """The report of a finished pruning run; none if ``folder`` is no such run.

    Raises:
        CheckpointError: if the file is damaged, or is another kind of report.
    """
    path = folder / "report.json"
    if not path.is_file() or not (folder / "model").is_dir():
        return None
    try:
        report, _ = read_strictly(path)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read: {visible(str(error), 300)}. Delete it and repeat the run's command, "
            f"which writes it again, or give {folder / 'model'} to look at the model alone."
        ) from error
    if not isinstance(report, dict) or "model" not in report or "speed" not in report:
        raise CheckpointError(
            f"{path} has no `model` and `speed`, so it is no pruning run's report. Give {folder / 'model'} "
            "to look at the model alone."
        )
    return report


def _settings(report: Mapping[str, Any]) -> dict[str, Any]:
    """A run's speed settings: those of its recipe, with the input length that it came to."""
    stated = report.get("recipe", {}).get("speed", {})
    found = {key: value for key, value in stated.items() if key in SpeedSpec.model_fields}
    return {**found, "input_tokens": report["speed"].get("input_tokens")}
