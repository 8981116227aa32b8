"""Training a whole model on a task, before any pruning: ``prunekit finetune``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunekit.measure.environment import environment_record
from prunekit.models import load_model, load_processor, new_model, save_model
from prunekit.progress import Progress
from prunekit.recipe import NewModel, Recipe, dump_recipe
from prunekit.runfolder import RunFolder
from prunekit.tasks.base import make_task
from prunekit.training.loop import Assessment, Trainer, task_loss

if TYPE_CHECKING:
    from prunekit.plugins import Registry

VALIDATION_EXAMPLES = 1000


def finetune(
    recipe: Recipe, out: Path, *, registry: Registry, progress: Progress | None = None
) -> dict[str, Any]:
    """Train the recipe's model on its task and save the best state as ``out/model``.

    The state with the best primary metric on the first 1,000 validation examples is kept.

    Returns:
        The content of ``out/finetune.json``: settings, quality on ``evaluate.split``, seconds, environment.

    Raises:
        PrunekitError: if model, task or folder cannot be used, or training fails.
    """
    progress = progress or Progress(quiet=True)
    run = RunFolder(out, dump_recipe(recipe))
    is_new = isinstance(recipe.model, NewModel)
    source = recipe.model.processor if isinstance(recipe.model, NewModel) else recipe.model
    processor = load_processor(source)
    task = make_task(recipe.task, processor, registry)

    def train() -> dict[str, Any]:
        model = (
            new_model(recipe.model, seed=recipe.seed)
            if isinstance(recipe.model, NewModel)
            else load_model(recipe.model)
        )
        trainer = Trainer(out, recipe.train, seed=recipe.seed, progress=progress)

        def assess(step: int) -> Assessment:
            found = task.evaluate(
                model, "validation", batch_size=recipe.evaluate.batch_size, limit=VALIDATION_EXAMPLES
            )
            primary = found[task.primary_metric]
            return Assessment(found, rank=(primary if task.higher_is_better else -primary,))

        result = trainer.fit(
            "finetune",
            model,
            task,
            recipe.train,
            task_loss(model),
            assess=assess,
            assess_every=recipe.train.eval_every,
        )
        started = time.perf_counter()
        quality = task.evaluate(
            model,
            recipe.evaluate.split,
            batch_size=recipe.evaluate.batch_size,
            limit=recipe.evaluate.limit,
            num_beams=recipe.evaluate.num_beams,
            progress=progress,
        )
        save_model(model, processor, out / "model")
        return {
            "task": recipe.task.model_dump(),
            "from_scratch": is_new,
            "parameters": sum(p.numel() for p in model.parameters()),
            "steps": result.steps,
            "best_step": result.best_step,
            "train_s": round(result.seconds, 1),
            "evaluate_s": round(time.perf_counter() - started, 1),
            "quality": {"split": recipe.evaluate.split, "primary": task.primary_metric, **quality},
            "environment": environment_record(),
        }

    return run.stage("finetune", train)
