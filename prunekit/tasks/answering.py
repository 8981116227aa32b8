"""What answering a split takes, whatever the family: its examples, batches, the model's mode, scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from prunekit import ranks
from prunekit.errors import DataError, PluginError
from prunekit.progress import Progress
from prunekit.tasks.base import Evaluation, Metric, MetricValue, Split

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

    The model answers in evaluation mode and is handed back in the mode it came in. Of several processes each
    answers some of the batches, and all get every answer.

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

        def told(chosen: list[int]) -> Sequence[str]:
            texts = answer(chosen)
            advance(len(chosen))
            return texts

        batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
        for chosen, texts in zip(batches, ranks.each(batches, told), strict=True):
            for index, text in zip(chosen, texts, strict=True):
                answers[index] = text
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


class Answered(NamedTuple):
    """Examples, and what a model answered to them; each sequence is in the order of the examples.

    Attributes:
        inputs: what a person would be shown.
        references: the right answers to each.
        lengths: tokens of each input.
        answers: the model's answer to each; if ``ranks`` is more than 1, its best ones, best first, joined by
            line breaks. A metric is handed as many of them as it looks at.
        ranks: how many answers each of ``answers`` holds; fewer only where there are no more.
    """

    inputs: Sequence[str]
    references: Sequence[Sequence[str]]
    lengths: Sequence[int]
    answers: Sequence[str]
    ranks: int = 1

    def best(self, ranks: int) -> Sequence[str]:
        """Return the first ``ranks`` answers to each example, joined by line breaks."""
        # With one rank an answer is a text of any form, line breaks included.
        return [_best(answer, ranks) for answer in self.answers] if self.ranks > 1 else self.answers


def evaluation(metrics: Sequence[Metric], answered: Answered, *, has_sources: bool) -> Evaluation:
    """Return answers with their scores.

    Args:
        metrics: what to score by.
        answered: the answers.
        has_sources: whether a metric that wants sources may read the inputs.

    Raises:
        DataError: if a metric wants sources, or ranks, that are not given.
        PluginError: if a metric gives influences of more or fewer examples than there are, or no numbers.
    """
    for metric in metrics:
        check_metric(metric, has_sources=has_sources, ranks=answered.ranks)
    # A metric may ask an endpoint, or draw: of several processes the first scores for all.
    results, influences = ranks.from_first(lambda: _scored(metrics, answered))
    return Evaluation(
        metrics={**results, "n": len(answered.answers)},
        inputs=list(answered.inputs),
        references=[list(options) for options in answered.references],
        answers=list(answered.best(1)),
        lengths=list(answered.lengths),
        influences=influences,
    )


def _scored(metrics: Sequence[Metric], answered: Answered) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Each metric with its standard error, and the influences of those that tell."""
    results: dict[str, float] = {}
    influences: dict[str, list[float]] = {}
    for metric in metrics:
        given = [answered.best(metric.ranks), answered.references]
        found = MetricValue(*metric.function(*given, *([answered.inputs] if metric.wants_sources else [])))
        results[metric.name], results[f"{metric.name}_stderr"] = found.value, found.stderr
        if len(found.influences):
            influences[metric.name] = _influences(metric, found.influences, len(answered.answers))
    return results, influences


def _influences(metric: Metric, given: Sequence[float], count: int) -> list[float]:
    influences = [float(each) for each in given]
    if len(influences) != count or not all(map(math.isfinite, influences)):
        finite = sum(map(math.isfinite, influences))
        raise PluginError(
            f"Metric {metric.name!r} gave {len(influences)} influences, {finite} of them finite numbers, for "
            f"{count} examples; give one number an example, or none at all."
        )
    return influences


def _best(answer: str, ranks: int) -> str:
    """The first ``ranks`` of answers that are joined by line breaks, joined likewise."""
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
