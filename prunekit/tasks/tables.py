"""Rows in files: CSV, TSV, JSON lines, JSON and parquet, read as columns that know where values stand."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from prunekit.errors import DataError
from prunekit.suggest import did_you_mean


@dataclass(frozen=True)
class Table:
    """The rows of one file, or of one split of a data set from the hub.

    Attributes:
        source: what messages call it.
        size: its rows.
        columns: a function for each column, which gives its values.
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


def read_table(path: Path) -> Table:
    """Return the rows of a file of one of the formats in ``READERS``.

    Raises:
        DataError: if it is missing, holds no rows, or a row is malformed; the text names file and row.
    """
    if not path.is_file():
        raise DataError(_missing(path))
    table = READERS[path.suffix.lower()](path)
    if not table.size:
        raise DataError(f"{path} has no rows. Give a file with at least one.")
    return table


def _missing(path: Path) -> str:
    here = Path.cwd()
    tried = here / path
    if tried.is_dir():
        return f"{path} is a folder ({tried}). Name the file, or the files as a list."
    folder = tried.parent
    hint = did_you_mean(path.name, [each.name for each in folder.iterdir()]) if folder.is_dir() else ""
    relative = "" if path.is_absolute() else f" (relative paths start at the current folder, {here})"
    return f"{path}: there is no file {tried}{hint}{relative}. Correct the path, or run prunekit elsewhere."


def _text(path: Path) -> str:
    try:
        # Excel starts files with a byte order mark, which must not become part of the first column's name.
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8: byte {error.start + 1} is 0x{error.object[error.start]:02x}. Save it as "
            "UTF-8, which spreadsheets offer when they export."
        ) from error


def _read_separated(path: Path, *, delimiter: str) -> Table:
    # Line ends are the csv module's affair, as a quoted text may hold some.
    reader = csv.reader(io.StringIO(_text(path), newline=""), delimiter=delimiter, strict=True)
    rows: list[list[str]] = []
    lines: list[int] = []
    try:
        with _long_fields():
            header = next(reader, [])
            if len(set(header)) < len(header):
                twice = next(name for name in header if header.count(name) > 1)
                raise DataError(f"{path}: two columns are called {twice!r}. Give every column its own name.")
            for row in reader:
                if row and len(row) != len(header):
                    raise DataError(
                        f"{path}, line {reader.line_num}: found {len(row)} fields, but the first line names "
                        f"{len(header)} columns ({', '.join(header)}). Quote texts that hold a separator."
                    )
                if row:
                    rows.append(row)
                    lines.append(reader.line_num)
    except csv.Error as error:
        raise DataError(
            f"{path}, line {reader.line_num}: {error}. Double the quotes inside of quoted texts and quote "
            "texts that start with one, or save the data as JSON lines."
        ) from error
    columns = zip(*rows, strict=True) if rows else [()] * len(header)
    return _in_memory(path, dict(zip(header, columns, strict=True)), lines)


@contextmanager
def _long_fields() -> Iterator[None]:
    """Let fields be as long as whole books: the csv module stops at 131,072 characters."""
    before = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _read_json_lines(path: Path) -> Table:
    rows: list[dict[str, Any]] = []
    lines: list[int] = []
    # Not splitlines, which also breaks lines where Unicode has separators inside of texts.
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if line.strip():
            rows.append(_json_object(f"{path}, line {number}", line))
            lines.append(number)
    return _in_memory(path, _columns(rows), lines)


def _json_object(where: str, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{where}: not JSON ({error.msg}, column {error.colno}). Write one object a line."
        ) from error
    return _checked_object(where, row)


def _checked_object(where: str, row: Any) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise DataError(
            f'{where}: found a {type(row).__name__}, but a row is an object such as {{"text": "..."}}.'
        )
    return row


def _read_json(path: Path) -> Table:
    text = _text(path)
    if not text.lstrip().startswith("["):
        return _read_json_lines(path)  # what many call .json holds one object a line
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}, line {error.lineno}: not JSON ({error.msg}, column {error.colno}). Write a "
            "list of objects, or one object a line."
        ) from error
    found = [_checked_object(f"{path}, row {number}", row) for number, row in enumerate(rows, start=1)]
    return _in_memory(path, _columns(found), None, size=len(found))


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Columns of all keys there are; what a row does not have is None."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _in_memory(
    path: Path, columns: Mapping[str, Sequence[Any]], lines: Sequence[int] | None, *, size: int | None = None
) -> Table:
    def give(values: Sequence[Any]) -> Sequence[Any]:
        return values

    readers = {name: partial(give, values) for name, values in columns.items()}
    return Table(str(path), len(lines or ()) if size is None else size, readers, lines)


def _read_parquet(path: Path) -> Table:
    from datasets import Features  # type: ignore[import-untyped]
    from pyarrow import ArrowException  # type: ignore[import-untyped]
    from pyarrow.parquet import ParquetFile  # type: ignore[import-untyped]

    try:
        # Columns are read when they are asked for: a file may have many that no task wants.
        file = ParquetFile(path, memory_map=True)
        features = Features.from_arrow_schema(file.schema_arrow)
    except (ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path} is not a parquet file: {error}. Save it again, or as JSON lines.") from error

    def read(name: str) -> list[Any]:
        values: list[Any] = file.read(columns=[name]).column(name).to_pylist()
        return values

    return Table(
        str(path),
        file.metadata.num_rows,
        {name: partial(read, name) for name in features},
        classes=class_names(features),
    )


def class_names(features: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Return the names of classes by column, of ``datasets.Features``."""
    return {name: tuple(kind.names) for name, kind in features.items() if hasattr(kind, "names")}


READERS: dict[str, Callable[[Path], Table]] = {
    ".csv": partial(_read_separated, delimiter=","),
    ".tsv": partial(_read_separated, delimiter="\t"),
    ".jsonl": _read_json_lines,
    ".json": _read_json,
    ".parquet": _read_parquet,
}
"""How each kind of file is read, by the end of its name."""
