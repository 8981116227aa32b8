"""Which task a model is measured on, and how, where people name one or point at a recipe that does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from prunekit.errors import RecipeError
from prunekit.recipe import EvaluateSpec, Source, TaskSpec, load_recipe
from prunekit.recipe_faults import faults_of, render_faults

if TYPE_CHECKING:
    from prunekit.plugins import Registry


def task_and_settings(
    task: str | Mapping[str, Any] | None, recipe: Source | None, registry: Registry, **options: Any
) -> tuple[TaskSpec, EvaluateSpec]:
    """The task, and how to evaluate on it: the recipe's settings, or defaults, under the options given.

    Args:
        task: name of an installed task, or a recipe's ``task`` section.
        recipe: a recipe whose task and ``evaluate`` section hold.
        registry: the installed tasks.
        options: keys of ``evaluate``; what is none is not given.

    Raises:
        RecipeError: unless either a task or a recipe is given, and it and the options are good ones.
        PluginError: if no such task is installed.
    """
    if (task is None) == (recipe is None):
        raise RecipeError("give either --task NAME or --recipe FILE.")
    if recipe is not None:
        loaded = load_recipe(recipe, registry=registry)
        chosen, spec = loaded.task, loaded.evaluate
    else:
        chosen, spec = _named(task, registry), EvaluateSpec()
    wanted = {**spec.model_dump(), **given(**options)}
    try:
        return chosen, EvaluateSpec.model_validate(wanted)
    except ValidationError as error:
        faults = faults_of(error, wanted, EvaluateSpec, owner="evaluate")
        raise RecipeError(render_faults("how to evaluate", faults)) from error


def given(**options: Any) -> dict[str, Any]:
    """The options that were given."""
    return {key: value for key, value in options.items() if value is not None}


def _named(task: str | Mapping[str, Any] | None, registry: Registry) -> TaskSpec:
    section = {"name": task} if isinstance(task, str) else dict(task or {})
    try:
        spec = TaskSpec.model_validate(section)
    except ValidationError as error:
        faults = faults_of(error, section, TaskSpec, at=("task",), owner="task")
        raise RecipeError(render_faults("the task", faults)) from error
    registry.find("tasks", spec.name)
    return spec
