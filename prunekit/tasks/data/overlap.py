"""Telling that rows which score or choose a model are also trained on."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterable

from prunekit.tasks.base import Split

COMPARED: tuple[Split, ...] = ("validation", "test")

_log = logging.getLogger(__name__)


class Overlap:
    """Counts the inputs of each split that also stand in train, as soon as both are known.

    Inputs are kept as hashes, and only until they are compared.

    Args:
        task: named in the warning.
        splits: those the task has.
    """

    def __init__(self, task: str, splits: Iterable[Split]) -> None:
        self._task = task
        self._awaited = [split for split in COMPARED if split in splits]
        self._hashes: dict[Split, list[int]] = {}
        self._trained_on: set[int] | None = None

    def add(self, split: Split, inputs: Iterable[Hashable]) -> None:
        """Take the inputs of a split, and log one warning for each split found to share some with train.

        A split that is added again changes nothing.
        """
        if split == "train" and self._trained_on is None and self._awaited:
            self._trained_on = {hash(each) for each in inputs}
        elif split in self._awaited and split not in self._hashes:
            self._hashes[split] = [hash(each) for each in inputs]
        if self._trained_on is None:
            return
        for known, hashes in self._hashes.items():
            self._awaited.remove(known)
            self._tell(known, sum(each in self._trained_on for each in hashes), len(hashes))
        self._hashes = {}
        if not self._awaited:
            self._trained_on = None

    def _tell(self, split: Split, shared: int, total: int) -> None:
        if shared:
            _log.warning(
                "Task %s, %s: %s of %s inputs also stand in train, so that answers to them may be known by "
                "heart. Leave each in one of the two only.",
                self._task,
                split,
                f"{shared:,}",
                f"{total:,}",
            )
