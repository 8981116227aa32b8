"""``prunekit diff``: which answers changed from one model to another, and what that costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prunekit.cli.options import BatchSize, Limit, NumBeams, Split, TaskName, TaskRecipe
from prunekit.cli.output import AsJson, make_console, print_json
from prunekit.errors import RecipeError
from prunekit.files import write_text
from prunekit.task_choice import given, task_and_settings

if TYPE_CHECKING:
    from prunekit.comparison.answers import Answered


def add_to(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command()(diff)


def diff(
    base: Annotated[
        str, typer.Argument(metavar="BASE", help="Run folder, or any model that `prunekit evaluate` takes.")
    ],
    pruned: Annotated[
        str | None,
        typer.Argument(
            metavar="PRUNED",
            help="Model to judge by it; without, BASE is a run, and its two models are compared.",
            show_default=False,
        ),
    ] = None,
    task: TaskName = None,
    recipe: TaskRecipe = None,
    split: Split = None,
    limit: Limit = None,
    batch_size: BatchSize = None,
    num_beams: NumBeams = None,
    worst: Annotated[int, typer.Option(min=0, metavar="N", help="Worst regressions to list.")] = 10,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write an HTML page too.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show which answers changed between two models, what flipped, and the worst regressions.

    Without --task and --recipe nothing is evaluated: the answers that finished runs keep are compared.
    """
    options = {"split": split, "limit": limit, "batch_size": batch_size, "num_beams": num_beams}
    answered = _answered(base, pruned, task, recipe, options)
    from prunekit.comparison.difference import difference
    from prunekit.reports.difference import print_difference, render_difference

    found = difference(
        answered.base,
        answered.pruned,
        metric=answered.metric,
        higher_is_better=answered.higher_is_better,
    )
    if html is not None:
        write_text(html, render_difference(found, worst=worst))
    if as_json:
        print_json({**found, "regressions": found["regressions"][:worst]})
    else:
        print_difference(found, make_console(), worst=worst)


def _answered(
    base: str, pruned: str | None, task: str | None, recipe: Path | None, options: dict[str, Any]
) -> Answered:
    if task is None and recipe is None:
        if fixed := given(**options):
            names = ", ".join(f"--{key.replace('_', '-')}" for key in fixed)
            raise RecipeError(
                f"{names} says how to evaluate; give --task NAME or --recipe FILE with it, or neither to "
                "compare the answers that runs keep."
            )
        from prunekit.comparison.answers import kept_answers

        return kept_answers(Path(base), None if pruned is None else Path(pruned))
    if pruned is None:
        raise RecipeError("--task and --recipe evaluate two models; give PRUNED too.")
    from prunekit.plugins import get_registry

    registry = get_registry()
    chosen, spec = task_and_settings(task, recipe, registry, **options)
    # Imported only now: these load torch, and a faulty recipe should be told of at once.
    from prunekit.comparison.answers import made_answers
    from prunekit.progress import Progress

    return made_answers(base, pruned, chosen, spec, registry=registry, progress=Progress())
