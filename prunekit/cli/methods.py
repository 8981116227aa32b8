"""``prunekit methods``: what is installed, and what each method's recipe entry takes."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from prunekit.cli.keys import COLUMNS, key_rows
from prunekit.cli.output import AsJson, print_broken, print_figures, print_json, print_table

app = typer.Typer(name="methods", help="List pruning methods and their options.", no_args_is_help=True)


@app.command("list")
def list_methods(as_json: AsJson = False) -> None:
    """List the installed pruning methods."""
    from prunekit.plugins import get_registry

    registry = get_registry()
    methods = [
        {**asdict(method.info), "distribution": registry.origins["methods"][name].distribution}
        for name, method in registry.methods.items()
    ]
    if as_json:
        print_json({"methods": methods, "broken": [asdict(plugin) for plugin in registry.broken]})
        return
    columns = ("name", "prunes", "models", "trains", "summary", "distribution")
    rows = [
        (
            info["name"],
            ", ".join(info["kinds"]),
            ", ".join(info["model_types"]),
            "yes" if info["trains"] else "no",
            info["summary"],
            info["distribution"],
        )
        for info in methods
    ]
    print_table(columns, rows)
    print_broken(registry.broken)


@app.command("show")
def show_method(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Method name.")], as_json: AsJson = False
) -> None:
    """Show one method: what it is, and the keys of its recipe entry."""
    from prunekit.plugins import get_registry

    registry = get_registry()
    method = registry.find("methods", name)
    described = {**asdict(method.info), "distribution": registry.origins["methods"][name].distribution}
    if as_json:
        print_json({**described, "config": method.Config.model_json_schema()})
        return
    print_figures(
        {key: list(value) if isinstance(value, tuple) else value for key, value in described.items()}
    )
    options = key_rows(method.Config)
    typer.echo(f"\nKeys under methods.{name} in a recipe" + (":" if options else ": none of its own"))
    if options:
        print_table(COLUMNS, options)
