"""Text of users, models and data for a terminal: shown as characters, never obeyed by it."""

from __future__ import annotations


def visible(text: str, limit: int | None = None) -> str:
    r"""The text in one line, with what does not print (control characters, escapes) written as ``\x1b``.

    Args:
        text: any text.
        limit: characters to show at most; what is cut off is marked by an ellipsis.
    """
    line = "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in " ".join(text.split())
    )
    return line if limit is None or len(line) <= limit else line[: limit - 1] + "…"
