"""Data sets of the Hugging Face hub: one revision of each, kept apart from the others, never running code."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from prunekit.errors import DataError
from prunekit.tasks.base import Split
from prunekit.tasks.tables import Table, class_names

SAME_NAMES: tuple[Split, ...] = ("train", "validation", "test", "calibration")
COMMIT = re.compile(r"[0-9a-f]{40}")

_log = logging.getLogger(__name__)


def hub_tables(
    task: str, name: str, config: str | None, revision: str, splits: Mapping[Any, str]
) -> dict[Split, Table]:
    """Return the rows of a data set's splits; what is not in the cache is fetched.

    Args:
        task: named in messages.
        name: id of the data set.
        config: one of its configurations.
        revision: its commit; a tag or a branch, which can move, is told in the log.
        splits: the data set's split for each of ours. Those that are left out are taken by their own names,
            unless another of ours has that one already.

    Raises:
        DataError: if it cannot be had, or has no such split.
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
    found = _load(task, name, config, revision)
    chosen = dict(splits)
    for split in SAME_NAMES:
        if split in found and split not in chosen and split not in chosen.values():
            chosen[split] = split
    for split, theirs in chosen.items():
        if theirs not in found:
            raise DataError(
                f"Task {task}: task.data.splits.{split} asks for the split {theirs!r}, but {name} has "
                f"{', '.join(found) or 'none'}. Name one of these."
            )
    if not chosen:
        raise DataError(
            f"Task {task}: {name} has the splits {', '.join(found)}, and none is called as ours. Say which "
            f"is which, such as task.data.splits.train: {next(iter(found))}."
        )
    return {split: _table(f"{name} {theirs}", task, found[theirs]) for split, theirs in chosen.items()}


def _load(task: str, name: str, config: str | None, revision: str) -> Mapping[str, Any]:
    import datasets  # type: ignore[import-untyped]

    # Without a network datasets takes what is in the cache of any revision, so each has a cache of its own.
    cache = os.path.join(datasets.config.HF_DATASETS_CACHE, "prunekit", revision.replace("/", "--"))
    _log.info("Task %s: reading %s of the hub, cached in %s", task, name, cache)
    try:
        with _quiet():
            found: Mapping[str, Any] = datasets.load_dataset(name, config, revision=revision, cache_dir=cache)
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


def _table(source: str, task: str, data: Any) -> Table:
    if not len(data):
        raise DataError(f"Task {task}: {source} has no rows. Name another split under task.data.splits.")

    def read(name: str) -> list[Any]:
        values: list[Any] = data[name][:]
        return values

    columns = {name: partial(read, name) for name in data.column_names}
    return Table(source, len(data), columns, classes=class_names(data.features))
