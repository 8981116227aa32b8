"""``prunekit tasks``: which there are, where their data comes from, and what their recipe keys are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from prunekit.cli.keys import COLUMNS, key_rows
from prunekit.cli.lists import origin_of, plugin_rows, print_rows
from prunekit.cli.output import AsJson, print_figures, print_json, print_table

if TYPE_CHECKING:
    from prunekit.plugins import Registry

app = typer.Typer(name="tasks", help="List tasks, their data and their options.", no_args_is_help=True)


@app.command("list")
def list_tasks(as_json: AsJson = False) -> None:
    """List the installed tasks: families for one's own data, and data sets by name."""
    from prunekit.plugins import get_registry

    rows = plugin_rows(get_registry(), "tasks", _listed)
    if as_json:
        print_json({"tasks": rows})
    else:
        print_rows({"family": "family", "metric": "metric"}, rows)


@app.command("show")
def show_task(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Task name.")], as_json: AsJson = False
) -> None:
    """Show one task: its source, data, prompts and metrics, and its keys in a recipe."""
    from prunekit.plugins import get_registry

    registry = get_registry()
    task = registry.find("tasks", name)
    origin = origin_of(registry, "tasks", name)
    described = {"name": name, **_listed(task), **origin, **_about(task, registry)}
    if as_json:
        print_json({**described, "config": task.Config.model_json_schema()})
        return
    notes = described.pop("notes", [])
    print_figures(described)
    for note in notes:
        typer.echo(f"note: {note}")
    rows = key_rows(task.Config)
    typer.echo("\nKeys under task in a recipe, besides name" + (":" if rows else ": none"))
    if rows:
        print_table(COLUMNS, rows)


def _listed(task: Any) -> dict[str, Any]:
    about = getattr(task, "about", None)
    return {
        "family": about.family if about else task.family,
        # A family's metrics are in the recipe, not in the class.
        "metric": next(iter(_metrics(task)), None),
        "summary": task.summary,
    }


def _metrics(task: Any) -> list[str]:
    about = getattr(task, "about", None)
    if about:
        return list(about.resolved().get("metrics") or [])
    if "metrics" in task.Config.model_fields:
        return []
    return [metric] if (metric := getattr(task, "primary_metric", None)) else []


def _about(task: Any, registry: Registry) -> dict[str, Any]:
    """What ``show`` tells besides: of a named task its whole file, of others the direction of the metric."""
    directions = {
        name: "higher is better" if registry.metrics[name].higher_is_better else "lower is better"
        for name in _metrics(task)
        if name in registry.metrics
    }
    about = getattr(task, "about", None)
    if about is None:
        return {"metrics": directions} if directions else {}
    file = about.model_dump(exclude={"name", "summary", "family", "keys"}, exclude_none=True)
    notes, checked = file.pop("notes"), file.pop("checked")
    if not about.prompts:
        del file["prompts"]
    keys = {key: value for key, value in about.keys.items() if key != "metrics"}
    return {**file, "keys": keys, "metrics": directions, "checked": checked, "notes": notes}
