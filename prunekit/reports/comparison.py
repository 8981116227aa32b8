"""A comparison as one table: in the terminal, Markdown, LaTeX, CSV and JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from prunekit.errors import ComparisonError
from prunekit.reports import markdown
from prunekit.reports.comparison_columns import Column, Comparison, Key, Row, columns
from prunekit.reports.comparison_csv import render_csv
from prunekit.reports.comparison_latex import render_latex
from prunekit.reports.comparison_notes import notes
from prunekit.shown import printable
from prunekit.suggest import did_you_mean

FORMATS = ("markdown", "latex", "csv", "json")
"""What `render` writes."""
_AROUND = 3  # what Rich puts around a cell: two blanks and a rule


@dataclass(frozen=True)
class Table:
    """A comparison's figures as text, raw: whoever shows them escapes them.

    Attributes:
        title: what was compared.
        header: one text a column; columns that no row fills are left out.
        rows: cells, the row's name first.
        keys: what each cell sorts by, in the form of ``rows``; none goes last.
        notes: sentences that belong under the table.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    keys: Sequence[Sequence[Key]]
    notes: Sequence[str]


def comparison_table(
    comparison: Comparison,
    *,
    sort: str | None = None,
    only: Sequence[str] = (),
    frontier: bool = False,
    expected: bool = False,
) -> Table:
    """The table, the columns that decide first.

    Args:
        comparison: the content of ``comparison.json``.
        sort: name of a column to sort by, best or lowest first. Otherwise the dense model is first and the
            others follow by speedup.
        only: names, labels or methods to show, or patterns of them as a shell has; all if empty. The dense
            model is always shown.
        frontier: show only rows on the frontier, and the dense model.
        expected: also show the figures that the recipe says a paper printed.

    Raises:
        ComparisonError: if there is no such column, or ``only`` fits no row.
    """
    shown = columns(comparison, expected=expected)
    rows = _selected(comparison, shown, sort=sort, only=only, frontier=frontier)
    texts = [[column.text(row) for column in shown] for row in rows]
    filled = [i for i in range(len(shown)) if i == 0 or any(cells[i] for cells in texts)]
    return Table(
        title=f"{comparison['name']}: {comparison['model']}, task {comparison['task']}",
        header=[shown[i].header for i in filled],
        rows=[[cells[i] for i in filled] for cells in texts],
        keys=[[shown[i].key(row) for i in filled] for row in rows],
        notes=notes(comparison, rows, expected=expected),
    )


def render(
    comparison: Comparison,
    format: str,
    *,
    sort: str | None = None,
    only: Sequence[str] = (),
    frontier: bool = False,
    expected: bool = False,
) -> str:
    """The comparison as a text in one of `FORMATS`; the rest as `comparison_table` takes it.

    LaTeX wants the package booktabs. CSV and JSON hold raw numbers and every metric; CSV has a column for
    each.

    Raises:
        ComparisonError: if there is no such format or column, or ``only`` fits no row.
    """
    if format not in FORMATS:
        hint = did_you_mean(format, FORMATS) or "."
        raise ComparisonError(f"no format is called {format!r}{hint} There are: {', '.join(FORMATS)}.")
    if format in ("csv", "json"):
        rows = _selected(
            comparison, columns(comparison, expected=expected), sort=sort, only=only, frontier=frontier
        )
        if format == "csv":
            return render_csv(comparison, rows, expected=expected)
        return json.dumps({**comparison, "rows": rows}, indent=1) + "\n"
    table = comparison_table(comparison, sort=sort, only=only, frontier=frontier, expected=expected)
    if format == "latex":
        return render_latex(table.title, table.header, table.rows, table.notes)
    return _render_markdown(table)


def print_comparison(
    comparison: Comparison,
    console: Console,
    *,
    sort: str | None = None,
    only: Sequence[str] = (),
    frontier: bool = False,
    expected: bool = False,
) -> None:
    """Print the table, as several below each other where the terminal is narrow, and its notes.

    Text from the comparison is never read as markup. Arguments as `comparison_table` takes them.
    """
    table = comparison_table(comparison, sort=sort, only=only, frontier=frontier, expected=expected)
    console.print(Text(printable(table.title)))
    widths = [
        max(cell_len(printable(cell)) for cell in (_longest_word(head), *cells))
        for head, *cells in zip(table.header, *table.rows, strict=True)
    ]
    for part in _parts(widths, console.width):
        fits = _drawn(widths, part) <= console.width
        shown = RichTable()
        for i in part:
            shown.add_column(
                Text(printable(table.header[i])),
                overflow="fold",
                justify="right" if i else "left",
                width=widths[i] if fits else None,
            )
        for row in table.rows:
            shown.add_row(*(Text(printable(row[i])) for i in part))
        console.print(shown)
    for note in table.notes:
        console.print(Text(printable(note)))


def _parts(widths: Sequence[int], available: int) -> list[list[int]]:
    """Columns that stand side by side in the available width, the first one in each part."""
    parts = [[0]]
    for i in range(1, len(widths)):
        if len(parts[-1]) > 1 and _drawn(widths, [*parts[-1], i]) > available:
            parts.append([0])
        parts[-1].append(i)
    return parts


def _drawn(widths: Sequence[int], part: Sequence[int]) -> int:
    return 1 + sum(widths[i] + _AROUND for i in part)


def _longest_word(text: str) -> str:
    return max(text.split(), key=cell_len, default="")


def _selected(
    comparison: Comparison,
    shown: Sequence[Column],
    *,
    sort: str | None,
    only: Sequence[str],
    frontier: bool,
) -> list[Row]:
    rows: list[Row] = list(comparison["rows"])
    for pattern in only:
        if not any(_fits(row, pattern) for row in rows):
            names = [row["name"] for row in rows]
            hint = did_you_mean(pattern, names) or "."
            raise ComparisonError(f"no row fits {pattern!r}{hint} There are: {', '.join(names)}.")
    if only:
        rows = [row for row in rows if row["dense"] or any(_fits(row, pattern) for pattern in only)]
    if frontier:
        rows = [row for row in rows if row["dense"] or row["frontier"]]
    if sort is not None:
        return _sorted(rows, _column(comparison, shown, sort))
    by_speed = _sorted(rows, _column(comparison, shown, "speedup"))
    return sorted(by_speed, key=lambda row: not row["dense"])


def _fits(row: Row, pattern: str) -> bool:
    return any(pattern == row[key] or fnmatchcase(row[key], pattern) for key in ("name", "label", "method"))


def _column(comparison: Comparison, shown: Sequence[Column], name: str) -> Column:
    wanted = "quality" if name == (comparison["quality"] or {}).get("primary") else name
    names = [column.name for column in shown]
    if wanted not in names:
        hint = did_you_mean(name, names) or "."
        raise ComparisonError(f"no column to sort by is called {name!r}{hint} There are: {', '.join(names)}.")
    return shown[names.index(wanted)]


def _sorted(rows: Sequence[Row], column: Column) -> list[Row]:
    key: Callable[[Row], Any] = column.key
    known = [row for row in rows if key(row) is not None]
    return sorted(known, key=key, reverse=column.is_highest_first) + [r for r in rows if key(r) is None]


def _render_markdown(table: Table) -> str:
    cells = [[printable(cell) for cell in row] for row in (table.header, *table.rows)]
    said = [_no_list(markdown.escape(printable(note))) for note in table.notes]
    blocks = [f"# {markdown.escape(printable(table.title))}", markdown.table(cells[0], cells[1:])]
    blocks += markdown.bullets("", said)
    return "\n\n".join(blocks) + "\n"


def _no_list(line: str) -> str:
    """A line that starts no list, heading or quotation."""
    return re.sub(r"^(\d*)([#+>.)-])(?!\d)", r"\1\\\2", line)
