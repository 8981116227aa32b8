"""A comparison, straight through: run every method, time all models together, join the figures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import prunekit
from prunekit.comparison import FILE
from prunekit.comparison.checks import check_comparable
from prunekit.comparison.groups import DENSE, Finished, dense_group, find_reference, method_groups
from prunekit.comparison.pages import write_pages
from prunekit.comparison.rows import make_rows
from prunekit.comparison.runs import Cell, finish, run_all, wanted
from prunekit.comparison.timing import time_together
from prunekit.errors import ComparisonError, RecipeError
from prunekit.files import write_text
from prunekit.job import timing_settings
from prunekit.json_files import read_json
from prunekit.manifest import check_read
from prunekit.measure.environment import environment_record
from prunekit.models import load_processor
from prunekit.pipeline import TEACHERS
from prunekit.recipe import Recipe, resolve_method
from prunekit.tasks.base import make_task
from prunekit.tasks.records import read_answers
from prunekit.teacher import dense_model

if TYPE_CHECKING:
    from prunekit.plugins import Registry
    from prunekit.progress import Progress
    from prunekit.recipe import SpeedSpec
    from prunekit.tasks.base import Task

FORMAT = 1
_LEFT_ALONE = ("model", "task", "teacher", "evaluate", "speed", "seed")
"""What no sweep may touch: rows would differ in more than how they were pruned."""

_MACHINE = ("cpu", "gpu", "threads", "torch")

Recipes = Sequence[tuple[Mapping[str, Any], Recipe]]
"""The recipe at each point of a sweep, by swept key and value; one at an empty point if nothing is swept."""


@dataclass(frozen=True)
class About:
    """What a comparison says of itself: its name, the command that made it, the row all are compared with."""

    name: str
    command: str
    reference: str = DENSE


def compare_recipe(
    recipes: Recipes,
    about: About,
    out: Path,
    *,
    seeds: Sequence[int],
    only: Sequence[str] = (),
    registry: Registry,
    progress: Progress,
) -> dict[str, Any]:
    """Run each method of a recipe with each seed, and put them side by side.

    Given again, it goes on where it stopped. A teacher is trained once, with the recipe's own seed; runs
    share scores where they need the same; the dense model is evaluated once; all models are timed together. A
    run that fails is a row with its error.

    Args:
        recipes: what to run.
        about: what the comparison says of itself.
        out: its folder; every run has a folder in it.
        seeds: of the runs of each method.
        only: patterns of the labels to run; all by default.
        registry: the installed adapters, tasks and methods.
        progress: draws bars, and says how each run went.

    Returns:
        The content of ``comparison.json``.

    Raises:
        PrunekitError: if the recipe cannot be compared, or a folder holds another run.
    """
    _check_sweep(recipes)
    recipe = recipes[0][1]
    dense = dense_model(recipe, out / TEACHERS, registry=registry, progress=progress)
    if recipe.teacher is not None:  # one for all seeds
        recipes = [(point, each.model_copy(update={"teacher": dense})) for point, each in recipes]
    task = make_task(recipe.task, load_processor(dense), registry)
    cells = wanted(recipes, seeds, only, registry)
    planned = {cell.name: _planned(cell, registry) for cell in cells}
    find_reference(
        [dense_group(Finished(DENSE, DENSE), []), *method_groups([*planned.values()])], about.reference
    )
    errors = run_all(cells, out, registry=registry, progress=progress)
    done = [cell for cell in cells if errors[cell.name] is None]
    folders = {cell.name: out / cell.name for cell in done}
    speed, timed = _timed(dense, folders, recipe.speed, task, out, progress)
    for cell in done:
        finish(cell, folders[cell.name], speed, timed[cell.name], registry=registry, progress=progress)
    runs = [
        replace(
            planned[cell.name],
            error=errors[cell.name],
            timed=timed.get(cell.name),
            **(_found(folders[cell.name]) if cell.name in folders else {}),
        )
        for cell in cells
    ]
    facts = {
        "description": recipe.description,
        "seeds": list(seeds),
        "sweep": _sweep(recipes),
        "task": recipe.task.name,
        "quality": _of_quality(recipe, task, [run.report for run in runs if run.report]),
        "recipe": recipe.model_dump(mode="json"),
    }
    return _write(about, facts, dense, runs, speed, folders, out)


def compare_runs(
    folders: Sequence[Path], about: About, out: Path, *, registry: Registry, progress: Progress
) -> dict[str, Any]:
    """Put finished runs side by side, their models timed anew and together; nothing in their folders changes.

    Args:
        folders: run folders, as `prunekit prune` leaves them.
        about: what the comparison says of itself.
        out: its folder.
        registry: the installed tasks.
        progress: draws a bar.

    Returns:
        The content of ``comparison.json``.

    Raises:
        ComparisonError: if a folder holds no finished run, two runs did not see the same examples scored in
            the same way, or ``out`` holds another comparison.
    """
    runs = {_run_name(folder): folder for folder in folders}
    if len(runs) < len(folders):
        raise ComparisonError(f"a run is named twice in {', '.join(map(str, folders))}; name each once.")
    found = {name: _found(folder) for name, folder in runs.items()}
    reports = [each["report"] for each in found.values()]
    check_comparable(reports)
    _check_same_runs(out, list(runs))
    recipe, dense = Recipe.model_validate(reports[0]["recipe"]), reports[0]["model"]
    task = make_task(recipe.task, load_processor(dense), registry)
    speed, timed = _timed(dense, runs, recipe.speed, task, out, progress)
    finished = [
        Finished(
            label=each["report"]["label"],
            method=each["report"]["method"],
            seed=each["report"]["seed"],
            run=name,
            timed=timed[name],
            **each,
        )
        for name, each in found.items()
    ]
    seeds = sorted({run.seed for run in finished})
    facts = {
        "description": "",
        "seeds": seeds,
        "sweep": None,
        "task": recipe.task.name,
        "quality": _of_quality(recipe, task, reports),
        "recipe": None,
    }
    return _write(about, facts, dense, finished, speed, runs, out)


def _check_sweep(recipes: Recipes) -> None:
    point, first = recipes[0]
    for _, other in recipes[1:]:
        touched = [key for key in _LEFT_ALONE if getattr(first, key) != getattr(other, key)]
        if touched:
            raise RecipeError(
                f"--sweep {next(iter(point))}: {', '.join(touched)} must be the same for all rows of a "
                "comparison. Sweep a key of budget, methods, train or recover."
            )


def _sweep(recipes: Recipes) -> dict[str, Any] | None:
    keys = list(recipes[0][0])
    return {"key": keys[0], "values": [point[keys[0]] for point, _ in recipes]} if keys else None


def _planned(cell: Cell, registry: Registry) -> Finished:
    method = resolve_method(cell.recipe, cell.label, registry)
    return Finished(
        label=cell.label,
        method=method.method_class.info.name,
        point=cell.point,
        seed=cell.recipe.seed,
        run=cell.name,
        requested=method.budget.model_dump(),
    )


def _found(folder: Path) -> dict[str, Any]:
    """What a finished run says: its report, and the influences of its examples on each metric."""
    for name in ("report.json", "model/config.json"):
        if not (folder / name).is_file():
            raise ComparisonError(
                f"{folder} holds no {name}, so it is no finished run. Finish it with the command that began "
                "it, or leave it out."
            )
    check_read(folder, "report.json", "answers-dense.jsonl", "answers-pruned.jsonl")
    report = read_json(folder / "report.json", "Delete it and repeat the run's command.")
    return {"report": report, "influences": _influences(folder / "answers-pruned.jsonl")}


def _influences(answers: Path) -> dict[str, list[float]]:
    """By metric, of each example; nothing where a run kept no answers, which is told later."""
    rows = read_answers(answers) if answers.is_file() else []
    metrics = rows[0]["influences"] if rows else ()
    return {metric: [row["influences"][metric] for row in rows] for metric in metrics}


def _run_name(folder: Path) -> str:
    return f"./{folder}" if str(folder) == DENSE else str(folder)


def _check_same_runs(out: Path, names: Sequence[str]) -> None:
    path = out / FILE
    if not path.is_file():
        return
    stored = read_json(path, "Delete it and repeat the command that made it.")
    before = [seed["run"] for row in stored["rows"] for seed in row["seeds"]]
    if stored["recipe"] is not None or sorted(before) != sorted(names):
        raise ComparisonError(
            f"{out} already holds the comparison of {', '.join(before)}. Give another folder with --out."
        )


def _timed(
    dense: str,
    folders: Mapping[str, Path],
    spec: SpeedSpec,
    task: Task,
    out: Path,
    progress: Progress,
) -> tuple[dict[str, Any] | None, dict[str, str]]:
    if not folders:
        return None, {}
    return time_together(dense, folders, timing_settings(spec, task), out, progress)


def _of_quality(recipe: Recipe, task: Task, reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What all rows have in common; of the examples nothing is known where no run finished."""
    spec = recipe.evaluate
    facts = {
        "primary": task.primary_metric,
        "higher_is_better": task.higher_is_better,
        "split": spec.split,
        "limit": spec.limit,
        "num_beams": spec.num_beams,
        "metrics": task.metric_versions(),
        "examples": None,
    }
    found = reports[0]["quality"] if reports else {}
    return {**facts, "n": found.get("n", 0), **found.get("evaluated", {})}


def _warnings(reports: Sequence[Mapping[str, Any]]) -> list[str]:
    """Where runs differ in what their figures depend on, though not in what they were scored on."""
    found = []
    machines = {tuple(report["environment"].get(key) for key in _MACHINE) for report in reports}
    if len(machines) > 1:
        found.append(
            "runs were made on different machines or threads, so their times to prune do not compare"
        )
    asked = {json.dumps(report["recipe"]["speed"], sort_keys=True) for report in reports}
    if len(asked) > 1:
        found.append("runs ask for different settings of speed; all models were timed with the first run's")
    return found


def _write(
    about: About,
    facts: Mapping[str, Any],
    dense: str,
    runs: Sequence[Finished],
    speed: Mapping[str, Any] | None,
    folders: Mapping[str, Path],
    out: Path,
) -> dict[str, Any]:
    """Join the figures and write them, as data and as pages."""
    reports = [run.report for run in runs if run.report is not None]
    check_comparable(reports)
    any_run = next(iter(folders.values()), None)
    influences = _influences(any_run / "answers-dense.jsonl") if any_run else {}
    own = Finished(DENSE, DENSE, influences=influences, timed=DENSE if speed else None)
    rows = make_rows(own, runs, speed, reference=about.reference, seed=min(run.seed for run in runs))
    comparison = {
        "format": FORMAT,
        "prunekit_version": prunekit.__version__,
        "name": about.name,
        "command": about.command,
        "reference": about.reference,
        **facts,
        "model": dense,
        "speed": speed,
        "rows": rows,
        "environment": environment_record(),
        "warnings": _warnings(reports),
    }
    write_text(out / FILE, json.dumps(comparison, indent=1) + "\n")
    write_pages(comparison, folders, out)
    return comparison
