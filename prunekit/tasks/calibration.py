"""The examples that a method looks at without training: never those that score the result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from prunekit.errors import DataError

if TYPE_CHECKING:
    from prunekit.tasks.base import Task

CALIBRATION_SPLITS = ("calibration", "train")


def calibration_examples(task: Task, count: int, seed: int) -> list[Any]:
    """A random sample, without replacement, of the task's split ``calibration``, or else of ``train``.

    Args:
        task: gives the examples.
        count: how many, at least 1; a smaller count of the same seed gives the first of a larger one's.
        seed: decides which.

    Raises:
        DataError: if the task has neither split, or fewer examples than ``count``.
    """
    if count < 1:
        raise DataError(f"{count} calibration examples were asked for; ask for at least 1.")
    split = next((name for name in CALIBRATION_SPLITS if name in task.splits), None)
    if split is None:
        raise DataError(
            f"Task {task.name} has no data to calibrate on: it has {', '.join(task.splits) or 'no splits'}, "
            f"and calibration takes {' or '.join(CALIBRATION_SPLITS)}, never data that scores the result. "
            "Give the task one of these splits, or use a method that needs no data."
        )
    examples = task.examples(split)
    if len(examples) < count:
        raise DataError(
            f"{count} calibration examples were asked for, but the split {split!r} of task {task.name} has "
            f"{len(examples)}; ask for at most that many."
        )
    order = torch.randperm(len(examples), generator=torch.Generator().manual_seed(seed))
    return [examples[index] for index in order[:count].tolist()]
