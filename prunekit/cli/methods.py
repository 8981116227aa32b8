"""``prunekit methods``: what is installed, what a recipe entry takes, writing a new one and checking it."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from prunekit.cli.check import Device, DeviceName, Model, Only, Subject, run_check
from prunekit.cli.keys import COLUMNS, key_rows
from prunekit.cli.lists import origin_of, plugin_rows, print_rows
from prunekit.cli.output import AsJson, print_figures, print_json, print_table

app = typer.Typer(name="methods", help="List, write and check pruning methods.", no_args_is_help=True)


@app.command("list")
def list_methods(as_json: AsJson = False) -> None:
    """List the installed pruning methods."""
    from prunekit.plugins import get_registry

    rows = plugin_rows(get_registry(), "methods", _declared)
    if as_json:
        print_json({"methods": rows})
    else:
        print_rows({"kinds": "prunes", "model_types": "models", "trains": "trains"}, rows)


@app.command("show")
def show_method(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Method name.")], as_json: AsJson = False
) -> None:
    """Show one method: what it is, and the keys of its recipe entry."""
    from prunekit.plugins import get_registry

    registry = get_registry()
    method = registry.find("methods", name)
    described = {**_declared(method), **origin_of(registry, "methods", name)}
    if as_json:
        print_json({**described, "config": method.Config.model_json_schema()})
        return
    print_figures({key: value if value != {} else None for key, value in described.items()})
    options = key_rows(method.Config)
    typer.echo(f"\nKeys under methods.{name} in a recipe" + (":" if options else ": none of its own"))
    if options:
        print_table(COLUMNS, options)


@app.command("check")
def check_method(
    context: typer.Context,
    name: Subject,
    model: Model = None,
    only: Only = None,
    device: Device = DeviceName.cpu,
    as_json: AsJson = False,
) -> None:
    """Check a method by every rule that methods must keep, on tiny models."""
    from prunekit.testing import check_plugin

    run_check("methods", name, check_plugin, context, device=device, models=model, only=only, as_json=as_json)


@app.command("new")
def new_method(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Method name in recipes, such as unit-norm.")],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Folder to write. [default: prunekit-NAME]", show_default=False),
    ] = None,
) -> None:
    """Write a new method as a distribution of its own, which works and passes its tests."""
    from prunekit.plugins import get_registry
    from prunekit.scaffold import write_method

    folder = write_method(name, out, registry=get_registry())
    typer.echo(f"Wrote {folder}. Next:")
    typer.echo(f"  pip install -e '{folder}[test]'")
    typer.echo(f"  prunekit methods check {name}")


def _declared(method: Any) -> dict[str, Any]:
    """What a method says of itself, as JSON knows it."""
    from pydantic_core import to_jsonable_python

    info = method.info
    return {field.name: to_jsonable_python(getattr(info, field.name)) for field in fields(info)}
