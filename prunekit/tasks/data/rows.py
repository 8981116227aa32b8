"""The rows of one split: columns in the order of the split, and where each row stands."""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

from prunekit.errors import DataError
from prunekit.tasks.data.lazy import CHUNK
from prunekit.tasks.data.tables import Table

_HALF = re.compile("[\ud800-\udfff]")
"""A surrogate, of which JSON can write one without the other."""


class Rows:
    """The rows of one split, in an order in which any first N are a fair sample.

    Args:
        task: named in messages.
        tables: where they stand.
        order: indices into the tables' rows, one table after the other.
        streaming: whether the rows stay on disk, and should be asked for in ``blocks``.
    """

    def __init__(
        self, task: str, tables: Sequence[Table], order: Sequence[int], *, streaming: bool = False
    ) -> None:
        self.task, self.tables, self.order, self.streaming = task, tables, order, streaming
        self._ends = list(accumulate(table.size for table in tables))

    def __len__(self) -> int:
        return len(self.order)

    def where(self, index: int) -> str:
        """Return file and line of a row."""
        table, row = self._place(self.order[index])
        return self.tables[table].where(row)

    def _place(self, row: int) -> tuple[int, int]:
        """The table in which a row of all tables stands, and its place there."""
        table = bisect_right(self._ends, row)
        return table, row - (self._ends[table - 1] if table else 0)

    def check_column(self, key: str, name: str) -> None:
        """Refuse a column that a table does not have.

        Raises:
            DataError: if so; the text names the recipe's ``key`` and the columns there are.
        """
        for table in self.tables:
            found = table.missing(name)
            if found is not None:
                raise DataError(
                    f"Task {self.task}: task.{key} asks for a column {name!r}, but {table.source} has "
                    f"{found} Correct task.{key}, or the data."
                )

    def blocks(self) -> Iterator[Sequence[int]]:
        """Yield the indices of all rows, as many at once as memory should hold: all, unless streaming."""
        size = CHUNK if self.streaming else max(1, len(self))
        for start in range(0, len(self), size):
            yield range(start, min(start + size, len(self)))

    def values(self, name: str, chosen: Sequence[int] | None = None) -> list[Any]:
        """Return a column, in the order of the rows; of the rows ``chosen`` only, if they are given.

        ``answers.text`` is what the objects in the column ``answers`` have as ``text``, see ``Table.values``.
        """
        rows = self.order if chosen is None else [self.order[index] for index in chosen]
        if len(self.tables) == 1:
            return self.tables[0].values(name, rows)
        wanted: dict[int, list[tuple[int, int]]] = {}
        for position, (table, row) in enumerate(map(self._place, rows)):
            wanted.setdefault(table, []).append((position, row))
        found: list[Any] = [None] * len(rows)
        for table, places in wanted.items():
            values = self.tables[table].values(name, [row for _, row in places])
            for (position, _), value in zip(places, values, strict=True):
                found[position] = value
        return found

    def each(self, name: str, chosen: Sequence[int] | None = None) -> Iterator[tuple[int, Any]]:
        """Yield index and value of a column like ``values``, without holding more than a block of them."""
        for block in self.blocks() if chosen is None else [chosen]:
            yield from zip(block, self.values(name, block), strict=True)

    def texts(self, name: str, chosen: Sequence[int] | None = None, *, numbers: bool = False) -> list[str]:
        """Return a column of texts, like ``values``; numbers as they are written, if they are allowed.

        Raises:
            DataError: if a value is none; the text names file and row.
        """
        indices = range(len(self)) if chosen is None else chosen
        values = zip(indices, self.values(name, chosen), strict=True)
        return [self.text(index, name, value, numbers=numbers) for index, value in values]

    def text(self, index: int, name: str, value: Any, *, numbers: bool = False) -> str:
        """Return a value of the column ``name`` in a row as a text, see ``texts``.

        Raises:
            DataError: if it is none; the text names file and row.
        """
        if isinstance(value, str):
            if half := _HALF.search(value):
                raise DataError(
                    f"Task {self.task}: {self.where(index)}: {name!r} holds half a character, "
                    f"U+{ord(half[0]):04X}, which no file takes. Correct the row or leave it out."
                )
            return value
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        # What is missing among numbers is read as a NaN from some files.
        if numbers and is_number and math.isfinite(value):
            return str(value)
        raise self.no_text(index, name, value)

    def no_text(self, index: int, name: str, value: Any) -> DataError:
        """Return the error for a value that should have been a text."""
        found = "nothing" if value is None else f"{value!r} ({type(value).__name__})"
        return DataError(
            f"Task {self.task}: {self.where(index)}: {name!r} holds {found}, but a text is needed. "
            "Correct the row or leave it out."
        )

    def classes(self, name: str) -> tuple[str, ...]:
        """Return the names that the data gives to the integers of a column; empty where it gives none."""
        return self.tables[0].classes.get(name, ())
