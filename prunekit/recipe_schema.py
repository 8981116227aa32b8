"""The recipe format as JSON Schema, with the keys of the installed methods and tasks, for editors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from prunekit.recipe_models import MethodEntry, Recipe, TaskSpec

if TYPE_CHECKING:
    from prunekit.plugins import Registry


def json_schema(registry: Registry) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a recipe, as editors use it for completion and checking."""
    configs = {name: method.Config for name, method in registry.methods.items()}
    options = {name: task.Config for name, task in registry.tasks.items()}
    models: set[type[BaseModel]] = {Recipe, MethodEntry, TaskSpec, *configs.values(), *options.values()}
    references, combined = models_json_schema(
        [(model, "validation") for model in sorted(models, key=lambda model: model.__qualname__)]
    )
    definitions = combined["$defs"]

    def definition(model: type[BaseModel]) -> dict[str, Any]:
        name = references[(model, "validation")]["$ref"].rsplit("/", 1)[-1]
        found: dict[str, Any] = definitions[name]
        return found

    entries: dict[str, Any] = {}
    for name, config in configs.items():
        definitions[f"method-{name}"] = _combine(definition(MethodEntry), definition(config), "method", name)
        entries[name] = {"$ref": f"#/$defs/method-{name}"}
    named = [{**entry, "required": ["method"]} for entry in entries.values()]
    recipe = definition(Recipe)
    recipe["properties"]["methods"] = {
        "description": recipe["properties"]["methods"]["description"],
        "type": "object",
        "properties": {name: {"anyOf": [entry, {"type": "null"}, *named]} for name, entry in entries.items()},
        "additionalProperties": {"anyOf": named} if named else False,
    }
    tasks = [
        _combine(definition(TaskSpec), definition(config), "name", name) for name, config in options.items()
    ]
    if tasks:
        recipe["properties"]["task"] = {"anyOf": tasks}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **recipe,
        "title": "prunekit recipe",
        "$defs": definitions,
    }


def _combine(host: dict[str, Any], plugin: dict[str, Any], key: str, name: str) -> dict[str, Any]:
    """The host's keys and the plugin's in one object, ``key`` being fixed to the plugin's name."""
    return {
        "type": "object",
        "properties": {**host["properties"], **plugin.get("properties", {}), key: {"const": name}},
        "required": [*host.get("required", []), *plugin.get("required", [])],
        "additionalProperties": False,
    }
