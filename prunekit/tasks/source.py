"""Where a task's rows come from: files of the user's own by split, or a data set of the Hugging Face hub."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator

from prunekit.errors import DataError
from prunekit.suggest import did_you_mean
from prunekit.tasks.base import Split
from prunekit.tasks.hub import hub_tables
from prunekit.tasks.tables import READERS, Table, read_table

SPLITS: tuple[Split, ...] = ("train", "validation", "test", "calibration")
HELD_OUT = 0.1
"""Share of the training rows that stands in for a split that is not given."""
SEED = 0
"""Decides the order of rows and which are held out: the same in every run, whatever the recipe's seed."""

_log = logging.getLogger(__name__)

Files = str | list[str] | None


class DataSpec(BaseModel):
    """Files by split, or a data set of the hub."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    train: Files = Field(None, description=f"file or files to train on: {', '.join(READERS)}")
    validation: Files = Field(None, description="those for choices and checks; by default a tenth of train")
    test: Files = Field(
        None, description="those that score the result; without validation too, a tenth of train"
    )
    calibration: Files = Field(None, description="those for methods that only look; by default train's")
    hub: str | None = Field(None, description="in place of files, the id of a data set on the hub")
    config: str | None = Field(None, description="which of the configurations of the hub's data set")
    revision: str | None = Field(None, description="its commit; required with `hub`")
    splits: dict[Literal["train", "validation", "test", "calibration"], str] = Field(
        {}, description="the hub's split for each of ours; by default those of the same names"
    )

    @property
    def files(self) -> dict[Split, list[Path]]:
        """The files of each split that has some."""
        found = {split: getattr(self, split) for split in SPLITS}
        return {
            split: [Path(name) for name in ([names] if isinstance(names, str) else names)]
            for split, names in found.items()
            if names is not None
        }

    @model_validator(mode="after")
    def _checked(self) -> Self:
        given = [key for key in ("config", "revision", "splits") if getattr(self, key)]
        if self.hub is None:
            if given:
                raise ValueError(
                    f"{given[0]} belongs to a data set of the hub; add `hub: ID`, or leave it out"
                )
            if not self.files:
                raise ValueError(
                    "give files by split, such as `train: reviews.csv`, or `hub:` and `revision:`"
                )
        elif self.files:
            raise ValueError(
                f"hub: {self.hub} and files ({', '.join(self.files)}) exclude each other; leave one out"
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


def _check_names(split: Split, paths: Sequence[Path]) -> None:
    if not paths:
        raise ValueError(f"{split} is an empty list; name a file, or leave it out")
    for path in paths:
        if path.suffix.lower() not in READERS:
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


class Rows:
    """The rows of one split, in an order in which any first N are a fair sample.

    Args:
        task: named in messages.
        tables: where they stand.
        order: indices into the tables' rows, one table after the other.
    """

    def __init__(self, task: str, tables: Sequence[Table], order: Sequence[int]) -> None:
        self.task, self.tables, self.order = task, tables, order

    def __len__(self) -> int:
        return len(self.order)

    def where(self, index: int) -> str:
        """Return file and line of a row."""
        row = self.order[index]
        for table in self.tables:
            if row < table.size:
                return table.where(row)
            row -= table.size
        raise IndexError(index)

    def check_column(self, key: str, name: str) -> None:
        """Refuse a column that a table does not have.

        Raises:
            DataError: if so; the text names the recipe's ``key`` and the columns there are.
        """
        for table in self.tables:
            if name not in table.columns:
                hint = did_you_mean(name, table.columns)
                raise DataError(
                    f"Task {self.task}: task.{key} asks for a column {name!r}, but {table.source} has "
                    f"{', '.join(map(repr, table.columns)) or 'none'}{hint or '.'} "
                    f"Correct task.{key}, or the data."
                )

    def values(self, name: str, chosen: Sequence[int] | None = None) -> list[Any]:
        """Return a column, in the order of the rows; of the rows ``chosen`` only, if they are given."""
        stored = [value for table in self.tables for value in table.columns[name]()]
        return [stored[row] for row in (self.order if chosen is None else [self.order[i] for i in chosen])]

    def texts(self, name: str, chosen: Sequence[int] | None = None) -> list[str]:
        """Return a column of texts, like ``values``.

        Raises:
            DataError: if a value is none; the text names file and row.
        """
        values = self.values(name, chosen)
        for index, value in zip(range(len(self)) if chosen is None else chosen, values, strict=True):
            if not isinstance(value, str):
                raise self.no_text(index, name, value)
        return values

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


def open_splits(spec: DataSpec, task: str) -> dict[Split, Rows]:
    """Return the rows of every split there is, in the order of ``SPLITS``.

    Where no validation rows are given, a tenth of the training rows is held out for them, and another tenth
    for the test where that is not given either.

    Raises:
        DataError: if a file is missing, malformed or empty, or the hub's data set cannot be had.
    """
    if spec.hub is None:
        tables = {split: _read(task, split, paths) for split, paths in spec.files.items()}
    else:
        found = hub_tables(task, spec.hub, spec.config, str(spec.revision), spec.splits)
        tables = {split: [table] for split, table in found.items()}
    orders = {split: _shuffled(sum(table.size for table in parts)) for split, parts in tables.items()}
    if "train" in tables and "validation" not in tables:
        for split in [each for each in ("validation", "test") if each not in tables]:
            tables[split] = tables["train"]
            orders[split] = []
        _hold_out(task, orders)
    return {split: Rows(task, tables[split], orders[split]) for split in SPLITS if split in tables}


def _read(task: str, split: Split, paths: Sequence[Path]) -> list[Table]:
    try:
        return [read_table(path) for path in paths]
    except DataError as error:
        raise DataError(f"Task {task}: task.data.{split}: {error}") from error


def _shuffled(size: int) -> list[int]:
    # People's files are often sorted, by label say, and limits take the first rows.
    order: list[int] = torch.randperm(size, generator=torch.Generator().manual_seed(SEED)).tolist()
    return order


def _hold_out(task: str, orders: dict[Split, list[int]]) -> None:
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
