"""Faults of the tasks in a mixture, told where they stand in the recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from pydantic_core import InitErrorDetails

from prunekit.recipe_faults import Fault, faults_of

if TYPE_CHECKING:
    from prunekit.plugins import Registry


def entry_faults(
    label: str, entry: Mapping[str, Any], auto_class: str, registry: Registry
) -> list[InitErrorDetails]:
    """Return what is wrong with one task of a mixture, for pydantic to put into the faults of the whole.

    Args:
        label: its label, which leads each fault's path.
        entry: its keys.
        auto_class: transformers' Auto class that every task must be for.
        registry: the installed tasks.
    """
    options = {key: value for key, value in entry.items() if key != "name"}
    name = entry.get("name", label)
    if not isinstance(name, str) or name not in registry.tasks:
        problem = registry.explain_missing("tasks", str(name))
        if "name" in entry:
            return [_details((label, "name"), problem, entry)]
        advice = f"{problem}; a label of your own needs `name: TASK` below it"
        return [_details((label,), advice, entry)]
    task_class = registry.tasks[name]
    if task_class.auto_class != auto_class:
        problem = (
            f"{name} is a task for {task_class.auto_class}, but the tasks of a mixture are all for "
            f"{auto_class}; leave it out, or take its like that writes texts"
        )
        return [_details((label,), problem, entry)]
    try:
        task_class.Config.model_validate(options)
    except ValidationError as error:
        faults = faults_of(error, options, task_class.Config, owner=name, further_keys=["name"])
        return [_placed(label, fault, entry) for fault in faults]
    return []


def _placed(label: str, fault: Fault, entry: Mapping[str, Any]) -> InitErrorDetails:
    *parents, last = fault.path or ("",)
    if fault.problem.startswith("is required"):
        # There is no such key to point to, so the fault stands where the key should.
        return _details((label, *parents), f"{last} {fault.problem}", entry)
    return _details((label, *fault.path), fault.problem, entry)


def _details(path: Sequence[str | int], problem: str, entry: Mapping[str, Any]) -> InitErrorDetails:
    value: Any = entry
    for part in path[1:]:
        try:
            value = value[part]
        except (KeyError, TypeError):  # a key that the task made of others, as a named one does
            value = None
    return InitErrorDetails(
        type="value_error", loc=tuple(path), input=value, ctx={"error": ValueError(problem)}
    )
