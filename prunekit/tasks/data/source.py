"""Where a task's rows come from: files or rows of the user's own by split, or a data set of the hub."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from array import array
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

import torch
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidatorFunctionWrapHandler,
    field_serializer,
    field_validator,
    model_validator,
)

from prunekit.errors import DataError
from prunekit.tasks.base import Split
from prunekit.tasks.data.hub import dataset_table, hub_tables, is_dataset
from prunekit.tasks.data.rows import Rows
from prunekit.tasks.data.stored import stored_table
from prunekit.tasks.data.tables import READERS, Table, read_table, table_of

SPLITS: tuple[Split, ...] = ("train", "validation", "test", "calibration")
HELD_OUT = 0.1
"""Share of the training rows that stands in for a split that is not given."""
SEED = 0
"""Decides the order of rows and which are held out: the same in every run, whatever the recipe's seed."""

_log = logging.getLogger(__name__)

Given = str | list[str] | list[dict[str, Any]] | None


class DataSpec(BaseModel):
    """Files or rows by split, or a data set of the hub.

    From Python, a ``datasets.Dataset`` may stand in place of a list of rows.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    train: Given = Field(
        None, description=f"file or files to train on: {', '.join(READERS)}; or the rows themselves"
    )
    validation: Given = Field(None, description="those for choices and checks; by default a tenth of train")
    test: Given = Field(
        None, description="those that score the result; without validation too, a tenth of train"
    )
    calibration: Given = Field(None, description="those for methods that only look; by default train's")
    hub: str | None = Field(None, description="in place of files, the id of a data set on the hub")
    config: str | None = Field(None, description="which of the configurations of the hub's data set")
    revision: str | None = Field(None, description="its commit; required with `hub`")
    splits: dict[Literal["train", "validation", "test", "calibration"], str] = Field(
        {},
        description="the hub's split for each of ours, or a part of one, such as `train[:14000]`; by default "
        "those of the same names",
    )
    data_files: dict[Literal["train", "validation", "test", "calibration"], str] = Field(
        {}, description="the file of each split, of a hub's data set that is only to be read in part"
    )
    streaming: bool = Field(
        False,
        description="for data larger than memory: rows stay on disk, and are tokenised when needed",
    )

    @property
    def given(self) -> dict[Split, Any]:
        """The files or rows of each split that has some."""
        return {split: getattr(self, split) for split in SPLITS if getattr(self, split) is not None}

    @property
    def files(self) -> dict[Split, list[Path]]:
        """The files of each split that has some."""
        return {
            split: [Path(name) for name in ([given] if isinstance(given, str) else given)]
            for split, given in self.given.items()
            if not _is_rows(given)
        }

    @field_validator(*SPLITS, mode="wrap")
    @classmethod
    def _files_or_rows(cls, value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
        if isinstance(value, list):
            odd = [each for each in value if not isinstance(each, type(value[0]))]
            if odd or (value and not isinstance(value[0], str | dict)):
                found = (odd or value)[0]
                raise ValueError(f"lists {found!r} ({type(found).__name__}); give only paths, or only rows")
        return value if is_dataset(value) else handler(value)

    @field_serializer(*SPLITS)
    def _as_rows(self, value: Any) -> Any:
        return value.to_list() if is_dataset(value) else value

    @model_validator(mode="after")
    def _checked(self) -> Self:
        given = [key for key in ("config", "revision", "splits", "data_files") if getattr(self, key)]
        if self.hub is None:
            if given:
                raise ValueError(
                    f"{given[0]} belongs to a data set of the hub; add `hub: ID`, or leave it out"
                )
            if not self.given:
                raise ValueError(
                    "give files by split, such as `train: reviews.csv`, or `hub:` and `revision:`"
                )
        elif self.given:
            kind = "files" if self.files else "rows"
            raise ValueError(
                f"hub: {self.hub} and {kind} ({', '.join(self.given)}) exclude each other; leave one out"
            )
        elif self.revision is None:
            raise ValueError(
                f"hub: {self.hub} needs `revision:`, the commit of the data set (its page lists them under "
                "Files, History), so that this recipe reads the same rows next year"
            )
        for split, paths in self.files.items():
            _check_names(split, paths)
        _check_apart(
            {split: [os.path.abspath(path) for path in paths] for split, paths in self.files.items()}
        )
        _check_apart({split: [name] for split, name in self.splits.items()})
        return self


def _is_rows(given: Any) -> bool:
    return is_dataset(given) or (isinstance(given, list) and bool(given) and isinstance(given[0], dict))


def _check_names(split: Split, paths: Sequence[Path]) -> None:
    if not paths:
        raise ValueError(f"{split} is an empty list; name a file, or leave it out")
    for path in paths:
        # Some tasks take folders, whose names may have no end, or any.
        if path.suffix and path.suffix.lower() not in READERS and not path.is_dir():
            raise ValueError(f"{split}: {path} must end in {', '.join(READERS)}")


def _check_apart(names: dict[str, list[str]]) -> None:
    """Refuse rows that are trained on, or chosen by, and then scored."""
    for first, one in names.items():
        for second, other in names.items():
            both = sorted(set(one) & set(other))
            if first < second and both and {first, second} != {"train", "calibration"}:
                raise ValueError(
                    f"{first} and {second} share {both[0]}: rows of one must not be in the other. Leave "
                    "validation out to hold out a tenth of train for it"
                )
    for split, one in names.items():
        if len(set(one)) < len(one):
            twice = Counter(one).most_common(1)[0][0]
            raise ValueError(f"{split} names {twice} twice; name each file once")


def open_splits(spec: DataSpec, task: str, *, folders: bool = False) -> dict[Split, Rows]:
    """Return the rows of every split there is, in the order of ``SPLITS``.

    Where no validation rows are given, a tenth of the training rows is held out for them, and another tenth
    for the test where that is not given either.

    Args:
        spec: where they come from.
        task: named in messages.
        folders: whether a path may be a folder of images, with a folder for each class.

    Raises:
        DataError: if a file is missing, malformed or empty, or the hub's data set cannot be had.
    """
    if spec.hub is None:
        tables = {split: _read(task, split, spec, folders) for split in spec.given}
    else:
        found = hub_tables(
            task,
            spec.hub,
            spec.config,
            str(spec.revision),
            spec.splits,
            data_files=spec.data_files,
            streaming=spec.streaming,
        )
        tables = {split: [table] for split, table in found.items()}
    orders = {split: _shuffled(sum(table.size for table in parts)) for split, parts in tables.items()}
    if "train" in tables and "validation" not in tables:
        for split in [each for each in ("validation", "test") if each not in tables]:
            tables[split] = tables["train"]
            orders[split] = array("q")
        _hold_out(task, orders)
    return {
        split: Rows(task, tables[split], orders[split], streaming=spec.streaming)
        for split in SPLITS
        if split in tables
    }


def _read(task: str, split: Split, spec: DataSpec, folders: bool) -> list[Table]:
    given, key = spec.given[split], f"task.data.{split}"
    if _is_rows(given):
        if is_dataset(given):
            table = dataset_table(key, given, streaming=spec.streaming)
        else:
            table = table_of(key, ((None, row) for row in given))
        if not table.size:
            raise DataError(f"Task {task}: {key} has no rows. Give at least one.")
        return [table]
    try:
        return [_table(path, spec, folders) for path in spec.files[split]]
    except DataError as error:
        raise DataError(f"Task {task}: {key}: {error}") from error


def _table(path: Path, spec: DataSpec, folders: bool) -> Table:
    if folders and path.is_dir():
        from prunekit.tasks.data.image_folder import read_image_folder

        return read_image_folder(path)
    return stored_table(path) if spec.streaming else read_table(path)


def _shuffled(size: int) -> array[int]:
    # People's files are often sorted, by label say, and limits take the first rows.
    order = torch.randperm(size, generator=torch.Generator().manual_seed(SEED))
    return array("q", order.numpy().tobytes())


def _hold_out(task: str, orders: dict[Split, array[int]]) -> None:
    """Move the last training rows to the splits that have none."""
    total = len(orders["train"])
    count = max(1, round(HELD_OUT * total))
    empty = [split for split, order in orders.items() if not order]
    if total <= count * len(empty):
        raise DataError(
            f"Task {task}: task.data.train has {total} rows, too few to hold out some for "
            f"{' and '.join(empty)}. Give task.data.{empty[0]}."
        )
    for split in empty:
        orders[split] = orders["train"][-count:]
        orders["train"] = orders["train"][:-count]
    _log.info(
        "Task %s: no data is given for %s, so %d of the %d rows of train %s held out%s, as in every run.",
        task,
        " and ".join(empty),
        count * len(empty),
        total,
        "is" if count * len(empty) == 1 else "are",
        " (half for each)" if len(empty) == 2 else "",
    )


def fingerprint_of(spec: DataSpec) -> dict[str, str]:
    """Return what tells the data from other data, by the name of each part.

    Of a file that is the SHA-256 of its bytes, of a folder that of the names and sizes of its files, of rows
    in memory that of their JSON, and of a data set of the hub, called ``hub:ID`` or ``hub:ID:CONFIG``, its
    revision.

    Raises:
        DataError: if a file is missing.
    """
    if spec.hub is not None:
        return {":".join(["hub", spec.hub, *([spec.config] if spec.config else [])]): str(spec.revision)}
    found = {str(path): _digest(path) for paths in spec.files.values() for path in paths}
    for split, given in spec.given.items():
        if _is_rows(given):
            digest = hashlib.sha256()
            for row in given:
                digest.update(f"{json.dumps(row, sort_keys=True, default=repr)}\n".encode())
            found[f"task.data.{split}"] = digest.hexdigest()
    return found


def _digest(path: Path) -> str:
    if path.is_dir():
        files = [each for each in path.rglob("*") if each.is_file()]
        facts = sorted((each.relative_to(path).as_posix(), each.stat().st_size) for each in files)
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}. Correct the path.") from error
