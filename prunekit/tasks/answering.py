"""What answering a split takes, whatever the family: its examples, batches, the model's mode, scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from prunekit.errors import DataError
from prunekit.progress import Progress
from prunekit.tasks.base import Metric, Split

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def check_split(task: str, split: Split, splits: Sequence[Split]) -> None:
    """Refuse a split that is not among the task's.

    Raises:
        DataError: if so; the text names those there are.
    """
    if split not in splits:
        raise DataError(f"Task {task} has no split {split!r}; use one of: {', '.join(splits)}.")


def answers_in_batches(
    task: str,
    model: PreTrainedModel,
    lengths: Sequence[int],
    answer: Callable[[list[int]], Sequence[str]],
    *,
    batch_size: int,
    progress: Progress | None,
) -> list[str]:
    """Return each example's answer, in the order of ``lengths``, from batches of similar length.

    The model answers in evaluation mode and is handed back in the mode it came in.

    Args:
        task: the name shown beside the bar.
        model: what ``answer`` asks.
        lengths: tokens of each example.
        answer: the answers to the examples of these indices.
        batch_size: examples answered at once.
        progress: where to draw a bar; nowhere by default.
    """
    # The longest first: a batch that is too large for the memory fails at once, not after an hour.
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    answers = [""] * len(lengths)
    bars = progress or Progress(quiet=True)
    with _evaluation_mode(model), bars.task(f"Evaluating {task}", total=len(lengths)) as advance:
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            for index, text in zip(chosen, answer(chosen), strict=True):
                answers[index] = text
            advance(len(chosen))
    return answers


def scores(
    metrics: Sequence[Metric], answers: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, float]:
    """Return each metric, its ``<metric>_stderr``, and the number of examples ``n``."""
    results: dict[str, float] = {}
    for metric in metrics:
        results[metric.name], results[f"{metric.name}_stderr"] = metric.function(answers, references)
    return {**results, "n": len(answers)}


@contextmanager
def _evaluation_mode(model: PreTrainedModel) -> Iterator[None]:
    """Put the model into evaluation mode; afterwards each module goes back to the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
