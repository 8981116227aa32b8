"""What answering a split takes, whatever the family: its examples, batches, the model's mode, scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from prunekit.errors import DataError
from prunekit.progress import Progress
from prunekit.tasks.base import Metric, Split

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


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


def check_metric(metric: Metric, *, has_sources: bool, ranks: int = 1) -> None:
    """Refuse a metric that wants of a task what the task does not give.

    Args:
        metric: what the task is to be scored by.
        has_sources: whether the task gives the texts that its model was given.
        ranks: how many answers the task gives to an example.

    Raises:
        DataError: if the metric wants sources, or more answers.
    """
    if metric.wants_sources and not has_sources:
        raise DataError(
            f"Metric {metric.name} reads the texts that the model was given, and this task gives none; "
            "leave it out of the task's metrics."
        )
    if metric.ranks > ranks:
        raise DataError(
            f"Metric {metric.name} looks at the model's {metric.ranks} best answers to an example, and this "
            f"task gives {'one' if ranks == 1 else ranks}; leave it out of the task's metrics."
        )


def scores(
    metrics: Sequence[Metric],
    answers: Sequence[str],
    references: Sequence[Sequence[str]],
    sources: Callable[[], Sequence[str]] | None = None,
    *,
    ranks: int = 1,
) -> dict[str, float]:
    """Return each metric, its ``<metric>_stderr``, and the number of examples ``n``.

    Args:
        metrics: what to score by.
        answers: the model's answer to each example; if ``ranks`` is more than 1, its best ones, best first,
            joined by line breaks. A metric is handed as many of them as it looks at.
        references: the right answers to each.
        sources: returns the text that the model was given, of each example; called if a metric wants it.
        ranks: how many answers each of ``answers`` holds; fewer only where there are no more.

    Raises:
        DataError: if a metric wants sources, or ranks, that are not given.
    """
    for metric in metrics:
        check_metric(metric, has_sources=sources is not None, ranks=ranks)
    results: dict[str, float] = {}
    for metric in metrics:
        # With ranks 1 an answer is a text of any form, line breaks included.
        best = [_best(answer, metric.ranks) for answer in answers] if ranks > 1 else answers
        given = (best, references, sources()) if metric.wants_sources and sources else (best, references)
        results[metric.name], results[f"{metric.name}_stderr"] = metric.function(*given)
    return {**results, "n": len(answers)}


def _best(answer: str, ranks: int) -> str:
    """Return the first ``ranks`` of answers joined by line breaks."""
    return "\n".join(answer.split("\n", ranks)[:ranks])


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


def check_vocabulary(task: str, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> None:
    """Refuse a model whose vocabulary is smaller than the tokenizer's.

    Raises:
        DataError: if so.
    """
    if len(tokenizer) > model.config.vocab_size:
        raise DataError(
            f"Task {task}: the tokenizer has {len(tokenizer)} tokens, but the model's vocabulary only "
            f"{model.config.vocab_size}. Use the model's tokenizer, or raise vocab_size."
        )
