"""``prunekit adapters``: which architectures can be pruned, and what in them."""

from __future__ import annotations

from typing import Annotated

import typer

from prunekit.cli.output import AsJson, print_broken, print_figures, print_json, print_table

app = typer.Typer(name="adapters", help="List the architectures that can be pruned.", no_args_is_help=True)


@app.command("list")
def list_adapters(as_json: AsJson = False) -> None:
    """List the installed adapters, one an architecture."""
    from dataclasses import asdict

    from prunekit.plugins import get_registry

    registry = get_registry()
    adapters = [
        {
            "name": name,
            "model_type": adapter.model_type,
            "summary": adapter.summary,
            "distribution": registry.origins["adapters"][name].distribution,
        }
        for name, adapter in registry.adapters.items()
    ]
    if as_json:
        print_json({"adapters": adapters, "broken": [asdict(plugin) for plugin in registry.broken]})
        return
    columns = ("name", "model_type", "summary", "distribution")
    print_table(columns, [[adapter[column] for column in columns] for adapter in adapters])
    print_broken(registry.broken)


@app.command("show")
def show_adapter(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Adapter name.")], as_json: AsJson = False
) -> None:
    """Show one adapter's table: its unit groups, and the modules behind them."""
    from prunekit.plugins import get_registry

    registry = get_registry()
    adapter = registry.find("adapters", name)
    described = {
        "name": adapter.name,
        "model_type": adapter.model_type,
        "summary": adapter.summary,
        "distribution": registry.origins["adapters"][name].distribution,
        "groups": adapter.describe(),
    }
    (print_json if as_json else print_figures)(described)
