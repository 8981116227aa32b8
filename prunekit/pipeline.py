"""One recipe, straight through: plan, cut, recover, evaluate, measure, report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from prunekit.runfolder import one_writer
from prunekit.tasks.base import Evaluation, Task, make_task, settled
from prunekit.teacher import dense_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel

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
    with one_writer(out):
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
    model: str | PreTrainedModel,
    task: TaskSpec,
    spec: EvaluateSpec,
    *,
    registry: Registry,
    processor: Any = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Metrics of a model on a task, with their standard errors and the number of examples.

    Arguments as `evaluated` takes them; a model that was loaded before is called by its class.
    """
    _, found = evaluated(model, task, spec, registry=registry, processor=processor, progress=progress)
    name = model if isinstance(model, str) else type(model).__name__
    return {"model": name, "task": task.model_dump(), "split": spec.split, **found.metrics}


def evaluated(
    model: str | PreTrainedModel,
    task: TaskSpec,
    spec: EvaluateSpec,
    *,
    registry: Registry,
    processor: Any = None,
    progress: Progress | None = None,
) -> tuple[Task, Evaluation]:
    """A task, and what a model answered to it.

    Args:
        model: its name, to be loaded, onto a GPU where there is one; or the model, which stays where it is.
        task: what to ask.
        spec: how.
        registry: the installed tasks.
        processor: the tokenizer or image processor, or the name of a model that has it; by default the
            model's own.
        progress: draws a bar.

    Raises:
        PrunekitError: if the model or the task cannot be used, or nothing tells which tokenizer is the
            model's.
    """
    if isinstance(model, str):
        name, loaded = model, load_model(model)
        loaded = loaded.to("cuda" if torch.cuda.is_available() else "cpu")
    else:
        name, loaded = type(model).__name__, model
    made = make_task(task, _processor(model, processor), registry)
    check_head(name, loaded, made)
    return made, score(loaded, made, spec, progress)


def _processor(model: str | PreTrainedModel, given: Any) -> Any:
    if given is not None:
        return load_processor(given) if isinstance(given, str) else given
    name = model if isinstance(model, str) else model.name_or_path
    if not name:
        raise PrunekitError(
            f"nothing says which tokenizer or image processor belongs to this {type(model).__name__}, as it "
            "was not loaded from a folder or the hub. Give it: processor=, as an object or the name of a "
            "model that has it."
        )
    return load_processor(name)


def speed(
    models: Sequence[str] | Mapping[str, str | PreTrainedModel],
    spec: SpeedSpec,
    batches: Sequence[int],
    lengths: Sequence[int | None] = (None,),
    *,
    baselines: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Times of models on random batches of every size and length, interleaved; the first is the reference.

    Args:
        models: names as `load_model` takes them; or by the name to show, such names or loaded models, which
            are back on their devices afterwards.
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
    if not models:
        raise PrunekitError("no model to measure. Give at least one; the first is the reference.")
    if len(set(models)) < len(models):
        raise PrunekitError(f"speed: a model is named twice in {', '.join(models)}; name each once.")
    named = models if isinstance(models, Mapping) else {name: name for name in models}
    loaded = {name: load_model(each) if isinstance(each, str) else each for name, each in named.items()}
    devices = {name: each.device for name, each in named.items() if not isinstance(each, str)}
    first, *others = loaded.items()
    contestants = dict([first, *(with_baselines(*first, spec).items() if baselines else ()), *others])
    try:
        return measure_sweep(contestants, spec, batches, lengths, progress=progress)
    finally:
        for name, device in devices.items():
            loaded[name].to(device)
