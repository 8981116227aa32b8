"""Rows that stay on disk: a file is turned once into an Arrow file in the cache, and read from there."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import tempfile
from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

from prunekit.errors import DataError
from prunekit.tasks.data.lines import LINE_READERS
from prunekit.tasks.data.tables import DiskColumn, Table, check_file, classes_in, no_rows, parquet_file

BLOCK = 256
"""Rows that are turned at once."""
ROWS, NAMES = "rows.arrow", "names.json"
ROW, LINE = "row", "line"
"""Columns of what was read line by line: rows in JSON, as they may differ in keys and types; their lines."""
FORMAT = 1
"""Of the files in the cache; part of their folder's name."""

_log = logging.getLogger(__name__)


def stored_table(path: Path) -> Table:
    """Return the rows of a file, which stay on disk, with the values and places that ``read_table`` gives.

    Raises:
        DataError: if it is missing, holds no rows, or a row is malformed; the text names file and row.
    """
    check_file(path)
    folder = cache_folder() / _key(path)
    if not folder.is_dir():
        _log.info("Turning %s into rows on disk, in %s", path, folder)
        _turn(path, folder)
    return _open(str(path), folder)


def cache_folder() -> Path:
    """Return where the rows of files are kept: ``prunekit/files`` in the cache folder of ``datasets``."""
    import datasets  # type: ignore[import-untyped]

    return Path(datasets.config.HF_DATASETS_CACHE) / "prunekit" / "files"


def _key(path: Path) -> str:
    # Not of the content: reading all of it at every start would take as long as turning it.
    known = path.stat()
    facts = [str(path.resolve()), known.st_size, known.st_mtime_ns, path.suffix.lower(), FORMAT]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def _turn(path: Path, folder: Path) -> None:
    write = _write_parquet if path.suffix.lower() == ".parquet" else _write_lines
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Under another name until it is whole: what was interrupted is never taken for the file's rows.
        unfinished = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", dir=folder.parent))
        try:
            if not write(path, unfinished):
                raise no_rows(path)
            _rename(unfinished, folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    except OSError as error:
        raise DataError(
            f"{path}: its rows cannot be kept in {folder.parent}: {error}. Set HF_DATASETS_CACHE to a folder "
            "that can be written to and has room for them."
        ) from error


def _rename(unfinished: Path, folder: Path) -> None:
    try:
        unfinished.rename(folder)
    except OSError:
        if not folder.is_dir():  # else another process was faster
            raise


def _write_lines(path: Path, folder: Path) -> int:
    """Write the rows of a file that is read line by line, and return how many there are."""
    import pyarrow as pa  # type: ignore[import-untyped]

    schema = pa.schema([(ROW, pa.large_string()), (LINE, pa.int64())])
    names: dict[str, None] = {}
    rows = LINE_READERS[path.suffix.lower()](path)
    count = 0
    with pa.OSFile(str(folder / ROWS), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        while block := list(islice(rows, BLOCK)):
            names.update((name, None) for _, row in block for name in row)
            texts = [json.dumps(row) for _, row in block]
            writer.write_batch(pa.record_batch([texts, [line for line, _ in block]], schema=schema))
            count += len(block)
    (folder / NAMES).write_text(json.dumps(list(names)), encoding="utf-8")
    return count


def _write_parquet(path: Path, folder: Path) -> int:
    """Write the rows of a parquet file, and return how many there are."""
    import pyarrow as pa

    file = parquet_file(path)
    schema = file.schema_arrow
    for index, kind in enumerate(schema):
        # The values themselves, as in an Arrow file all batches must share one dictionary.
        if pa.types.is_dictionary(kind.type):
            schema = schema.set(index, kind.with_type(kind.type.value_type))
    with pa.OSFile(str(folder / ROWS), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for batch in file.iter_batches(BLOCK):
            writer.write_batch(batch.cast(schema))
    return int(file.metadata.num_rows)


def _open(source: str, folder: Path) -> Table:
    import pyarrow as pa

    try:
        file = _File(folder / ROWS)
        listed = folder / NAMES
        names = json.loads(listed.read_text(encoding="utf-8")) if listed.exists() else None
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(
            f"{source}: its rows in {folder} are damaged: {error}. Delete that folder to turn the file again."
        ) from error

    def column(name: str, read: Callable[[Any], Any] | None = None) -> DiskColumn:
        return DiskColumn(file.size, partial(file.values, name, read))

    if names is None:
        columns = {name: partial(column, name) for name in file.schema.names}
        return Table(source, file.size, columns, classes=classes_in(file.schema))
    columns = {name: partial(column, ROW, partial(_value, name)) for name in names}
    lines = column(LINE)
    return Table(source, file.size, columns, None if lines[0] is None else lines)


def _value(name: str, row: str) -> Any:
    return json.loads(row).get(name)


class _File:
    """An Arrow file, of which no more than one block is looked at for a row; it is mapped into memory."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa

        self._reader = pa.ipc.open_file(pa.memory_map(str(path)))
        self.schema = self._reader.schema
        sizes = (self._reader.get_batch(index).num_rows for index in range(self._reader.num_record_batches))
        self._ends = list(accumulate(sizes))
        self.size: int = self._ends[-1]

    def values(self, name: str, read: Callable[[Any], Any] | None, rows: Sequence[int]) -> list[Any]:
        """Return the values of a column in some rows, as ``read`` makes them of what is stored."""
        found = []
        for row in rows:
            block = bisect_right(self._ends, row)
            before_end = row - self._ends[block]
            value = self._reader.get_batch(block).column(name)[before_end].as_py()
            found.append(read(value) if read else value)
        return found
