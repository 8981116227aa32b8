"""How many tokens MACs are counted for: as the recipe says, or as the data and the model have it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prunekit.adapters.base import Adapter, Structure
from prunekit.errors import BudgetError
from prunekit.pruning.cost import Lengths

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from prunekit.recipe import MacsSpec
    from prunekit.tasks.base import Task

MAX_EXAMPLES = 1000
_BATCH = 100
_IGNORED = -100


def mac_lengths(
    model: PreTrainedModel, adapter: Adapter, structure: Structure, spec: MacsSpec, task: Task | None = None
) -> Lengths:
    """Tokens per example that MACs of ``model`` are counted for.

    What ``spec`` leaves out is the mean over the first 1,000 calibration examples (those of the training
    split where the task has no calibration split, of the validation split where it has neither), rounded and
    without padding. A model that always runs at one length has that one.

    Args:
        model: whose MACs are to be counted.
        adapter: its architecture.
        structure: its stacks.
        spec: the recipe's ``budget.macs``.
        task: where lengths are measured; not needed where they are stated or fixed.

    Raises:
        BudgetError: if a stated length cannot be the model's, or there is nothing to take one from.
    """
    positions = getattr(model.config, "max_position_embeddings", None)
    for key in ("length", "target_length"):
        stated = getattr(spec, key)
        if stated and positions and stated > positions:
            raise BudgetError(
                f"budget.macs.{key} = {stated}: {type(model).__name__} has {positions} positions. Write at "
                f"most {positions}."
            )
    fixed = adapter.sequence_length(model)
    if fixed and spec.length not in (None, fixed):
        raise BudgetError(
            f"budget.macs.length = {spec.length}: {type(model).__name__} always runs on {fixed} tokens. "
            "Leave it out."
        )
    source = fixed or spec.length or _mean_source(task)
    if "decoder" in structure.stacks:
        return Lengths(source, spec.target_length or _mean_target(task, source))
    if spec.target_length:
        raise BudgetError(
            f"budget.macs.target_length = {spec.target_length}: {type(model).__name__} has no decoder. "
            "Leave it out."
        )
    return Lengths(source)


def _mean_source(task: Task | None) -> int:
    task, split = _data(task, "length")
    return _mean(task.lengths(split)[:MAX_EXAMPLES])


def _mean_target(task: Task | None, source: int) -> int:
    task, split = _data(task, "target_length")
    examples = task.examples(split)[:MAX_EXAMPLES]
    lengths: list[int] = []
    for start in range(0, len(examples), _BATCH):
        labels = task.collate(examples[start : start + _BATCH])["labels"]
        if labels.ndim < 2:
            return source  # one label an example: the decoder reads the input once more
        lengths += (labels != _IGNORED).sum(1).tolist()
    return _mean(lengths)


def _data(task: Task | None, key: str) -> tuple[Task, str]:
    """The task and the split to measure on; ``key`` is what to state where there is none."""
    for split in ("calibration", "train", "validation"):
        if task is not None and split in task.splits:
            return task, split
    raise BudgetError(
        "MACs depend on how many tokens an example has, and there is no data to measure it on. Write "
        f"budget.macs.{key}."
    )


def _mean(lengths: Sequence[int]) -> int:
    return max(1, round(sum(lengths) / len(lengths)))
