"""Options that several commands have: what to evaluate on, and how."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel

from prunekit.recipe_models import EvaluateSpec

MODEL_HELP = "Hub id, model folder, run folder or embedded:NAME."


def option(spec: type[BaseModel], key: str, **settings: Any) -> Any:
    """An option for one key of a recipe section, with that key's description and default."""
    field = spec.model_fields[key]
    description = str(field.description)
    default = "" if field.default is None else f" [default: {field.default}]"
    text = description[0].upper() + description[1:] + default
    return typer.Option(help=text, show_default=False, **settings)


TaskName = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Installed task that gives data and metrics.", show_default=False),
]
TaskRecipe = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Recipe whose task, with its keys, and `evaluate` section hold; in place of --task.",
        show_default=False,
    ),
]
Split = Annotated[str | None, option(EvaluateSpec, "split")]
Limit = Annotated[int | None, option(EvaluateSpec, "limit", min=1)]
BatchSize = Annotated[int | None, option(EvaluateSpec, "batch_size", min=1)]
NumBeams = Annotated[int | None, option(EvaluateSpec, "num_beams", min=1)]
