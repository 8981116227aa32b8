"""Tables that objects show of themselves: aligned text for a prompt, HTML for a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class Shown:
    """A table as raw text; whoever shows it escapes it.

    Attributes:
        title: a line above it; none if empty.
        header: one text a column.
        rows: cells, in the order of ``header``.
        notes: lines below it.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


def printable(text: str) -> str:
    """One line without characters that steer a terminal or turn the direction of writing."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def visible(text: str, limit: int | None = None) -> str:
    r"""The text in one line, with what does not print (control characters, escapes) written as ``\x1b``.

    Args:
        text: any text.
        limit: characters to show at most; what is cut off is marked by an ellipsis.
    """
    line = harmless(" ".join(text.split()))
    return line if limit is None or len(line) <= limit else line[: limit - 1] + "…"


def harmless(text: str) -> str:
    r"""The text with its lines and blanks, and with all else that does not print written as ``\x1b``."""
    return "".join(
        character
        if character.isprintable() or character == "\n"
        else character.encode("unicode_escape").decode()
        for character in text
    )


def as_text(tables: Iterable[Shown]) -> str:
    """The tables below each other, columns aligned."""
    return "\n\n".join("\n".join(_lines(table)) for table in tables)


def as_html(tables: Iterable[Shown]) -> str:
    """The tables as HTML, every text escaped."""
    return "\n".join(_html(table) for table in tables)


def _lines(table: Shown) -> list[str]:
    from rich.cells import cell_len

    grid = [[printable(cell) for cell in row] for row in (table.header, *table.rows)] if table.rows else []
    widths = [max(map(cell_len, column)) for column in zip(*grid, strict=True)]
    rows = [
        "  ".join(cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True))
        for row in grid
    ]
    above = [printable(table.title)] if table.title else []
    return [*above, *(row.rstrip() for row in rows), *map(printable, table.notes)]


def _html(table: Shown) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        inside = "".join(
            f'<{tag} style="text-align: left">{escape(printable(cell))}</{tag}>' for cell in cells
        )
        return f"<tr>{inside}</tr>"

    parts = [f"<p><strong>{escape(printable(table.title))}</strong></p>"] if table.title else []
    if table.rows:
        body = "".join(row(cells, "td") for cells in table.rows)
        parts.append(f"<table><thead>{row(table.header, 'th')}</thead><tbody>{body}</tbody></table>")
    parts += [f"<p>{escape(printable(note))}</p>" for note in table.notes]
    return "\n".join(parts)
