"""JSON files: read whole, and refused where two readers could understand two things."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prunekit.errors import RunFolderError

MOST = 64 * 2**20
"""Bytes that a file may have."""
_DIGITS = 100
_SHOWN = 100


def read_json(path: Path, advice: str) -> dict[str, Any]:
    """The mapping in a JSON file of a run, a comparison or what is kept beside them.

    Args:
        path: the file.
        advice: what to do if it is damaged, as a sentence.

    Raises:
        RunFolderError: if it cannot be read or holds anything else.
    """
    try:
        found, _ = read_strictly(path)
    except OSError as error:
        raise RunFolderError(f"{path} cannot be read ({error.strerror or error}). {advice}") from error
    except ValueError as error:
        raise RunFolderError(f"{path} is damaged: {error}. {advice}") from error
    if not isinstance(found, dict):
        raise RunFolderError(f"{path} is damaged: it holds no mapping. {advice}")
    return found


def read_strictly(path: Path, most: int = MOST) -> tuple[Any, str]:
    """The data in a JSON file, and the text that it was read from, for a caller with words of its own.

    Args:
        path: the file.
        most: bytes that it may have.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is no UTF-8, no JSON, too large, too deep, or holds a key twice.
    """
    with path.open("rb") as file:
        content = file.read(most + 1)  # a device has no size, and no end
    if len(content) > most:
        raise ValueError(f"it holds more than {most // 2**20} MiB")
    text = content.decode("utf-8-sig")
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_int=_whole), text
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: line {error.lineno}, column {error.colno}: {error.msg}") from error
    except RecursionError as error:
        raise ValueError("its objects and lists lie too deep inside each other") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice[:_SHOWN]!r} stands twice")
    return found


def _whole(digits: str) -> int:
    if len(digits) > _DIGITS:
        raise ValueError(f"a number has {len(digits):,} digits")
    return int(digits)
