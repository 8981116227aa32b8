"""``prunekit doctor``: why a model is as fast as it is, and what would make it faster."""

from __future__ import annotations

from typing import Annotated

import typer

from prunekit.cli.output import AsJson, make_console, print_json
from prunekit.errors import RecipeError


def add_to(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command()(doctor)


def doctor(
    model: Annotated[
        str,
        typer.Argument(metavar="RUN_OR_MODEL", help="Run folder, hub id, model folder or embedded:NAME."),
    ],
    batch: Annotated[int | None, typer.Option(min=1, help="Examples a batch.", show_default=False)] = None,
    length: Annotated[int | None, typer.Option(min=1, help="Input tokens.", show_default=False)] = None,
    new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Forced output length.", show_default=False)
    ] = None,
    num_beams: Annotated[
        int | None, typer.Option(min=1, help="Beams of generation.", show_default=False)
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="Timed rounds of each measurement.", show_default=False)
    ] = None,
    as_json: AsJson = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
) -> None:
    """Tell where a model's time goes, what bounds it, and what to try next.

    Settings that are not given are the run's own, and for a model alone those of `prunekit speed`.
    """
    if as_json and as_markdown:
        raise RecipeError("give --json or --markdown, not both.")
    from prunekit.doctor.diagnose import diagnose
    from prunekit.plugins import get_registry
    from prunekit.progress import Progress
    from prunekit.reports.doctor import print_diagnosis, render_markdown

    given = {
        "batch_size": batch,
        "input_tokens": length,
        "new_tokens": new_tokens,
        "num_beams": num_beams,
        "rounds": rounds,
    }
    options = {key: value for key, value in given.items() if value is not None}
    found = diagnose(model, options, registry=get_registry(), progress=Progress())
    if as_json:
        print_json(found)
    elif as_markdown:
        typer.echo(render_markdown(found), nl=False)
    else:
        print_diagnosis(found, make_console())
