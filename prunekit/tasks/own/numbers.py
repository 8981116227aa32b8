"""Numbers in the user's own rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from prunekit.errors import DataError
from prunekit.tasks.data.rows import Rows


def finite(value: Any) -> float | None:
    """Return the finite number that a value is or spells; None if there is none."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def numbers_in(task: str, rows: Rows, column: str, chosen: Sequence[int] | None = None) -> list[float]:
    """Return the number of each row, or of each of those ``chosen``.

    Raises:
        DataError: if a row has none; the text names file and row.
    """
    found: list[float] = []
    for index, value in rows.each(column, chosen):
        number = finite(value)
        if number is None:
            raise DataError(
                f"Task {task}: {rows.where(index)}: {column!r} holds {shown(value)}, but a finite number is "
                "needed. Correct the row."
            )
        found.append(number)
    return found


def shown(value: Any) -> str:
    """Return a cell's value for a message."""
    return "nothing" if value in (None, "") else repr(value)
