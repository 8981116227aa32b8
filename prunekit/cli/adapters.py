"""``prunekit adapters``: which architectures can be pruned, what in them, and whether it is right."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from prunekit.cli.check import Device, DeviceName, Model, Only, Subject, run_check
from prunekit.cli.lists import origin_of, plugin_rows, print_rows
from prunekit.cli.output import AsJson, print_figures, print_json

app = typer.Typer(
    name="adapters", help="List and check the architectures that can be pruned.", no_args_is_help=True
)


@app.command("list")
def list_adapters(as_json: AsJson = False) -> None:
    """List the installed adapters, one an architecture."""
    from prunekit.plugins import get_registry

    rows = plugin_rows(get_registry(), "adapters", _about)
    if as_json:
        print_json({"adapters": rows})
    else:
        print_rows({"model_type": "model_type"}, rows)


@app.command("show")
def show_adapter(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Adapter name.")], as_json: AsJson = False
) -> None:
    """Show one adapter's table: its unit groups, and the modules behind them."""
    from prunekit.plugins import get_registry

    registry = get_registry()
    adapter = registry.find("adapters", name)
    described = {
        "name": name,
        **_about(adapter),
        **origin_of(registry, "adapters", name),
        "groups": adapter.describe(),
    }
    (print_json if as_json else print_figures)(described)


@app.command("check")
def check_adapter(
    context: typer.Context,
    name: Subject,
    model: Model = None,
    only: Only = None,
    device: Device = DeviceName.cpu,
    as_json: AsJson = False,
) -> None:
    """Check an adapter by every rule that adapters must keep, on tiny models."""
    from prunekit.testing import check_adapter as suite

    run_check("adapters", name, suite, context, device=device, models=model, only=only, as_json=as_json)


def _about(adapter: Any) -> dict[str, Any]:
    return {"model_type": adapter.model_type, "summary": adapter.summary}
