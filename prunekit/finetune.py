"""Training a whole model on a task, before any pruning: ``prunekit finetune``, and teachers of recipes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunekit.heads import load_to_train
from prunekit.measure.environment import environment_record
from prunekit.models import load_processor, new_model, save_model
from prunekit.progress import Progress
from prunekit.recipe import NewModel, Recipe, TeacherSpec, TrainSpec, dump_recipe
from prunekit.resources import lower_if_out_of_memory
from prunekit.runfolder import RunFolder, one_writer
from prunekit.tasks.answering import check_split
from prunekit.tasks.base import Task, make_task, settled
from prunekit.training.loop import Assessment, FitResult, Trainer, task_loss

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from prunekit.plugins import Registry

VALIDATION_EXAMPLES = 1000


def finetune(
    recipe: Recipe, out: Path, *, registry: Registry, progress: Progress | None = None
) -> dict[str, Any]:
    """Train the recipe's model on its task and save the best state as ``out/model``.

    The state with the best primary metric on the first 1,000 validation examples is kept. A model whose head
    does not fit the task gets a new one, and the saved config names the task's labels.

    Args:
        recipe: ``teacher.train`` says how to train where the recipe has it, and ``train`` where not.
        out: folder of the run; a run that was stopped goes on where it was.
        registry: the installed tasks.
        progress: where to draw bars; nowhere by default.

    Returns:
        The content of ``out/finetune.json``: settings, quality on ``evaluate.split``, seconds, environment.

    Raises:
        PrunekitError: if model, task or folder cannot be used, or training fails.
    """
    recipe = recipe.model_copy(update={"task": settled(recipe.task, registry)})
    with one_writer(out):
        run = RunFolder(out, dump_recipe(recipe))
        model = recipe.model
        processor = load_processor(model.processor if isinstance(model, NewModel) else model)
        task = make_task(recipe.task, processor, registry)
        return train_model(recipe, task, processor, run, progress or Progress(quiet=True))


def train_model(
    recipe: Recipe, task: Task, processor: Any, run: RunFolder, progress: Progress
) -> dict[str, Any]:
    """Train, score and save in an open run folder, as ``finetune`` does; what is done is not done again.

    Raises:
        PrunekitError: if model or task cannot be used, or training fails.
    """
    run.same("data", task.fingerprint(), "data")
    for split in ("train", "validation", recipe.evaluate.split):
        check_split(task.name, split, task.splits)

    def train() -> dict[str, Any]:
        spec = recipe.teacher.train if isinstance(recipe.teacher, TeacherSpec) else recipe.train
        model = _to_train(recipe, task)
        result = _fit(recipe, spec, model, task, Trainer(run.path, spec, seed=recipe.seed, progress=progress))
        save_model(model, processor, run.path / "model")
        started = time.perf_counter()
        quality = task.evaluate(
            model,
            recipe.evaluate.split,
            batch_size=recipe.evaluate.batch_size,
            limit=recipe.evaluate.limit,
            num_beams=recipe.evaluate.num_beams,
            progress=progress,
        )
        printed = recipe.published.dense if recipe.published else {}
        return {
            "task": recipe.task.model_dump(),
            "data": task.fingerprint(),
            "from_scratch": isinstance(recipe.model, NewModel),
            "parameters": sum(p.numel() for p in model.parameters()),
            "steps": result.steps,
            "best_step": result.best_step,
            "train_s": round(result.seconds, 1),
            "evaluate_s": round(time.perf_counter() - started, 1),
            "quality": {"split": recipe.evaluate.split, "primary": task.primary_metric, **quality.metrics},
            **({"published": printed} if printed else {}),
            "environment": environment_record(),
        }

    return run.stage("finetune", train)


@lower_if_out_of_memory("training")
def _fit(recipe: Recipe, spec: TrainSpec, model: PreTrainedModel, task: Task, trainer: Trainer) -> FitResult:
    def assess(step: int) -> Assessment:
        found = task.evaluate(
            model, "validation", batch_size=recipe.evaluate.batch_size, limit=VALIDATION_EXAMPLES
        ).metrics
        primary = found[task.primary_metric]
        return Assessment(found, rank=(primary if task.higher_is_better else -primary,))

    return trainer.fit(
        "finetune", model, task, spec, task_loss(model), assess=assess, assess_every=spec.eval_every
    )


def _to_train(recipe: Recipe, task: Task) -> PreTrainedModel:
    if not isinstance(recipe.model, NewModel):
        return load_to_train(recipe.model, task, seed=recipe.seed)
    model = new_model(recipe.model, task.auto_class, task.head_config(), seed=recipe.seed)
    task.check_model(model)
    return model
