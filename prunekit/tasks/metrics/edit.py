"""Error rates of sequences: a prediction is a string of symbols (phones, say) divided by white space."""

from __future__ import annotations

from collections.abc import Sequence

from rapidfuzz.distance import Levenshtein

from prunekit.errors import DataError
from prunekit.tasks.base import Metric, MetricValue
from prunekit.tasks.metrics.estimates import check, estimate, mean, ratio


def phone_error_rate(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> MetricValue:
    """Return the edits per reference phone, in percent (0 is perfect, above 100 is possible).

    Each prediction counts against the reference with the fewest edits (insertions, deletions, substitutions;
    among equals the longest), and the sum of edits is divided by the sum of those references' phones. The
    standard error is that of a ratio estimator: sqrt(sum (edits_i - rate * phones_i)^2) / sum phones_i.

    Raises:
        DataError: if there is nothing to score, or an example has no reference.
    """
    check(predictions, references)
    nearest = [
        _nearest(prediction, options) for prediction, options in zip(predictions, references, strict=True)
    ]
    edits, phones = [edits for edits, _ in nearest], [length for _, length in nearest]
    if not any(phones):
        raise DataError("per: every reference is empty, so there are no phones to divide by; give others.")
    return estimate(*ratio(edits, phones))


def word_error_rate(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> MetricValue:
    """Return the share of examples whose prediction equals none of its references, in percent (0 to 100).

    The standard error is the binomial sqrt(rate * (1 - rate) / examples).

    Raises:
        DataError: if there is nothing to score, or an example has no reference.
    """
    check(predictions, references)
    return mean(
        [
            prediction.split() not in [option.split() for option in options]
            for prediction, options in zip(predictions, references, strict=True)
        ]
    )


PER = Metric("per", higher_is_better=False, function=phone_error_rate)
WER = Metric("wer", higher_is_better=False, function=word_error_rate)


def _nearest(prediction: str, options: Sequence[str]) -> tuple[int, int]:
    """Return (edits, symbols) of the reference with the fewest edits; among equals, of the longest."""
    predicted = prediction.split()
    symbols = [option.split() for option in options]
    return min(
        ((Levenshtein.distance(predicted, option), len(option)) for option in symbols),
        key=lambda pair: (pair[0], -pair[1]),
    )
