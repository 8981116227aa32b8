"""The command line: one file a command group, assembled here.

Commands import what they need when they run, so that ``prunekit --help`` answers without loading torch.
"""

from __future__ import annotations

import logging
import os
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from prunekit import interrupts, ranks
from prunekit.cli import (
    adapters,
    compare,
    diff,
    doctor,
    measure,
    methods,
    prune,
    recipes,
    show,
    tasks,
    verify,
)
from prunekit.errors import OtherProcessError, PrunekitError, RecipeError
from prunekit.shown import harmless


class _Guarded(TyperGroup):
    """Turns exceptions into messages and exit codes: 2 for a faulty recipe, 130, 143 for signals, else 1."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if "--debug" in args:  # people add it at the end of the command that failed
            args = ["--debug", *(argument for argument in args if argument != "--debug")]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            with interrupts.caught(), _log_shown(), _one_voice():
                return super().invoke(ctx)
        except KeyboardInterrupt as error:
            stop = error if isinstance(error, interrupts.Interrupted) else interrupts.Interrupted()
            typer.echo(str(stop), err=True)
            raise typer.Exit(stop.exit_code) from error
        except OtherProcessError as error:  # which has said what there is to say
            raise typer.Exit(1) from error
        except PrunekitError as error:
            _tell(f"{type(error).__name__}: {error}", debug=ctx.params["debug"])
            raise typer.Exit(2 if isinstance(error, RecipeError) else 1) from error
        except Exception as error:
            # Typer's own: exits, usage errors, and the closed pipe that it knows how to end quietly.
            if hasattr(error, "exit_code") or isinstance(error, typer.Abort | BrokenPipeError):
                raise
            text = " ".join(f"{type(error).__name__}: {error}".split())
            hint = "This is not a fault prunekit knows; add --debug to the command to see where it happened."
            _tell(f"{text}\n{hint}", debug=ctx.params["debug"])
            raise typer.Exit(1) from error


class _Echo(logging.Handler):
    """Prints the message alone, and once, on what standard error is at that moment: a bar may hold it."""

    def __init__(self) -> None:
        super().__init__()
        self._told: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        # The runs of a comparison all have the same to say of their data, and so have the processes of a run.
        if ranks.is_first() and (text := self.format(record)) not in self._told:
            self._told.add(text)
            typer.echo(harmless(text), err=True)


@contextmanager
def _log_shown() -> Iterator[None]:
    """Show warnings of everybody, and of prunekit also what it has to tell."""
    handler = _Echo()
    logging.getLogger().addHandler(handler)
    logging.getLogger("prunekit").setLevel(logging.INFO)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)


@contextmanager
def _one_voice() -> Iterator[None]:
    """Let the first of several processes alone print results; each tells of its own errors."""
    if ranks.is_first():
        yield
        return
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
        yield


def _tell(message: str, *, debug: bool) -> None:
    message = message if ranks.count() == 1 else f"[process {ranks.index()}] {message}"
    if debug:
        typer.echo(traceback.format_exc(), err=True, nl=False)
    else:
        typer.echo(harmless(message), err=True)


app = typer.Typer(
    name="prunekit",
    cls=_Guarded,
    help="Structured pruning of transformer models: one recipe, any method.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # Recipe keys and patterns such as [encoder.*] would be read as markup.
    rich_markup_mode=None,
)
prune.add_to(app)
compare.add_to(app)
measure.add_to(app)
doctor.add_to(app)
show.add_to(app)
diff.add_to(app)
verify.add_to(app)
app.add_typer(methods.app)
app.add_typer(adapters.app)
app.add_typer(tasks.app)
app.add_typer(recipes.app)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"prunekit {version('prunekit')}")
        raise typer.Exit


@app.callback()
def _options(
    ctx: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    # Both options act elsewhere: in _Guarded and in _print_version.
    ranks.check()
    if ctx.invoked_subcommand not in ("prune", "finetune"):
        ranks.refuse(f"prunekit {ctx.invoked_subcommand}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; ends in ``SystemExit`` with the exit code.

    Args:
        arguments: what stands behind ``prunekit``; the process's own arguments by default.
    """
    app(args=arguments, prog_name="prunekit")
