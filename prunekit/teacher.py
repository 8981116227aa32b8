"""The dense model that a recipe prunes: as it is, fine-tuned already, or trained first and then kept."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from prunekit import ranks
from prunekit.finetune import train_model
from prunekit.models import load_processor, model_fingerprint, short_name
from prunekit.recipe import EvaluateSpec, NewModel, Recipe, dump_recipe
from prunekit.runfolder import RunFolder, one_writer, sha256
from prunekit.tasks.base import Task, make_task

if TYPE_CHECKING:
    from prunekit.plugins import Registry
    from prunekit.progress import Progress

_log = logging.getLogger(__name__)


def dense_model(recipe: Recipe, folder: Path, *, registry: Registry, progress: Progress) -> str:
    """Return the name of the model to prune; if the recipe says how to train it, train it before.

    Args:
        recipe: its ``teacher`` decides.
        folder: where trained teachers are kept, each in a folder of its own, whose name tells the model, the
            task, and by a digest everything that the result depends on: the model's weights, the task's keys
            and data, the training settings, and the seed. What is there already is not trained again, and
            training that was stopped goes on.
        registry: the installed tasks.
        progress: where to draw bars.

    Raises:
        PrunekitError: if the model or the task cannot be used, or training fails.
    """
    if isinstance(recipe.model, NewModel):
        raise TypeError("a new model is trained by finetune, not pruned")
    if recipe.teacher is None:
        return recipe.model
    if isinstance(recipe.teacher, str):
        return recipe.teacher
    processor = load_processor(recipe.model)
    task = make_task(recipe.task, processor, registry)
    training = Recipe(
        version=1, model=recipe.model, task=recipe.task, train=recipe.teacher.train, seed=recipe.seed
    )
    out = folder / f"{short_name(recipe.model)}-{recipe.task.name}-{_digest(training, task)}"
    # Asked once for all processes: the first one may make the folder before another looks.
    if ranks.from_first(lambda: out.is_dir() and RunFolder(out, dump_recipe(training)).has("finetune")):
        _log.info("The teacher is there already: %s", out)
        return str(out)
    _log.info("Training the teacher first, into %s", out)
    evaluate = EvaluateSpec(split="validation", batch_size=recipe.evaluate.batch_size)
    with one_writer(out):
        # How quality is measured changes no weights, so the folder does not know of it.
        run = RunFolder(out, dump_recipe(training))
        train_model(training.model_copy(update={"evaluate": evaluate}), task, processor, run, progress)
    return str(out)


def _digest(training: Recipe, task: Task) -> str:
    """Twelve digits that tell everything that the trained weights depend on."""
    facts = {
        "recipe": training.model_dump(mode="json"),
        "weights": model_fingerprint(str(training.model)),
        "data": task.fingerprint(),
    }
    return sha256(json.dumps(facts, sort_keys=True))[:12]
