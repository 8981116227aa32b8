"""Pieces of Markdown, safe for text that users and models wrote."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose first column is left-aligned text and whose others are right-aligned figures."""
    ruler = ["---"] + ["---:"] * (len(header) - 1)
    lines = [[escape(cell) for cell in row] for row in (header, *rows)]
    lines.insert(1, ruler)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def bullets(title: str, lines: Iterable[str]) -> list[str]:
    """Title and list as two blocks; nothing at all where there is no line."""
    listed = "\n".join(f"- {line}" for line in lines)
    return [block for block in (title, listed) if block] if listed else []


def fenced(text: str, language: str) -> str:
    """A block of code, whose fence no line of ``text`` can close."""
    fence = "~" * max(3, 1 + max(map(len, re.findall(r"~+|$", text))))
    return f"{fence}{language}\n{text}{fence}"


def escape(text: str) -> str:
    """Text that Markdown shows as it is, in one line: no links, emphasis, entities or formulas."""
    # An underscore inside a word, as names have it, means nothing.
    return re.sub(r"[\\`*<|~&$]|\](?=[\[(:])|(?<!\w)_|_(?!\w)", r"\\\g<0>", " ".join(text.split()))
