"""Scores of predictions that name a class: accuracy, top-k accuracy, F1, macro-F1 and Matthews' correlation.

An example's class is its reference; of several, the one that the prediction equals, or else the first. Labels
are compared as they are. A prediction that names no class of the references is unrecognised: it is always
wrong, and no class gets credit for it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial

from prunekit.errors import DataError
from prunekit.tasks.base import Metric, MetricValue
from prunekit.tasks.metrics.estimates import check, correlation, estimate, mean, ratio

_POSITIVE_OF = {"0": "1", "false": "true", "no": "yes", "negative": "positive", "label_0": "label_1"}
_NEGATION = re.compile(r"(?:not|non|no|un)[ _-]?(.+)", re.DOTALL)
_PLAIN_NEGATION = re.compile(r"(?:not|non)[ _-](.+)", re.DOTALL)


def accuracy(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> MetricValue:
    """Return the share of predictions that equal one of their references, in percent (0 to 100).

    The standard error is the binomial sqrt(share * (1 - share) / examples).

    Raises:
        DataError: if there is nothing to score, or an example has no reference.
    """
    check(predictions, references)
    return mean([prediction in options for prediction, options in zip(predictions, references, strict=True)])


def top_k(k: int, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> MetricValue:
    """Return the share of predictions with one of their references among the first ``k`` answers, in percent.

    The standard error is the binomial sqrt(share * (1 - share) / examples).

    Args:
        k: how many answers count.
        predictions: for each example the model's answers, best first, one a line.
        references: labels.

    Raises:
        DataError: if there is nothing to score, or an example has no reference.
    """
    check(predictions, references)
    return mean(
        [
            not set(options).isdisjoint(prediction.split("\n")[:k])
            for prediction, options in zip(predictions, references, strict=True)
        ]
    )


def f1(
    predictions: Sequence[str], references: Sequence[Sequence[str]], *, positive: str | None = None
) -> MetricValue:
    """Return the F1 of the positive one of two classes, in percent: 2 TP / (2 TP + wrong answers).

    A wrong answer to a positive example is a false negative, one to a negative example a false positive. That
    is the usual F1 when each answer names one of the two classes, and an unrecognised answer to a negative
    example costs as much as the wrong class: else a model that knows the positive examples and talks nonsense
    about the rest would score 100. 0 where nothing is positive. With ``tp_i`` and ``wrong_i`` in {0, 1}, the
    standard error is that of a ratio estimator: sqrt(sum (2 tp_i - F1 (2 tp_i + wrong_i))^2) / sum (2 tp_i +
    wrong_i).

    Args:
        predictions: the answers.
        references: labels of at most two classes.
        positive: the positive label. By default it is read from the labels, in any case: of a word and its
            negation (``not_``, ``non-``, ``no ``, ``un`` and the like before it, as in GLUE's ``equivalent``
            and ``not_equivalent``) the word; of 0 and 1, false and true, no and yes, negative and positive,
            LABEL_0 and LABEL_1 the second.

    Raises:
        DataError: if there is nothing to score, or an example has no reference, or there are more than two
            classes, or it cannot be told which one is positive.
    """
    check(predictions, references)
    truths = _truths(predictions, references)
    positive = _positive(set(truths), set(predictions), positive)
    pairs = list(zip(predictions, truths, strict=True))
    hits = [2 * (prediction == truth == positive) for prediction, truth in pairs]
    counted = [hit + (prediction != truth) for hit, (prediction, truth) in zip(hits, pairs, strict=True)]
    return estimate(*ratio(hits, counted))


def macro_f1(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> MetricValue:
    """Return the mean over the references' classes of each one's F1 against the rest, in percent.

    F1 of class k is ``2 TP_k / (2 TP_k + FP_k + FN_k)``. A class that no reference names is not averaged
    over; an unrecognised answer is a false negative of its example's class. The standard error is by the
    delta method: an example's influence is the mean over the classes of its influences on those ratios, and
    the error sqrt(sum influence_i^2) / examples.

    Raises:
        DataError: if there is nothing to score, or an example has no reference.
    """
    check(predictions, references)
    truths = _truths(predictions, references)
    pairs = list(zip(predictions, truths, strict=True))
    hits = Counter(truth for prediction, truth in pairs if prediction == truth)
    true, said = Counter(truths), Counter(predictions)
    sizes = {label: number + said[label] for label, number in true.items()}
    scores = {label: 2 * hits[label] / size for label, size in sizes.items()}
    # An example counts in its own class and in the one answered, in each as in a ratio estimator.
    pull = {label: scores[label] / size for label, size in sizes.items()}
    weight = len(pairs) / len(true)
    influences = [
        weight * (2 * (prediction == truth) / sizes[truth] - pull[truth] - pull.get(prediction, 0))
        for prediction, truth in pairs
    ]
    return estimate(sum(scores.values()) / len(true), influences)


def mcc(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> MetricValue:
    """Return Matthews' correlation of predicted and true class, of any number of classes, times 100.

    That is Gorodkin's R_K (doi:10.1016/j.compbiolchem.2004.09.006): the correlation of the two indicator
    vectors of the class, which for two classes is Matthews' coefficient. Unrecognised answers together are
    one more predicted class, which is never true. 0 where the answers, or the references, are all of one
    class, so a model that says one thing only scores 0. The standard error is by the delta method, as of any
    correlation: with x_i and y_i the centred indicators, S the means of their products, and r the value as a
    fraction, the influence is x_i y_i / sqrt(Sxx Syy) - r / 2 (x_i x_i / Sxx + y_i y_i / Syy), and the error
    100 sqrt(sum influence_i^2) / examples.

    Raises:
        DataError: if there is nothing to score, or an example has no reference.
    """
    check(predictions, references)
    truths = _truths(predictions, references)
    classes = set(truths)
    answers = [prediction if prediction in classes else None for prediction in predictions]
    count = len(truths)
    true = {label: number / count for label, number in Counter[str | None](truths).items()}
    said = {label: number / count for label, number in Counter(answers).items()}
    # Inner products of centred indicators, written out: the vectors themselves could be a thousand long.
    both = sum(share * said.get(label, 0) for label, share in true.items())
    within_true, within_said = (sum(share**2 for share in shares.values()) for shares in (true, said))
    products = [
        (truth == answer) - said.get(truth, 0) - true.get(answer, 0) + both
        for truth, answer in zip(truths, answers, strict=True)
    ]
    squares_true = [1 - 2 * true[truth] + within_true for truth in truths]
    squares_said = [1 - 2 * said[answer] + within_said for answer in answers]
    return estimate(*correlation(products, squares_true, squares_said))


def for_classes(
    metrics: Sequence[Metric], classes: Sequence[str], positive: str | None = None
) -> tuple[Metric, ...]:
    """Return the metrics for a task of these classes: ``f1`` is told the positive one, and need not find it.

    What cannot be scored so is found here, before there are answers, rather than after the training.

    Args:
        metrics: what the task is to be scored by.
        classes: every label that an example may have.
        positive: the positive one; by default read from the labels as ``f1`` does.

    Raises:
        DataError: if ``f1`` is among the metrics, and there are more than two classes or it cannot be told
            which one is positive; or if ``positive`` is no class, or no metric asks for it.
    """
    if not any(metric.name == F1.name for metric in metrics):
        if positive is not None:
            raise DataError(
                f"The positive label is to be {positive!r}, which only f1 asks for; add f1 to the metrics, "
                "or leave the positive label out."
            )
        return tuple(metrics)
    told = replace(F1, function=partial(f1, positive=_positive(set(classes), set(classes), positive)))
    return tuple(told if metric.name == F1.name else metric for metric in metrics)


ACCURACY = Metric("accuracy", higher_is_better=True, function=accuracy)
TOP = tuple(Metric(f"top-{k}", higher_is_better=True, function=partial(top_k, k), ranks=k) for k in (1, 5))
F1 = Metric("f1", higher_is_better=True, function=f1)
MACRO_F1 = Metric("macro-f1", higher_is_better=True, function=macro_f1)
MCC = Metric("mcc", higher_is_better=True, function=mcc)


def _truths(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> list[str]:
    return [
        prediction if prediction in options else options[0]
        for prediction, options in zip(predictions, references, strict=True)
    ]


def _positive(classes: Collection[str], answers: Collection[str], given: str | None) -> str:
    """Return the positive label: the one given, or the one that the labels tell."""
    names = ", ".join(repr(label) for label in sorted(classes)[:5])
    if len(classes) > 2:
        raise DataError(
            f"f1 is for two classes, and the references name {len(classes)}: {names}"
            f"{', …' if len(classes) > 5 else ''}; use macro-f1."
        )
    if given is not None:
        if len(classes) == 2 and given not in classes:
            raise DataError(f"f1: the positive label is to be {given!r}, but the references name {names}.")
        return given
    found = _told(classes, classes if len(classes) == 2 else answers)
    if found is None:
        raise DataError(
            f"f1: the labels do not tell which class is positive; the references name {names}. Use macro-f1, "
            "mcc or accuracy, which need none, or labels such as 'spam' and 'not_spam', or 0 and 1."
        )
    return found


def _told(classes: Collection[str], others: Collection[str]) -> str | None:
    """Return the positive label if one of ``classes`` negates one of ``others`` or is negated by it."""
    for label in classes:
        for other in sorted(others):
            if _negates(label, other):
                return other
            if _negates(other, label):
                return label
    if len(classes) == 1:
        # Every reference and every answer may be of the one class; its name alone may still tell.
        (label,) = classes
        if label.lower() in _POSITIVE_OF.values():
            return label
        if label.lower() in _POSITIVE_OF:
            return _POSITIVE_OF[label.lower()]
        if plain := _PLAIN_NEGATION.fullmatch(label.lower()):
            return plain[1]
    return None


def _negates(negative: str, positive: str) -> bool:
    negative, positive = negative.lower(), positive.lower()
    negation = _NEGATION.fullmatch(negative)
    return _POSITIVE_OF.get(negative) == positive or (negation is not None and negation[1] == positive)
