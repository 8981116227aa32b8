"""Recipes: reading one with every fault told at once, choosing a method, writing a resolved copy.

The sections themselves are in ``prunekit.recipe_models``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import BaseModel, ValidationError

from prunekit.errors import RecipeError
from prunekit.recipe_faults import Fault, KeyPath, faults_of, render_faults, show_value, unknown_key
from prunekit.recipe_models import (
    BudgetSpec,
    DistillSpec,
    EvaluateSpec,
    MacsSpec,
    MethodEntry,
    NewModel,
    PublishedSpec,
    Recipe,
    RecoverSpec,
    SpeedSpec,
    StageSpec,
    TaskSpec,
    TeacherSpec,
    TrainSpec,
)
from prunekit.recipe_schema import json_schema
from prunekit.recipe_yaml import RecipeDocument
from prunekit.suggest import did_you_mean

if TYPE_CHECKING:
    from prunekit.method import PruningMethod
    from prunekit.plugins import Registry

__all__ = [
    "BudgetSpec",
    "DistillSpec",
    "EvaluateSpec",
    "MacsSpec",
    "MethodEntry",
    "NewModel",
    "PublishedSpec",
    "Recipe",
    "RecoverSpec",
    "ResolvedMethod",
    "Settings",
    "Source",
    "SpeedSpec",
    "StageSpec",
    "TaskSpec",
    "TeacherSpec",
    "TrainSpec",
    "dump_recipe",
    "json_schema",
    "load_recipe",
    "resolve_method",
]

# The sections that a method's entry may override, with the models of the merged result.
_OVERRIDABLE: dict[str, type[BaseModel]] = {"budget": BudgetSpec, "train": TrainSpec, "recover": RecoverSpec}

_RIVALS = {"sparsity": "ratio", "ratio": "sparsity"}

_NO_BUDGET = (
    "the recipe does not say how much to remove; add a line such as `budget: {sparsity: 0.3}`, "
    "or pass --set budget.sparsity=0.3"
)


@dataclass(frozen=True)
class ResolvedMethod:
    """A method of a recipe with everything settled.

    Attributes:
        label: the entry's name in the recipe, or the method's name where the recipe has no entry.
        method_class: what to instantiate with ``config``.
        config: the method's own settings, an instance of ``method_class.Config``.
        budget: the recipe's budget with the entry's overrides.
        train: the recipe's training settings with the entry's overrides.
        recover: the recipe's recovery settings with the entry's overrides.
        is_default: whether the method is not in the recipe and runs with its defaults.
    """

    label: str
    method_class: type[PruningMethod]
    config: BaseModel
    budget: BudgetSpec
    train: TrainSpec
    recover: RecoverSpec
    is_default: bool


Source = str | Path | Mapping[str, Any] | Recipe
"""A recipe as people give it: its file, its content, or itself."""
Settings = Mapping[str, Any] | Sequence[str]
"""What is to differ from a recipe: values by key path, or ``key.path=value`` texts."""


def load_recipe(source: Source, settings: Settings = (), *, registry: Registry | None = None) -> Recipe:
    """The recipe in a YAML file or a mapping, checked against the installed methods and tasks.

    Args:
        source: the file; or what would stand in it, as a mapping; or a recipe, to change it.
        settings: what to set before it is checked: values by key, such as ``{"budget.sparsity": 0.5}``, or
            texts such as ``"budget.sparsity=0.5"``, whose values are read as YAML.
        registry: where method and task classes are looked up; their ``Config`` checks their keys. The
            installed plugins by default.

    Raises:
        RecipeError: if the file cannot be read, or with all faults in it, each with its line, the value
            found, what is allowed and the nearest allowed name.
        PluginError: if two plugins register the same method or task.
    """
    if registry is None:
        from prunekit.plugins import get_registry

        registry = get_registry()
    if isinstance(source, Recipe):
        source = source.model_dump(mode="json")
    document = RecipeDocument(Path(source) if isinstance(source, str) else source)
    if isinstance(settings, Mapping):
        for key, value in settings.items():
            document.set(key, value)
    else:
        for text in settings:
            document.override(text)
    data = document.data
    faults = list(document.faults)
    recipe = None
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        faults += faults_of(error, data, Recipe, owner="a recipe")
    faults += _task_faults(data.get("task"), registry)
    methods = data.get("methods")
    for label, entry in methods.items() if isinstance(methods, dict) else ():
        if isinstance(label, str) and (entry is None or isinstance(entry, dict)):
            faults += _method_faults(label, entry or {}, registry)
            faults += _section_faults(label, entry or {}, data)
    if recipe is None or faults:
        raise RecipeError(render_faults(document.name, faults, document.where))
    return recipe


def resolve_method(recipe: Recipe, label: str | None, registry: Registry) -> ResolvedMethod:
    """The method to run: the recipe's entry of that label, or an installed method with its defaults.

    Args:
        recipe: a recipe that ``load_recipe`` accepted.
        label: a label of ``methods``, or an installed method's name; None takes the only label there is.
        registry: the installed methods.

    Raises:
        RecipeError: if the label is neither, or left out where the recipe does not have exactly one; if
            neither recipe nor entry has a budget; if the method cannot run on its defaults alone; or if the
            model is a new one, which has nothing to prune yet.
    """
    if isinstance(recipe.model, NewModel):
        raise RecipeError(
            "the recipe's model is a new, untrained one. Train it with `prunekit finetune`, then prune with "
            "a recipe whose `model:` is the folder that this writes."
        )
    label = label or _only_label(recipe, registry)
    entry = recipe.methods.get(label)
    method_class, config = _configured(recipe, label, entry, registry)
    entry_or_defaults = entry or MethodEntry()
    if recipe.budget is None and entry_or_defaults.budget is None:
        raise RecipeError(f"{label}: {_NO_BUDGET}.")
    base = recipe.budget.model_dump() if recipe.budget else {}
    return ResolvedMethod(
        label=label,
        method_class=method_class,
        config=config,
        budget=BudgetSpec.model_validate(_merge(base, entry_or_defaults.budget)),
        train=TrainSpec.model_validate(_merge(recipe.train.model_dump(), entry_or_defaults.train)),
        recover=RecoverSpec.model_validate(_merge(recipe.recover.model_dump(), entry_or_defaults.recover)),
        is_default=entry is None,
    )


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as YAML with every default written out; ``load_recipe`` reads the same recipe from it."""
    data = recipe.model_dump(mode="json")
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)


def _only_label(recipe: Recipe, registry: Registry) -> str:
    labels = list(recipe.methods)
    if len(labels) == 1:
        return labels[0]
    if labels:
        listed = ", ".join(labels)
        raise RecipeError(f"the recipe has {len(labels)} methods; choose one with --method: {listed}.")
    raise RecipeError(
        "the recipe has no methods. Add them under `methods:`, or pass --method NAME to run one with its "
        f"defaults (installed: {', '.join(registry.methods) or 'none'})."
    )


def _configured(
    recipe: Recipe, label: str, entry: MethodEntry | None, registry: Registry
) -> tuple[type[PruningMethod], BaseModel]:
    """The method class behind a label, and its settings."""
    if entry is None and label not in registry.methods:
        hint = did_you_mean(label, {*recipe.methods, *registry.methods})
        labels, installed = (", ".join(names) or "none" for names in (recipe.methods, registry.methods))
        raise RecipeError(
            f"--method {label}: neither a label of the recipe nor an installed method{hint} "
            f"(labels: {labels}; installed: {installed}){registry.broken_note()}."
        )
    name = (entry.method if entry else None) or label
    options = entry.options if entry else {}
    method_class: type[PruningMethod] = registry.find("methods", name)
    try:
        return method_class, method_class.Config.model_validate(options)
    except ValidationError as error:
        faults = faults_of(error, options, method_class.Config, at=("methods", label), owner=name)
        text = render_faults(f"method {label}, run with its defaults,", faults)
        raise RecipeError(
            f"{text}\nAdd `{label}:` with these keys under `methods:` in the recipe."
        ) from error


def _task_faults(task: Any, registry: Registry) -> list[Fault]:
    if not isinstance(task, dict) or not isinstance(task.get("name"), str):
        return []  # the recipe's own model has found that
    name = task["name"]
    if name not in registry.tasks:
        return [Fault(("task", "name"), registry.explain_missing("tasks", name), show_value(name))]
    options = {key: value for key, value in task.items() if key != "name"}
    config = registry.tasks[name].Config
    return _config_faults(config, options, ("task",), name, further_keys=["name"])


def _method_faults(label: str, entry: Mapping[Any, Any], registry: Registry) -> list[Fault]:
    name = entry.get("method") or label
    if not isinstance(name, str):
        return []  # the recipe's own model has found that
    if name not in registry.methods:
        problem = registry.explain_missing("methods", name)
        if entry.get("method"):
            return [Fault(("methods", label, "method"), problem, show_value(name))]
        return [Fault(("methods", label), f"{problem}; a label of your own needs `method: NAME` below it")]
    reserved = list(MethodEntry.model_fields)
    options = {key: value for key, value in entry.items() if key not in reserved}
    return _config_faults(registry.methods[name].Config, options, ("methods", label), name, reserved)


def _config_faults(
    config: type[BaseModel], options: dict[Any, Any], at: KeyPath, owner: str, further_keys: list[str]
) -> list[Fault]:
    faults = []
    if config.model_config.get("extra", "ignore") == "ignore":
        # A plugin that forgot to forbid unknown keys must not swallow a misspelt one.
        known = [*config.model_fields, *further_keys]
        unknown = [key for key in options if key not in known]
        faults = [Fault((*at, key), unknown_key(str(key), known, owner)) for key in unknown]
    try:
        config.model_validate(options)
    except ValidationError as error:
        faults += faults_of(error, options, config, at=at, owner=owner, further_keys=further_keys)
    return faults


def _section_faults(label: str, entry: Mapping[Any, Any], data: Mapping[Any, Any]) -> list[Fault]:
    """Faults of an entry's own ``budget``, ``train`` and ``recover``, checked merged over the recipe's."""
    faults: list[Fault] = []
    if entry.get("budget") is None and data.get("budget") is None:
        faults.append(Fault(("methods", label), _NO_BUDGET))
    for section, model in _OVERRIDABLE.items():
        override, base = entry.get(section), data.get(section)
        if not isinstance(override, dict):
            continue  # absent, or found by the recipe's own model
        merged = _merge(base if isinstance(base, dict) else {}, override)
        try:
            model.model_validate(merged)
        except ValidationError as error:
            at = ("methods", label, section)
            # What the entry did not write and is wrong without it is the recipe's fault and told there.
            told = _paths_of_faults(model, base) if isinstance(base, dict) else set()
            faults += [
                fault
                for fault in faults_of(error, merged, model, at=at, owner=section)
                if _contains(override, fault.path[len(at) :]) or fault.path[len(at) :] not in told
            ]
    return faults


def _paths_of_faults(model: type[BaseModel], data: Any) -> set[KeyPath]:
    try:
        model.model_validate(data)
    except ValidationError as error:
        return {fault.path for fault in faults_of(error, data, model, owner="")}
    return set()


def _contains(data: Any, path: KeyPath) -> bool:
    for part in path:
        if isinstance(data, list):
            return True
        if not (isinstance(data, dict) and part in data):
            return False
        data = data[part]
    return True


def _merge(base: Mapping[Any, Any], override: Mapping[Any, Any] | None) -> dict[Any, Any]:
    # An entry's ratio takes the place of the recipe's sparsity, and the other way about.
    merged = {key: value for key, value in base.items() if _RIVALS.get(key) not in (override or {})}
    for key, value in (override or {}).items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged
