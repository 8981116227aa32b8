"""``prunekit verify``: whether a finished run is what its report says."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from prunekit.cli.output import AsJson, print_json


def add_to(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command()(verify)


def verify(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="Run folder, or a comparison's, for every run in it.")
    ],
    as_json: AsJson = False,
) -> None:
    """Check a finished run again: files, models, and report against both; exit code 1 if anything fails."""
    from prunekit.plugins import get_registry
    from prunekit.shown import printable
    from prunekit.verify_run import verify_runs

    found = verify_runs(run, registry=get_registry())
    failed = sum(check.outcome == "failed" for checks in found.values() for check in checks)
    if as_json:
        rows = [
            {"run": name, "checks": [asdict(check) for check in checks]} for name, checks in found.items()
        ]
        print_json({"ok": not failed, "failed": failed, "runs": rows})
    else:
        for name, checks in found.items():
            typer.echo(printable(name))
            for check in checks:
                typer.echo(f"  {check.outcome:<7}  {check.name:<32} {printable(check.found)}")
        total = sum(map(len, found.values()))
        typer.echo(f"{failed} of {total} checks failed." if failed else f"All well: {total} checks.")
    if failed:
        raise typer.Exit(1)
