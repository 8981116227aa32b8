"""``prunekit prune`` and ``prunekit finetune``: commands that run a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prunekit import ranks
from prunekit.cli.output import AsJson, make_console, print_figures, print_json
from prunekit.runfolder import RUNS, recipe_name

if TYPE_CHECKING:
    from prunekit.plugins import Registry
    from prunekit.recipe import Recipe

RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="Recipe file.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Seed to use in place of the recipe's.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change one recipe key, such as train.epochs=2; repeatable."
    ),
]
Deterministic = Annotated[
    bool,
    typer.Option("--deterministic", help="Use only kernels that repeat bit for bit, on a GPU too."),
]


def add_to(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command()(prune)
    app.command()(finetune)


def prune(
    recipe_file: RecipeFile,
    method: Annotated[
        str | None,
        typer.Option(metavar="LABEL", help="Method to run: a label of the recipe, or any installed method."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Run folder. [default: runs/RECIPE-LABEL]", show_default=False)
    ] = None,
    seed: Seed = None,
    overrides: Overrides = None,
    save_at: Annotated[
        str | None,
        typer.Option(
            metavar="S1,S2",
            help="Milestones: sparsities below the budget's at each of which a model is saved on the way, "
            "such as 0.3,0.5; for methods that learn masks.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show shapes, costs, steps, memory and disk, and run nothing.")
    ] = False,
    deterministic: Deterministic = False,
    as_json: AsJson = False,
) -> None:
    """Prune a model as a recipe says, recover it, and measure it.

    A run that was stopped goes on where it was if the same command is given again.
    """
    recipe, registry = _load(recipe_file, overrides, seed)
    # Imported only now: these load torch, and a faulty recipe should be told of at once.
    from prunekit import determinism, pipeline
    from prunekit.milestones import with_milestones
    from prunekit.progress import Progress
    from prunekit.recipe import resolve_method
    from prunekit.reports.run import print_summary

    chosen = resolve_method(recipe, method, registry)
    if save_at is not None:
        recipe = with_milestones(recipe, chosen, _numbers(save_at), registry=registry)
    if chosen.is_default:
        typer.echo(
            f"{recipe_file} has no label {chosen.label}; running that method with its defaults.", err=True
        )
    if dry_run:
        ranks.refuse("prunekit prune --dry-run")
        expected = pipeline.dry_run(recipe, chosen.label, registry=registry)
        (print_json if as_json else print_figures)(expected)
        return
    folder = out or RUNS / f"{recipe_name(recipe_file, recipe)}-{chosen.label}"
    with determinism.deterministic(deterministic):
        report = pipeline.run(recipe, chosen.label, folder, registry=registry, progress=Progress())
    if as_json:
        print_json(report)
    else:
        print_summary(report, make_console())


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(
            f"--save-at {text}: write sparsities with commas between them, such as 0.3,0.5."
        ) from None


def finetune(
    recipe_file: RecipeFile,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write. [default: runs/RECIPE]", show_default=False)
    ] = None,
    seed: Seed = None,
    overrides: Overrides = None,
    deterministic: Deterministic = False,
    as_json: AsJson = False,
) -> None:
    """Train a recipe's model on its task, before any pruning."""
    recipe, registry = _load(recipe_file, overrides, seed)
    from prunekit import determinism, pipeline
    from prunekit.progress import Progress

    folder = out or RUNS / recipe_name(recipe_file, recipe)
    with determinism.deterministic(deterministic):
        result = pipeline.finetune(recipe, folder, registry=registry, progress=Progress())
    if as_json:
        print_json(result)
    else:
        print_figures(result)
        typer.echo(f"Written to {folder}")


def _load(recipe_file: Path, overrides: list[str] | None, seed: int | None) -> tuple[Recipe, Registry]:
    from prunekit.plugins import get_registry
    from prunekit.recipe import load_recipe

    registry = get_registry()
    all_overrides = [*(overrides or []), *([] if seed is None else [f"seed={seed}"])]
    return load_recipe(recipe_file, all_overrides, registry=registry), registry
