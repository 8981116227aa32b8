"""Printing for all commands: text for people, JSON for programs, and never markup from user strings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]

_PIPE_WIDTH = 1000  # wide enough that no table is folded for a file or another program


def make_console() -> Console:
    """A console on standard output that prints text as it is."""
    from rich.console import Console

    console = Console(markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    return console


def print_json(data: Any) -> None:
    """Print JSON, and nothing else, on standard output."""
    typer.echo(json.dumps(data, indent=1))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under column names, folding long cells on a terminal."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="")
    for column in columns:
        table.add_column(Text(column), overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console = make_console()
    with console.capture() as printed:
        console.print(table)
    for line in printed.get().splitlines():
        typer.echo(line.rstrip())


def print_figures(data: Mapping[str, Any], indent: str = "") -> None:
    """Print a result as ``name  value`` lines: mappings indented, raw samples as a count."""
    width = max((len(key) for key in data), default=0)
    for key, value in data.items():
        if isinstance(value, Mapping):
            typer.echo(f"{indent}{key}")
            print_figures(value, indent + "  ")
        elif _is_rows(value):
            typer.echo(f"{indent}{key}")
            print_table(list(value[0]), [[_figure(cell) for cell in row.values()] for row in value])
        else:
            typer.echo(f"{indent}{key:<{width}}  {_figure(value)}")


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, Mapping) for row in value)


def _figure(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        if value and all(isinstance(item, int | float) for item in value):
            return f"{len(value)} values"
        return ", ".join(_figure(item) for item in value)
    return "-" if value is None else str(value)
