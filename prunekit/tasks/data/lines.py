"""Rows of CSV, TSV, JSON lines and JSON files, one after the other, so that nobody has to hold them all."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

from prunekit.errors import DataError

Line = tuple[int | None, dict[str, Any]]
"""The line of the file on which a row ends, None where rows are counted instead; and the row."""


def _separated(path: Path, *, delimiter: str) -> Iterator[Line]:
    # Line ends are the csv module's affair, as a quoted text may hold some.
    with _opened(path, newline="") as file, _long_fields():
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        try:
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
                    yield reader.line_num, dict(zip(header, row, strict=True))
        except csv.Error as error:
            raise DataError(
                f"{path}, line {reader.line_num}: {error}. Double the quotes inside of quoted texts and "
                "quote texts that start with one, or save the data as JSON lines."
            ) from error


def _json_lines(path: Path) -> Iterator[Line]:
    # Not splitlines, which also breaks lines where Unicode has separators inside of texts.
    with _opened(path) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, _json_object(f"{path}, line {number}", line.rstrip("\n"))


def _json(path: Path) -> Iterator[Line]:
    with _opened(path) as file:
        start = next((line.lstrip() for line in file if line.strip()), "")
    if not start.startswith("["):
        yield from _json_lines(path)  # what many call .json holds one object a line
        return
    try:
        with _opened(path) as file:
            rows = json.loads(file.read())
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}, line {error.lineno}: not JSON ({error.msg}, column {error.colno}). Write a "
            "list of objects, or one object a line."
        ) from error
    except (RecursionError, ValueError) as error:
        raise _beyond(str(path), error) from error
    for number, row in enumerate(rows, start=1):
        yield None, _checked_object(f"{path}, row {number}", row)


def _json_object(where: str, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{where}: not JSON ({error.msg}, column {error.colno}). Write one object a line."
        ) from error
    except (RecursionError, ValueError) as error:
        raise _beyond(where, error) from error
    return _checked_object(where, row)


def _beyond(where: str, error: Exception) -> DataError:
    """The error for JSON that Python cannot hold."""
    deep = isinstance(error, RecursionError)
    found = "values too deep inside each other" if deep else "a number of thousands of digits"
    return DataError(f"{where}: found {found}. Correct the row or leave it out.")


def _checked_object(where: str, row: Any) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise DataError(
            f'{where}: found a {type(row).__name__}, but a row is an object such as {{"text": "..."}}.'
        )
    return row


@contextmanager
def _opened(path: Path, newline: str | None = None) -> Iterator[IO[str]]:
    try:
        # Excel starts files with a byte order mark, which must not become part of the first column's name.
        with path.open(encoding="utf-8-sig", newline=newline) as file:
            yield file
    except UnicodeDecodeError as error:
        position, byte = _first_fault(path)
        raise DataError(
            f"{path} is not UTF-8: byte {position} is 0x{byte:02x}. Save it as UTF-8, which spreadsheets "
            "offer when they export."
        ) from error


def _first_fault(path: Path) -> tuple[int, int]:
    """Position, from 1, and value of the first byte that is not UTF-8."""
    before = 0  # what the decoder says counts from the block of the file that it was given
    with path.open("rb") as file:
        for line in file:
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return before + error.start + 1, line[error.start]
            before += len(line)
    raise AssertionError(f"{path} was not UTF-8 a moment ago")


@contextmanager
def _long_fields() -> Iterator[None]:
    """Let fields be as long as whole books: the csv module stops at 131,072 characters."""
    before = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(before)


LINE_READERS: dict[str, Callable[[Path], Iterator[Line]]] = {
    ".csv": partial(_separated, delimiter=","),
    ".tsv": partial(_separated, delimiter="\t"),
    ".jsonl": _json_lines,
    ".json": _json,
}
"""How the rows of each kind of file are read, by the end of its name.

Each raises a DataError at a malformed row; the text names file and line.
"""
