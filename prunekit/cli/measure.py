"""``prunekit evaluate`` and ``prunekit speed``: measuring models that already exist."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from prunekit.cli.options import (
    MODEL_HELP,
    BatchSize,
    Limit,
    NumBeams,
    Split,
    TaskName,
    TaskRecipe,
    option,
)
from prunekit.cli.output import AsJson, print_figures, print_json, print_table
from prunekit.files import write_text
from prunekit.recipe_models import SpeedSpec
from prunekit.reports.speed import machine_sentence, render_speed_markdown, speed_tables
from prunekit.task_choice import given, task_and_settings


def add_to(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command()(evaluate)
    app.command()(speed)


def _sizes(what: str, default: Any) -> Any:
    return typer.Option(
        metavar="N[,N...]", help=f"{what} Several make a sweep. [default: {default}]", show_default=False
    )


def _flag(key: str) -> Any:
    text = str(SpeedSpec.model_fields[key].description)
    return typer.Option(f"--{key.replace('_', '-')}", help=text[0].upper() + text[1:])


def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP)],
    task: TaskName = None,
    recipe: TaskRecipe = None,
    split: Split = None,
    limit: Limit = None,
    batch_size: BatchSize = None,
    num_beams: NumBeams = None,
    as_json: AsJson = False,
) -> None:
    """Measure a model's quality on a task."""
    from prunekit.plugins import get_registry

    registry = get_registry()
    options = {"split": split, "limit": limit, "batch_size": batch_size, "num_beams": num_beams}
    chosen, spec = task_and_settings(task, recipe, registry, **options)
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
    batch: Annotated[
        str | None, _sizes("Examples a batch.", SpeedSpec.model_fields["batch_size"].default)
    ] = None,
    length: Annotated[str | None, _sizes("Input tokens.", "64, or all positions")] = None,
    new_tokens: Annotated[int | None, option(SpeedSpec, "new_tokens", min=1)] = None,
    num_beams: Annotated[int | None, option(SpeedSpec, "num_beams", min=1)] = None,
    length_penalty: Annotated[float | None, option(SpeedSpec, "length_penalty")] = None,
    static_cache: Annotated[bool, _flag("static_cache")] = False,
    compiled: Annotated[bool, _flag("compile")] = False,
    dtype: Annotated[str | None, option(SpeedSpec, "dtype", metavar="fp32|bf16|fp16")] = None,
    attention: Annotated[str | None, option(SpeedSpec, "attention", metavar="sdpa|eager")] = None,
    threads: Annotated[int | None, option(SpeedSpec, "threads", min=1)] = None,
    rounds: Annotated[int | None, option(SpeedSpec, "rounds", min=1)] = None,
    baselines: Annotated[
        bool,
        typer.Option(
            "--baselines",
            help="Time the first model also in bf16, compiled and, if it generates, with a static cache.",
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write everything measured, every sample included.", show_default=False
        ),
    ] = None,
    as_json: AsJson = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown instead of text.")] = False,
) -> None:
    """Time models against each other, interleaved in one process, at every batch size and length."""
    spec = _speed_spec(
        new_tokens=new_tokens,
        num_beams=num_beams,
        length_penalty=length_penalty,
        static_cache=static_cache,
        compile=compiled,
        dtype=dtype,
        attention=attention,
        threads=threads,
        rounds=rounds,
    )
    batches = _numbers("--batch", batch) or [spec.batch_size]
    lengths: list[int | None] = [*_numbers("--length", length)] or [None]
    # Imported only now: these load torch, and a faulty option should be told of at once.
    from prunekit import pipeline
    from prunekit.progress import Progress

    result = pipeline.speed(models, spec, batches, lengths, baselines=baselines, progress=Progress())
    if out is not None:
        write_text(out, json.dumps(result, indent=1) + "\n")
    if as_json:
        print_json(result)
    elif as_markdown:
        typer.echo(render_speed_markdown(result), nl=False)
    else:
        _print_speed(result)
    if all("error" in row for cell in result["cells"] for row in cell["models"].values()):
        raise typer.Exit(1)


def _print_speed(result: dict[str, Any]) -> None:
    typer.echo(machine_sentence(result))
    for found in speed_tables(result):
        typer.echo(f"\n{found.title}")
        print_table(found.header, found.rows)
        if found.parts:
            typer.echo()
            print_table(found.parts_header, found.parts)
        for note in found.notes:
            typer.echo(note)


def _speed_spec(**options: Any) -> SpeedSpec:
    try:
        return SpeedSpec(**given(**options))
    except ValidationError as error:
        fault = error.errors()[0]
        key = str(fault["loc"][0])
        raise typer.BadParameter(
            f"{fault['input']!r}: {fault['msg']}", param_hint=f"--{key.replace('_', '-')}"
        ) from error


def _numbers(option: str, text: str | None) -> list[int]:
    """Sizes of a list such as ``1,8,32``; each counts once."""
    found: dict[int, None] = {}
    for item in [] if text is None else text.split(","):
        if not item.strip().isdecimal() or int(item) < 1:
            raise typer.BadParameter(
                f"{item.strip()!r} in {text!r} is no size; give numbers from 1 with commas between them, "
                "such as 1,8,32.",
                param_hint=option,
            )
        found[int(item)] = None
    return list(found)
