"""Scores of predictions against one or several references each, with standard errors.

For the error rates a prediction is a string of symbols (phones, say) divided by white space, for accuracy a
label. Every standard error is a plug-in estimate for examples drawn independently, and 0 for a single one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from rapidfuzz.distance import Levenshtein

from prunekit.errors import DataError
from prunekit.tasks.base import Metric, MetricValue


def phone_error_rate(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> MetricValue:
    """Return the edits per reference phone, in percent (0 is perfect, above 100 is possible).

    Each prediction counts against the reference with the fewest edits (insertions, deletions, substitutions;
    among equals the longest), and the sum of edits is divided by the sum of those references' phones. The
    standard error is that of a ratio estimator: sqrt(sum (edits_i - rate * phones_i)^2) / sum phones_i.

    Raises:
        DataError: if there is nothing to score, or an example has no reference.
    """
    _check(predictions, references)
    nearest = [
        _nearest(prediction, options) for prediction, options in zip(predictions, references, strict=True)
    ]
    phones = sum(length for _, length in nearest)
    if phones == 0:
        raise DataError("per: every reference is empty, so there are no phones to divide by; give others.")
    rate = sum(edits for edits, _ in nearest) / phones
    residual = math.sqrt(sum((edits - rate * length) ** 2 for edits, length in nearest))
    return MetricValue(100 * rate, 100 * residual / phones)


def word_error_rate(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> MetricValue:
    """Return the share of examples whose prediction equals none of its references, in percent (0 to 100).

    The standard error is the binomial sqrt(rate * (1 - rate) / examples).

    Raises:
        DataError: if there is nothing to score, or an example has no reference.
    """
    _check(predictions, references)
    wrong = sum(
        prediction.split() not in [option.split() for option in options]
        for prediction, options in zip(predictions, references, strict=True)
    )
    return _binomial(wrong, len(predictions))


def accuracy(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> MetricValue:
    """Return the share of predictions that equal one of their references, in percent (0 to 100).

    The standard error is the binomial sqrt(share * (1 - share) / examples).

    Raises:
        DataError: if there is nothing to score, or an example has no reference.
    """
    _check(predictions, references)
    right = sum(prediction in options for prediction, options in zip(predictions, references, strict=True))
    return _binomial(right, len(predictions))


PER = Metric("per", higher_is_better=False, function=phone_error_rate)
WER = Metric("wer", higher_is_better=False, function=word_error_rate)
ACCURACY = Metric("accuracy", higher_is_better=True, function=accuracy)


def _binomial(hits: int, examples: int) -> MetricValue:
    """Return the share of hits and its standard error, both in percent."""
    share = hits / examples
    return MetricValue(100 * share, 100 * math.sqrt(share * (1 - share) / examples))


def _nearest(prediction: str, options: Sequence[str]) -> tuple[int, int]:
    """Return (edits, symbols) of the reference with the fewest edits; among equals, of the longest."""
    predicted = prediction.split()
    symbols = [option.split() for option in options]
    return min(
        ((Levenshtein.distance(predicted, option), len(option)) for option in symbols),
        key=lambda pair: (pair[0], -pair[1]),
    )


def _check(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    if len(predictions) != len(references):
        raise DataError(
            f"{len(predictions)} predictions were given for {len(references)} lists of references; "
            "give one list of references a prediction."
        )
    if not predictions:
        raise DataError("There are no predictions to score; give at least one example.")
    for index, options in enumerate(references):
        if not options:
            raise DataError(f"Example {index} has no reference; give at least one an example.")
