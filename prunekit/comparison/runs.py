"""The runs of a comparison: one a method, setting and seed, each in its own folder, none lost by another."""

from __future__ import annotations

import json
import re
import time
import traceback
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunekit import manifest
from prunekit.comparison.groups import DENSE
from prunekit.errors import PrunekitError, RecipeError, RunFolderError
from prunekit.files import write_text, writing
from prunekit.job import single
from prunekit.json_files import read_json
from prunekit.measure.speed import as_pair
from prunekit.pipeline import open_job
from prunekit.recipe import Recipe, dump_recipe, resolve_method
from prunekit.reports.comparison_columns import duration
from prunekit.runfolder import RunFolder, one_writer
from prunekit.suggest import did_you_mean
from prunekit.tasks.base import settled

if TYPE_CHECKING:
    from prunekit.plugins import Registry
    from prunekit.progress import Progress

ERROR_FILE = "error.txt"


@dataclass(frozen=True)
class Cell:
    """A run that a comparison wants.

    Attributes:
        name: of its folder in the comparison's.
        label: the recipe's label for the method.
        point: the swept key and its value; empty where the sweep does not touch this method.
        recipe: what to run, with the seed of this run.
    """

    name: str
    label: str
    point: Mapping[str, Any]
    recipe: Recipe


def wanted(
    recipes: Sequence[tuple[Mapping[str, Any], Recipe]],
    seeds: Sequence[int],
    only: Sequence[str],
    registry: Registry,
) -> list[Cell]:
    """Return the runs, all methods of a seed before the next seed, so that a table fills evenly.

    Args:
        recipes: the recipe at each point of a sweep; one with an empty point where nothing is swept.
        seeds: of the runs of each method.
        only: patterns of labels, as in a shell; empty for all.
        registry: the installed methods.

    Raises:
        RecipeError: if the recipe has no methods, no label fits ``only``, or a method cannot be run.
    """
    labels = _labels(recipes[0][1], only)
    cells: dict[str, Cell] = {}
    for seed in seeds:
        for label in labels:
            found = [(point, _alone(recipe, label, seed, registry)) for point, recipe in recipes]
            swept = len({dump_recipe(run) for _, run in found}) > 1
            for point, run in found if swept else found[:1]:
                at = point if swept else {}
                name = _folder_name(label, at, seed, taken=cells)
                cells[name] = Cell(name, label, at, run)
    return list(cells.values())


def _folder_name(label: str, point: Mapping[str, Any], seed: int, *, taken: Collection[str]) -> str:
    """Label, swept values and seed in characters that every file system takes; no other run's name."""
    words = [label, *(str(word) for key, value in point.items() for word in (key.rpartition(".")[2], value))]
    plain = "-".join(re.sub(r"[^A-Za-z0-9._-]+", "-", word).strip("-") for word in words)
    name, again = f"{plain}-s{seed}", 2
    while name in taken:
        name, again = f"{plain}-{again}-s{seed}", again + 1
    return name


def _labels(recipe: Recipe, only: Sequence[str]) -> list[str]:
    if not recipe.methods:
        raise RecipeError("the recipe has no methods to compare. Add them under `methods:`.")
    for pattern in only:
        if not any(fnmatchcase(label, pattern) for label in recipe.methods):
            hint = did_you_mean(pattern, recipe.methods)
            raise RecipeError(
                f"--only {pattern}: no label of the recipe fits{hint} (labels: {', '.join(recipe.methods)})."
            )
    return [
        label for label in recipe.methods if not only or any(fnmatchcase(label, pattern) for pattern in only)
    ]


def _alone(recipe: Recipe, label: str, seed: int, registry: Registry) -> Recipe:
    """The recipe of one run: what the other labels say does not touch it."""
    entry = recipe.methods[label]
    return recipe.model_copy(
        update={"seed": seed, "methods": {label: entry}, "task": settled(recipe.task, registry)}
    )


def run_all(
    cells: Sequence[Cell], out: Path, *, registry: Registry, progress: Progress
) -> dict[str, str | None]:
    """Plan, cut, recover and score each run; what is done already is not done again.

    A run that fails keeps its error, in its folder with where it happened, and the others go on. Given
    again, it is tried again.

    Returns:
        By name the error, none where all went well.

    Raises:
        RunFolderError: if a folder holds another run.
    """
    errors: dict[str, str | None] = {}
    fresh: list[float] = []
    for number, cell in enumerate(cells, start=1):
        at = f"[{number}/{len(cells)}] {cell.name}"
        if _is_scored(cell, out / cell.name, registry):
            errors[cell.name] = None
            progress.say(f"{at}: there already, {_quality(out / cell.name)}")
            continue
        progress.say(f"{at}: begun")
        started = time.monotonic()
        errors[cell.name] = _try(cell, out / cell.name, registry=registry, progress=progress)
        fresh.append(time.monotonic() - started)
        left = sum(fresh) / len(fresh) * (len(cells) - number)
        said = errors[cell.name] or _quality(out / cell.name)
        progress.say(f"{at}: {said}; took {duration(fresh[-1])}, about {duration(left)} to go")
    return errors


def _is_scored(cell: Cell, folder: Path, registry: Registry) -> bool:
    """Whether a run is done up to its quality.

    Raises:
        RunFolderError: if the folder holds another run, or a file of it was changed.
    """
    if not (folder / "quality.json").is_file():
        return False
    own = single(cell.recipe, resolve_method(cell.recipe, cell.label, registry))
    run = RunFolder(folder, dump_recipe(own))
    return all(run.has(stage) for stage in ("verify", "recover", "quality"))


def _try(cell: Cell, folder: Path, *, registry: Registry, progress: Progress) -> str | None:
    """The run's error, if it fails."""
    try:
        with one_writer(folder):
            open_job(cell.recipe, cell.label, folder, registry=registry, progress=progress).results()
    except RunFolderError:
        raise
    except Exception as error:  # whatever a method does, the other rows must not be lost
        write_text(folder / ERROR_FILE, traceback.format_exc())
        if isinstance(error, PrunekitError):
            return str(error)
        return " ".join(f"{type(error).__name__}: {error} (see {folder / ERROR_FILE})".split())
    (folder / ERROR_FILE).unlink(missing_ok=True)
    return None


def finish(
    cell: Cell,
    folder: Path,
    speed: Mapping[str, Any] | None,
    timed: str,
    *,
    registry: Registry,
    progress: Progress,
) -> None:
    """Give a run its share of the common measurement of speed, and its report; those it has already stay.

    Args:
        cell: the run.
        folder: its folder.
        speed: what all models were measured by, or ``error``.
        timed: the run's key in it.
        registry: the installed adapters, tasks and methods.
        progress: draws bars.
    """
    own = None
    if speed is not None and "error" not in speed and "error" not in speed["models"][timed]:
        own = as_pair(speed, DENSE, timed)
    path, report = folder / "speed.json", folder / "report.json"
    text = "" if own is None else json.dumps(own, indent=1) + "\n"
    if report.is_file() and (path.read_bytes() if path.is_file() else b"") == text.encode():
        return
    with one_writer(folder):
        manifest.forget(folder, ("speed", "report"))
        with writing(folder):
            report.unlink(missing_ok=True)
            if own is None:
                path.unlink(missing_ok=True)
        if own is not None:
            write_text(path, text)
            manifest.record(folder, "speed")
        job = open_job(cell.recipe, cell.label, folder, registry=registry, progress=progress)
        job.finish(job.results(), own)


def _quality(folder: Path) -> str:
    quality = read_json(folder / "quality.json", "Delete it to score that run again.")
    primary = quality["primary"]
    return f"{primary} {quality['pruned'][primary]:.4g} (dense {quality['dense'][primary]:.4g})"
