"""One recipe, straight through: plan, cut, recover, evaluate, measure, report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from prunekit.dry_run import dry_run
from prunekit.errors import PrunekitError
from prunekit.evaluations import score
from prunekit.finetune import finetune
from prunekit.heads import check_head
from prunekit.job import Job
from prunekit.measure.baselines import with_baselines
from prunekit.measure.sweep import measure_sweep
from prunekit.models import load_model, load_processor
from prunekit.progress import Progress
from prunekit.recipe import EvaluateSpec, Recipe, SpeedSpec, TaskSpec, resolve_method
from prunekit.tasks.base import Evaluation, Task, make_task, settled
from prunekit.teacher import dense_model

if TYPE_CHECKING:
    from prunekit.plugins import Registry

__all__ = ["dry_run", "evaluate", "finetune", "run", "speed"]

TEACHERS = "teachers"
"""Folder beside run folders for the teachers that recipes train."""


def run(
    recipe: Recipe, label: str | None, out: Path, *, registry: Registry, progress: Progress | None = None
) -> dict[str, Any]:
    """Prune, recover, evaluate and measure; every finished stage is a file in ``out`` and is not done again.

    A teacher that the recipe wants trained first goes into a folder of its own beside ``out``.

    Returns:
        The content of ``report.json``.

    Raises:
        PrunekitError: with one message that says what to change; earlier results in ``out`` stay.
    """
    progress = progress or Progress(quiet=True)
    job = open_job(recipe, label, out, registry=registry, progress=progress)
    results = job.results()
    return job.finish(results, job.folder.stage("speed", job.speed))


def open_job(recipe: Recipe, label: str | None, out: Path, *, registry: Registry, progress: Progress) -> Job:
    """The run of one method; a teacher that the recipe wants trained first is trained before it is returned.

    Raises:
        PrunekitError: if the recipe, the model or the task cannot be used, or ``out`` holds another run.
    """
    recipe = recipe.model_copy(update={"task": settled(recipe.task, registry)})
    method = resolve_method(recipe, label, registry)
    dense = dense_model(recipe, out.parent / TEACHERS, registry=registry, progress=progress)
    return Job(recipe, method, dense, out, registry, progress)


def evaluate(
    model: str, task: TaskSpec, spec: EvaluateSpec, *, registry: Registry, progress: Progress | None = None
) -> dict[str, Any]:
    """Metrics of a model on a task, with their standard errors and the number of examples."""
    _, found = evaluated(model, task, spec, registry=registry, progress=progress)
    return {"model": model, "task": task.model_dump(), "split": spec.split, **found.metrics}


def evaluated(
    model: str, task: TaskSpec, spec: EvaluateSpec, *, registry: Registry, progress: Progress | None = None
) -> tuple[Task, Evaluation]:
    """A task, and what a model answered to it.

    Raises:
        PrunekitError: if the model or the task cannot be used.
    """
    loaded = load_model(model)
    made = make_task(task, load_processor(model), registry)
    check_head(model, loaded, made)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return made, score(loaded.to(device), made, spec, progress)


def speed(
    models: Sequence[str],
    spec: SpeedSpec,
    batches: Sequence[int],
    lengths: Sequence[int | None] = (None,),
    *,
    baselines: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Times of models on random batches of every size and length, interleaved; the first is the reference.

    Args:
        models: names as `load_model` takes them.
        spec: how to measure.
        batches: batch sizes.
        lengths: input tokens; ``None`` as `prunekit.measure.sweep.measure_sweep` takes it.
        baselines: time the first model also in bf16, compiled and, if it generates, with a static cache.
        progress: draws a bar.

    Returns:
        What `prunekit.measure.sweep.measure_sweep` returns.

    Raises:
        PrunekitError: if a name is given twice or stands for no model.
    """
    if len(set(models)) < len(models):
        raise PrunekitError(f"speed: a model is named twice in {', '.join(models)}; name each once.")
    first, *others = ((name, load_model(name)) for name in models)
    contestants = dict([first, *(with_baselines(*first, spec).items() if baselines else ()), *others])
    return measure_sweep(contestants, spec, batches, lengths, progress=progress)
