"""``prunekit compare``: pruning methods on one table."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prunekit.cli.output import AsJson, make_console
from prunekit.cli.prune import RUNS, Overrides
from prunekit.comparison import FILE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from prunekit.plugins import Registry
    from prunekit.recipe import Recipe


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
    command = _command(
        targets,
        seeds=seeds if seeds > 1 else None,
        sweep=sweep,
        only=only,
        reference=reference,
        set=overrides,
    )
    if stored := _stored(targets):
        _refuse_recipe_options(seeds=seeds > 1, sweep=sweep, set=overrides, reference=reference, out=out)
        found, folder = stored, targets[0]
    elif len(targets) == 1 and not targets[0].is_dir():
        recipes, registry = _recipes(targets[0], overrides or [], sweep)
        folder = out or RUNS / f"compare-{targets[0].stem}"
        about = {"name": targets[0].stem, "command": command, "reference": reference or "dense"}
        found = _of_recipe(recipes, about, folder, seeds=seeds, only=patterns, registry=registry)
    else:
        _refuse_recipe_options(seeds=seeds > 1, sweep=sweep, set=overrides, only=only)
        folder = out or RUNS / "comparison"
        about = {"name": folder.name, "command": command, "reference": reference or "dense"}
        found = _of_runs(targets, about, folder)
    _show(
        found, chosen[0] if chosen else None, sort=sort, only=patterns, frontier=frontier, expected=expected
    )
    if not chosen:
        typer.echo(f"\nPage: {folder / 'comparison.html'}")
    if all(row["error"] for row in found["rows"] if not row["dense"]):
        raise typer.Exit(1)


def _stored(targets: Sequence[Path]) -> dict[str, Any] | None:
    """The comparison in the one folder that is named, if it is a comparison's."""
    path = targets[0] / FILE
    if len(targets) > 1 or not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def _recipes(
    path: Path, overrides: Sequence[str], sweep: str | None
) -> tuple[list[tuple[Mapping[str, Any], Recipe]], Registry]:
    """The recipe at each point of the sweep."""
    import yaml

    from prunekit.plugins import get_registry
    from prunekit.recipe import load_recipe

    registry = get_registry()
    if sweep is None:
        whole: tuple[Mapping[str, Any], Recipe] = ({}, load_recipe(path, overrides, registry=registry))
        return [whole], registry
    key, _, values = sweep.partition("=")
    texts = list(dict.fromkeys(text.strip() for text in values.split(",")))
    if not key or not all(texts):
        raise typer.BadParameter(
            f"{sweep!r} is no sweep; give a recipe key and its values, such as budget.sparsity=0.5,0.6.",
            param_hint="--sweep",
        )
    points: list[tuple[Mapping[str, Any], Recipe]] = [
        (
            {key: yaml.safe_load(text)},
            load_recipe(path, [*overrides, f"{key}={text}"], registry=registry),
        )
        for text in texts
    ]
    return points, registry


def _of_recipe(
    recipes: Sequence[tuple[Mapping[str, Any], Recipe]],
    about: Mapping[str, str],
    folder: Path,
    *,
    seeds: int,
    only: Sequence[str],
    registry: Registry,
) -> dict[str, Any]:
    # Imported only now: these load torch, and a faulty recipe should be told of at once.
    from prunekit.comparison.compare import About, compare_recipe
    from prunekit.progress import Progress

    first = recipes[0][1].seed
    return compare_recipe(
        recipes,
        About(**about),
        folder,
        seeds=range(first, first + seeds),
        only=only,
        registry=registry,
        progress=Progress(),
    )


def _of_runs(folders: Sequence[Path], about: Mapping[str, str], out: Path) -> dict[str, Any]:
    from prunekit.comparison.compare import About, compare_runs
    from prunekit.plugins import get_registry
    from prunekit.progress import Progress

    return compare_runs(folders, About(**about), out, registry=get_registry(), progress=Progress())


def _command(targets: Sequence[Path], **options: Any) -> str:
    """What makes the same comparison again, whatever it is then printed as."""
    parts = ["prunekit", "compare", *map(str, targets)]
    for name, value in options.items():
        for each in value if isinstance(value, list) else [] if value is None else [value]:
            parts += [f"--{name}", str(each)]
    return shlex.join(parts)


def _refuse_recipe_options(**given: Any) -> None:
    named = [f"--{name}" for name, value in given.items() if value]
    if named:
        raise typer.BadParameter(
            f"{', '.join(named)} cannot change what is finished. Leave it out, or give the recipe."
        )


def _show(found: Mapping[str, Any], kind: str | None, **choice: Any) -> None:
    from prunekit.reports.comparison import print_comparison, render

    if kind is None:
        print_comparison(found, make_console(), **choice)
    else:
        typer.echo(render(found, kind, **choice), nl=False)
