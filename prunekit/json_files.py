"""JSON written by others: read whole, and refused where two readers could understand two things."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MOST = 64 * 2**20
"""Bytes that a file may have."""
_DIGITS = 100


def read_json(path: Path, most: int = MOST) -> tuple[Any, str]:
    """The data in a JSON file, and the text that it was read from.

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
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} stands twice")
    return found


def _whole(digits: str) -> int:
    if len(digits) > _DIGITS:
        raise ValueError(f"a number has {len(digits):,} digits")
    return int(digits)
