"""Guesses at what was meant, for error messages."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

_LONGEST = 200  # characters; comparing takes their square


def closest(word: str, options: Iterable[str]) -> str | None:
    """The option most like ``word``, ignoring case and ``-`` against ``_``; None if nothing comes near."""
    if len(word) > _LONGEST:
        return None
    folded = {_fold(option): option for option in options}
    matches = get_close_matches(_fold(word), folded, n=1, cutoff=0.6)
    return folded[matches[0]] if matches else None


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """``"; did you mean X?"``, to stand right after the complaint, or an empty string."""
    match = closest(word, options)
    return f"; did you mean {match}?" if match else ""


def _fold(word: str) -> str:
    return word.lower().replace("-", "_")
