"""``prunekit evaluate`` and ``prunekit speed``: measuring models that already exist."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import BaseModel

from prunekit.cli.output import AsJson, print_figures, print_json
from prunekit.recipe_models import EvaluateSpec, SpeedSpec, TaskSpec

if TYPE_CHECKING:
    from prunekit.plugins import Registry

MODEL_HELP = "Hub id, model folder, run folder or embedded:NAME."


def add_to(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command()(evaluate)
    app.command()(speed)


def _option(spec: type[BaseModel], key: str, **settings: Any) -> Any:
    """An option for one key of a recipe section, with that key's description and default."""
    field = spec.model_fields[key]
    description = str(field.description)
    default = "" if field.default is None else f" [default: {field.default}]"
    text = description[0].upper() + description[1:] + default
    return typer.Option(help=text, show_default=False, **settings)


def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)],
    task: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Installed task that gives data and metrics.", show_default=False),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Recipe whose task, with its keys, and `evaluate` section hold; in place of --task.",
            show_default=False,
        ),
    ] = None,
    split: Annotated[str | None, _option(EvaluateSpec, "split")] = None,
    limit: Annotated[int | None, _option(EvaluateSpec, "limit", min=1)] = None,
    batch_size: Annotated[int | None, _option(EvaluateSpec, "batch_size", min=1)] = None,
    num_beams: Annotated[int | None, _option(EvaluateSpec, "num_beams", min=1)] = None,
    as_json: AsJson = False,
) -> None:
    """Measure a model's quality on a task."""
    from prunekit.plugins import get_registry

    registry = get_registry()
    chosen, spec = _task_and_settings(task, recipe, registry)
    options = _given(split=split, limit=limit, batch_size=batch_size, num_beams=num_beams)
    spec = spec.model_copy(update=options)
    # Imported only now: these load torch, and a faulty recipe should be told of at once.
    from prunekit import pipeline
    from prunekit.progress import Progress

    result = pipeline.evaluate(model, chosen, spec, registry=registry, progress=Progress())
    (print_json if as_json else print_figures)(result)


def speed(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL", help=f"{MODEL_HELP} The others are compared with the first."),
    ],
    batch_size: Annotated[int | None, _option(SpeedSpec, "batch_size", min=1)] = None,
    num_beams: Annotated[int | None, _option(SpeedSpec, "num_beams", min=1)] = None,
    new_tokens: Annotated[int | None, _option(SpeedSpec, "new_tokens", min=1)] = None,
    input_tokens: Annotated[int | None, _option(SpeedSpec, "input_tokens", min=1)] = None,
    rounds: Annotated[int | None, _option(SpeedSpec, "rounds", min=1)] = None,
    as_json: AsJson = False,
) -> None:
    """Time models against each other, interleaved in one process."""
    from prunekit import pipeline
    from prunekit.progress import Progress

    spec = SpeedSpec(
        **_given(
            batch_size=batch_size,
            num_beams=num_beams,
            new_tokens=new_tokens,
            input_tokens=input_tokens,
            rounds=rounds,
        )
    )
    result = pipeline.speed(models, spec, progress=Progress())
    (print_json if as_json else print_figures)(result)


def _task_and_settings(
    task: str | None, recipe: Path | None, registry: Registry
) -> tuple[TaskSpec, EvaluateSpec]:
    from prunekit.errors import RecipeError
    from prunekit.recipe import load_recipe

    if (task is None) == (recipe is None):
        raise RecipeError("give either --task NAME or --recipe FILE.")
    if recipe is not None:
        loaded = load_recipe(recipe, registry=registry)
        return loaded.task, loaded.evaluate
    registry.find("tasks", str(task))
    return TaskSpec(name=str(task)), EvaluateSpec()


def _given(**options: Any) -> dict[str, Any]:
    return {key: value for key, value in options.items() if value is not None}
