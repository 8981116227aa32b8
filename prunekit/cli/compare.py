"""``prunekit compare``: pruning methods on one table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from prunekit.cli.output import AsJson, make_console
from prunekit.cli.prune import Deterministic, Overrides
from prunekit.comparison.request import Request
from prunekit.comparison.request import compare as run


def add_to(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command()(compare)


def compare(
    targets: Annotated[
        list[Path],
        typer.Argument(
            metavar="RECIPE_OR_RUNS",
            help="A recipe, whose every method is run; or folders of finished runs; or a comparison's folder "
            "to print it again.",
        ),
    ],
    seeds: Annotated[
        int, typer.Option(min=1, help="Runs of each method: with the recipe's seed and those after it.")
    ] = 1,
    sweep: Annotated[
        str | None,
        typer.Option(
            metavar="KEY=V1,V2",
            help="Run each method once for each value of a recipe key, such as budget.sparsity=0.5,0.6,0.7.",
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN", help="Labels to run and show, such as 'nash*'; repeatable. [default: all]"
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            metavar="ROW", help="Row that all others are compared with. [default: dense]", show_default=False
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the comparison. [default: runs/compare-RECIPE, or runs/comparison]",
            show_default=False,
        ),
    ] = None,
    overrides: Overrides = None,
    deterministic: Deterministic = False,
    sort: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Order rows by this column, the best first.", show_default=False),
    ] = None,
    frontier: Annotated[
        bool, typer.Option("--frontier", help="Show only rows that no other beats in quality and speed.")
    ] = False,
    expected: Annotated[
        bool, typer.Option("--expected", help="Show what the recipe says a paper printed, too.")
    ] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
    as_latex: Annotated[bool, typer.Option("--latex", help="Print a LaTeX table (booktabs).")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, every figure in a column.")] = False,
    as_json: AsJson = False,
) -> None:
    """Compare pruning methods: the same examples, the same seeds, all models timed together.

    Stopped, the same command goes on where it was. A run that fails is a row with its error.
    """
    kinds = {"markdown": as_markdown, "latex": as_latex, "csv": as_csv, "json": as_json}
    chosen = [kind for kind, wanted in kinds.items() if wanted]
    if len(chosen) > 1:
        raise typer.BadParameter(f"give one of {', '.join(f'--{kind}' for kind in chosen)}, not several.")
    patterns = only or []
    request = Request(
        targets,
        seeds=seeds,
        sweep=_sweep(sweep),
        only=patterns,
        reference=reference,
        out=out,
        settings=overrides or [],
        deterministic=deterministic,
    )
    if refused := request.refused():
        named = ", ".join("--set" if name == "settings" else f"--{name}" for name in refused)
        raise typer.BadParameter(f"{named} cannot change what is finished. Leave it out, or give the recipe.")
    from prunekit.plugins import get_registry
    from prunekit.progress import Progress

    found, folder = run(request, registry=get_registry(), progress=Progress())
    _show(
        found, chosen[0] if chosen else None, sort=sort, only=patterns, frontier=frontier, expected=expected
    )
    if not chosen:
        typer.echo(f"\nPage: {folder / 'comparison.html'}")
    if all(row["error"] for row in found["rows"] if not row["dense"]):
        raise typer.Exit(1)


def _sweep(text: str | None) -> dict[str, list[Any]]:
    """The key of ``KEY=V1,V2`` and its values, read as YAML; each counts once."""
    if text is None:
        return {}
    key, _, values = text.partition("=")
    texts = list(dict.fromkeys(each.strip() for each in values.split(",")))
    if not key or not all(texts):
        raise typer.BadParameter(
            f"{text!r} is no sweep; give a recipe key and its values, such as budget.sparsity=0.5,0.6.",
            param_hint="--sweep",
        )
    return {key: [yaml.safe_load(each) for each in texts]}


def _show(found: Mapping[str, Any], kind: str | None, **choice: Any) -> None:
    from prunekit.reports.comparison import print_comparison, render

    if kind is None:
        print_comparison(found, make_console(), **choice)
    else:
        typer.echo(render(found, kind, **choice), nl=False)
