"""Rows in files, or handed over in memory, as columns that know where their values stand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, overload

from prunekit.errors import DataError
from prunekit.suggest import did_you_mean
from prunekit.tasks.data.lines import LINE_READERS, Line

LOOKED_AT = 1000
"""Rows in which the names inside of a column's objects are looked for: the first ones may be empty."""


class DiskColumn(Sequence[Any]):
    """Values that stay on disk until they are asked for.

    Args:
        size: how many there are.
        pick: returns those in some rows.
    """

    def __init__(self, size: int, pick: Callable[[Sequence[int]], list[Any]]) -> None:
        self._size, self.pick = size, pick

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, key: int) -> Any: ...

    @overload
    def __getitem__(self, key: slice) -> list[Any]: ...

    def __getitem__(self, key: int | slice) -> Any:
        rows = range(self._size)[key]
        return self.pick(rows) if isinstance(rows, range) else self.pick([rows])[0]


@dataclass(frozen=True)
class Table:
    """The rows of one file, or of one split of a data set from the hub.

    Attributes:
        source: what messages call it.
        size: its rows.
        columns: a function for each column, which gives its values; a ``DiskColumn`` where they stay on disk.
        lines: the line of the file on which each row ends; none where rows are counted instead.
        classes: names of the integers 0, 1, ... in a column, where the data says them.
    """

    source: str
    size: int
    columns: Mapping[str, Callable[[], Sequence[Any]]]
    lines: Sequence[int] | None = None
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def where(self, row: int) -> str:
        """Return the place of a row, counted from 0 here and from 1 there."""
        return (
            f"{self.source}, row {row + 1}"
            if self.lines is None
            else f"{self.source}, line {self.lines[row]}"
        )

    def values(self, name: str, rows: Sequence[int]) -> list[Any]:
        """Return the values of a column in some rows.

        ``answers.text`` is what the objects in the column ``answers`` have as ``text``, a list where they
        stand in lists. A column that is called so itself comes first.
        """
        column, *keys = self._parts(name) or [name]
        stored = self.columns[column]()
        found = stored.pick(rows) if isinstance(stored, DiskColumn) else [stored[row] for row in rows]
        return [_inside(value, keys) for value in found] if keys else found

    def missing(self, name: str) -> str | None:
        """Return the columns there are, and the nearest name, if one is missing; None if it is there."""
        parts = self._parts(name)
        names = list(self.columns)
        if parts:
            column, *keys = parts
            values = self.columns[column]()[:LOOKED_AT] if keys else ()
            found = dict.fromkeys(path for value in values for path in _paths(value))
            # Where every value looked at is empty, nothing speaks against the name.
            if not found or tuple(keys) in found:
                return None
            names = [".".join((column, *path)) for path in found if path] or names
        return f"{', '.join(map(repr, names)) or 'none'}{did_you_mean(name, names) or '.'}"

    def _parts(self, name: str) -> list[str]:
        """A column and the keys inside of its objects; empty if there is no such column."""
        if name in self.columns:
            return [name]
        column, dot, key = name.rpartition(".")
        parts = self._parts(column) if dot else []
        return [*parts, key] if parts else []


def _inside(value: Any, keys: Sequence[str]) -> Any:
    for position, key in enumerate(keys):
        if isinstance(value, list | tuple):
            return [_inside(each, keys[position:]) for each in value]
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _paths(value: Any) -> Iterator[tuple[str, ...]]:
    """The keys, and the keys below them, of an object or of objects in a list; ``()`` of any other value."""
    if isinstance(value, list | tuple):
        for each in value:
            yield from _paths(each)
    elif isinstance(value, Mapping):
        for key, below in value.items():
            yield (key,)
            yield from ((key, *path) for path in _paths(below) if path)
    elif value is not None:
        yield ()


def read_table(path: Path) -> Table:
    """Return the rows of a file of one of the formats in ``READERS``.

    Raises:
        DataError: if it is missing, holds no rows, or a row is malformed; the text names file and row.
    """
    check_file(path)
    table = READERS[path.suffix.lower()](path)
    if not table.size:
        raise no_rows(path)
    return table


def check_file(path: Path) -> None:
    """Refuse a path where there is no file, or one whose name does not say how to read it.

    Raises:
        DataError: if so; the text names what was tried.
    """
    if not path.is_file():
        raise DataError(_missing(path))
    if path.suffix.lower() not in READERS:
        raise DataError(f"{path} must end in {', '.join(READERS)}.")


def no_rows(path: Path) -> DataError:
    """Return the error for a file without rows."""
    return DataError(f"{path} has no rows. Give a file with at least one.")


def _missing(path: Path) -> str:
    here = Path.cwd()
    tried = here / path
    if tried.is_dir():
        return f"{path} is a folder ({tried}). Name the file, or the files as a list."
    folder = tried.parent
    hint = did_you_mean(path.name, [each.name for each in folder.iterdir()]) if folder.is_dir() else ""
    relative = "" if path.is_absolute() else f" (relative paths start at the current folder, {here})"
    return f"{path}: there is no file {tried}{hint}{relative}. Correct the path, or run prunekit elsewhere."


def table_of(source: str, rows: Iterable[Line]) -> Table:
    """Return rows, each with its line, as a table in memory; what a row does not have is None."""
    columns: dict[str, list[Any]] = {}
    lines: list[int] = []
    size = 0
    for line, row in rows:
        for name in row:
            if name not in columns:
                columns[name] = [None] * size
        for name, values in columns.items():
            values.append(row.get(name))
        if line is not None:
            lines.append(line)
        size += 1
    readers = {name: partial(_given, values) for name, values in columns.items()}
    return Table(source, size, readers, lines or None)


def _given(values: Sequence[Any]) -> Sequence[Any]:
    return values


def _read_lines(path: Path, *, suffix: str) -> Table:
    return table_of(str(path), LINE_READERS[suffix](path))


def _read_parquet(path: Path) -> Table:
    # Columns are read when they are asked for: a file may have many that no task wants.
    file = parquet_file(path)

    def read(name: str) -> list[Any]:
        values: list[Any] = file.read(columns=[name]).column(name).to_pylist()
        return values

    columns = {name: partial(read, name) for name in file.schema_arrow.names}
    return Table(str(path), file.metadata.num_rows, columns, classes=classes_in(file.schema_arrow))


def parquet_file(path: Path) -> Any:
    """Return a parquet file, opened as pyarrow's ``ParquetFile``.

    Raises:
        DataError: if it is none.
    """
    from pyarrow import ArrowException  # type: ignore[import-untyped]
    from pyarrow.parquet import ParquetFile  # type: ignore[import-untyped]

    try:
        file = ParquetFile(path, memory_map=True)
        classes_in(file.schema_arrow)
    except (ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path} is not a parquet file: {error}. Save it again, or as JSON lines.") from error
    return file


def classes_in(schema: Any) -> dict[str, tuple[str, ...]]:
    """Return the names of classes by column, of a pyarrow schema that ``datasets`` has written."""
    from datasets import Features  # type: ignore[import-untyped]

    return class_names(Features.from_arrow_schema(schema))


def class_names(features: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return the names of classes by column, of ``datasets.Features``."""
    return {name: tuple(kind.names) for name, kind in features.items() if hasattr(kind, "names")}


READERS: dict[str, Callable[[Path], Table]] = {
    **{suffix: partial(_read_lines, suffix=suffix) for suffix in LINE_READERS},
    ".parquet": _read_parquet,
}
"""How each kind of file is read, by the end of its name."""
