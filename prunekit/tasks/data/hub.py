"""Data sets of the Hugging Face hub: one revision of each, kept apart from the others, never running code."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from prunekit.errors import DataError
from prunekit.tasks.base import Split
from prunekit.tasks.data.tables import DiskColumn, Table, class_names

SAME_NAMES: tuple[Split, ...] = ("train", "validation", "test", "calibration")
COMMIT = re.compile(r"[0-9a-f]{40}")
PART = re.compile(r"([^\[\]]+)\[(\d*):(\d*)\]")

_log = logging.getLogger(__name__)


def hub_tables(
    task: str,
    name: str,
    config: str | None,
    revision: str,
    splits: Mapping[Any, str],
    *,
    data_files: Mapping[Any, str] | None = None,
    streaming: bool = False,
) -> dict[Split, Table]:
    """Return the rows of a data set's splits; what is not in the cache is fetched.

    Args:
        task: named in messages.
        name: id of the data set.
        config: one of its configurations.
        revision: its commit; a tag or a branch, which can move, is told in the log.
        splits: the data set's split for each of ours, or a part of one, such as ``train[:14000]``. Those
            that are left out are taken by their own names, unless another of ours has that one already.
        data_files: the file of each split, of a data set that is to be read from some of its files only.
        streaming: whether columns stay on disk, for values to be read singly.

    Raises:
        DataError: if it cannot be had, or has no such split; or if two splits would share rows.
    """
    if Path(name).exists():
        raise DataError(
            f"Task {task}: task.data.hub = {name} is a file or folder here, not a data set of the hub. Name "
            "its files by split under task.data, or run prunekit elsewhere."
        )
    if not COMMIT.fullmatch(revision):
        _log.warning(
            "Task %s: revision %s of %s may move. Write its commit (40 digits) to read the same rows always.",
            task,
            revision,
            name,
        )
    found = _load(task, name, config, revision, data_files)
    parts = _parts(task, name, splits, {theirs: len(data) for theirs, data in found.items()})
    return {
        split: dataset_table(f"{name} {part}", part.of(found[part.name]), streaming=streaming)
        for split, part in parts.items()
    }


class _Part(NamedTuple):
    """A split of the hub's, or the rows of it from ``start`` up to ``stop``."""

    name: str
    start: int | None = None
    stop: int | None = None

    def __str__(self) -> str:
        if self.start is None and self.stop is None:
            return self.name
        start, stop = ("" if end is None else end for end in (self.start, self.stop))
        return f"{self.name}[{start}:{stop}]"

    def rows(self, size: int) -> range:
        """The indices of its rows, of ``size`` that the split has."""
        return range(size)[self.start : self.stop]

    def of(self, data: Any) -> Any:
        """Its rows, of those of the split."""
        rows = self.rows(len(data))
        return data if len(rows) == len(data) else data.select(rows)


def _parts(task: str, name: str, splits: Mapping[Any, str], sizes: Mapping[str, int]) -> dict[Split, _Part]:
    """What each of our splits is, of the data set's with their sizes.

    Raises:
        DataError: if that is not there, or has no rows; or if two share rows.
    """
    parts = {split: _part(task, split, theirs) for split, theirs in splits.items()}
    used = {part.name for part in parts.values()}
    for split in SAME_NAMES:
        if split in sizes and split not in parts and split not in used:
            parts[split] = _Part(split)
    if not parts:
        raise DataError(
            f"Task {task}: {name} has the splits {', '.join(sizes)}, and none is called as ours. Say which "
            f"is which, such as task.data.splits.train: {next(iter(sizes))}."
        )
    for split, part in parts.items():
        if part.name not in sizes:
            raise DataError(
                f"Task {task}: task.data.splits.{split} asks for the split {part.name!r}, but {name} has "
                f"{', '.join(sizes) or 'none'}. Name one of these."
            )
        if not part.rows(sizes[part.name]):
            raise DataError(
                f"Task {task}: {name} {part} has no rows. Name another split under task.data.splits."
            )
    _check_apart(task, {split: (part.name, part.rows(sizes[part.name])) for split, part in parts.items()})
    return parts


def _part(task: str, split: Split, text: str) -> _Part:
    name, bracket, _ = text.partition("[")
    if not bracket:
        return _Part(text)
    found = PART.fullmatch(text)
    if found is None:
        raise DataError(
            f"Task {task}: task.data.splits.{split} is {text!r}. A part of a split is written with the "
            f"numbers of its rows, such as {name}[:14000], {name}[14000:] or {name}[100:200]."
        )
    start, stop = (int(end) if end else None for end in found.groups()[1:])
    return _Part(name, start, stop)


def _check_apart(task: str, rows: Mapping[Split, tuple[str, range]]) -> None:
    """Refuse rows that are trained on, or chosen by, and then scored."""
    for first, (name, one) in rows.items():
        for second, (other, two) in rows.items():
            shared = name == other and max(one.start, two.start) < min(one.stop, two.stop)
            if first < second and shared and {first, second} != {"train", "calibration"}:
                raise DataError(
                    f"Task {task}: {first} and {second} share rows {max(one.start, two.start)} to "
                    f"{min(one.stop, two.stop) - 1} of {name}: rows of one must not be in the other. Correct "
                    "task.data.splits."
                )


def _load(
    task: str, name: str, config: str | None, revision: str, data_files: Mapping[Any, str] | None
) -> Mapping[str, Any]:
    import datasets  # type: ignore[import-untyped]

    # Without a network datasets takes what is in the cache of any revision, so each has a cache of its own.
    cache = os.path.join(datasets.config.HF_DATASETS_CACHE, "prunekit", revision.replace("/", "--"))
    _log.info("Task %s: reading %s of the hub, cached in %s", task, name, cache)
    try:
        with _quiet():
            found: Mapping[str, Any] = datasets.load_dataset(
                name,
                config,
                revision=revision,
                cache_dir=cache,
                **({"data_files": dict(data_files)} if data_files else {}),
            )
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(
            f"Task {task}: the data set {name!r} (config {config or 'default'}, revision {revision}) cannot "
            f"be had: {type(error).__name__}: {error}. Neither the hub nor the cache {cache} gave it. "
            "Without a network here, run this once where there is one and copy that folder "
            "(HF_DATASETS_CACHE says where such folders are looked for); or save the splits as .parquet, "
            ".jsonl or .csv files and name them under task.data (train, validation, test) in place of hub."
        ) from error
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the libraries' bars and logs; what matters is raised."""
    import datasets
    from datasets.utils import logging as datasets_logging  # type: ignore[import-untyped]
    from huggingface_hub.utils import logging as hub_logging

    levels = datasets_logging.get_verbosity(), hub_logging.get_verbosity()
    bars_were_off = datasets.are_progress_bars_disabled()
    datasets_logging.set_verbosity_error()
    hub_logging.set_verbosity(logging.ERROR)
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets_logging.set_verbosity(levels[0])
        hub_logging.set_verbosity(levels[1])
        if not bars_were_off:
            datasets.enable_progress_bars()


def is_dataset(value: Any) -> bool:
    """Return whether this is a ``datasets.Dataset``."""
    # Not imported here: a recipe of files may do without.
    datasets = sys.modules.get("datasets")
    return datasets is not None and isinstance(value, datasets.Dataset)


def dataset_table(source: str, data: Any, *, streaming: bool = False) -> Table:
    """Return the rows of a ``datasets.Dataset``; images as the bytes and the path that they are stored as.

    Args:
        source: what messages call it.
        data: the data set.
        streaming: whether columns stay where they are, for values to be read singly.
    """
    import datasets

    for name, kind in data.features.items():
        if isinstance(kind, datasets.Image):
            data = data.cast_column(name, datasets.Image(decode=False))
    data = data.with_format(None)  # a format of the caller's would make arrays of lists and numbers

    def pick(column: Any, rows: Sequence[int] | slice) -> list[Any]:
        found: list[Any] = column[rows if isinstance(rows, slice) else list(rows)]
        return found

    def read(name: str) -> Sequence[Any]:
        return (
            DiskColumn(len(data), partial(pick, data[name])) if streaming else pick(data[name], slice(None))
        )

    columns = {name: partial(read, name) for name in data.column_names}
    return Table(source, len(data), columns, classes=class_names(data.features))
