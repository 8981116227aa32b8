"""Scores of short answers to questions, after SQuAD's normalisation: exact match and token F1.

Normalised, a text is in lower case, without ASCII punctuation, without the words a, an and the, its words
divided by single spaces (Rajpurkar et al. 2016, arXiv:1606.05250). For a question that has no answer give the
reference ``""``, as SQuAD 2 does; only a prediction that normalises to nothing is right there.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

from prunekit.tasks.base import Metric, MetricValue
from prunekit.tasks.metrics.estimates import check, mean

_ARTICLE = re.compile(r"\b(?:a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def exact_match(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> MetricValue:
    """Return the share of predictions that equal one of their references once normalised, in percent.

    The standard error is the binomial sqrt(share * (1 - share) / examples).

    Raises:
        DataError: if there is nothing to score, or an example has no reference.
    """
    check(predictions, references)
    return mean(
        [
            normalized_words(prediction) in [normalized_words(option) for option in options]
            for prediction, options in zip(predictions, references, strict=True)
        ]
    )


def token_f1(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> MetricValue:
    """Return the mean over examples of the F1 of normalised words, against the best reference, in percent.

    F1 is 2 * shared words / (words predicted + words of the reference), repeated words counted as often as
    both have them. For the reference ``""`` it is 1 if the prediction has no words, else 0. A reference that
    is not empty but has no words (an article, a dash) gives 0 whatever the prediction, as in SQuAD 1.1's
    script. The standard error is sqrt(sum (F1_i - mean)^2) / examples.

    Raises:
        DataError: if there is nothing to score, or an example has no reference.
    """
    check(predictions, references)
    return mean(
        [
            max(_f1(prediction, option) for option in options)
            for prediction, options in zip(predictions, references, strict=True)
        ]
    )


EXACT_MATCH = Metric("exact-match", higher_is_better=True, function=exact_match)
TOKEN_F1 = Metric("token-f1", higher_is_better=True, function=token_f1)


def normalized_words(text: str) -> list[str]:
    """Return the words of a text that are compared."""
    # In this order: without its punctuation "a." is an article, and "the-end" one word that is none.
    return _ARTICLE.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split()


def _f1(prediction: str, reference: str) -> float:
    predicted, expected = normalized_words(prediction), normalized_words(reference)
    if not expected:
        return float(not predicted and not reference.strip())
    shared = (Counter(predicted) & Counter(expected)).total()
    return 2 * shared / (len(predicted) + len(expected))
