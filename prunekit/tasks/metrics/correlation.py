"""Correlations of predicted and true numbers: Pearson's, Spearman's, and their mean, as for STS-B.

A prediction is a number written out (``3.8``). One that is no finite number adds nothing: the value is the
correlation over the answers that are numbers, times their share of all answers. Half nonsense halves it, and
nonsense throughout scores 0. No number is made up for such an answer: the mean (or 0) would earn something
where it happens to be nearly right, and the worst one would make nonsense look like answers turned round.

Where the numbers answered, or their references, do not vary, there is no correlation and the value is 0: a
model that says one number only scores 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import groupby

from prunekit.errors import DataError
from prunekit.tasks.base import Metric, MetricValue
from prunekit.tasks.metrics.estimates import check, correlation, estimate

Correlation = Callable[[Sequence[float], Sequence[float]], tuple[float, list[float]]]
"""The correlation of two equally long sequences of numbers, and each pair's influence on it."""


def pearson(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> MetricValue:
    """Return Pearson's correlation of the numbers, times their share of the answers, times 100.

    The standard error is by the delta method, sqrt(sum influence_i^2) / examples. With z scores u_i and v_i
    of the answers that are numbers, the influence on their correlation r is I_i = u_i v_i - r / 2 (u_i^2 +
    v_i^2); on r times their share q it is I_i + r (1 - q), and -r q for an answer that is no number.

    Raises:
        DataError: if there is nothing to score, or an example's reference is not one finite number.
    """
    return _scored("pearson", _pearson, predictions, references)


def spearman(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> MetricValue:
    """Return Spearman's rank correlation of the numbers, times their share of the answers, times 100.

    Equal numbers share their mean rank. The standard error is as for ``pearson``, except that an example's
    influence on r counts that it moves the other examples' ranks, too: with a and b the ranks as centred
    fractions (share below plus half the share equal, less 1/2), Sab = mean a b, and
    H_x(i, w) = mean over j of (1 if x_j > x_i, 1/2 if equal, else 0) w_j, the influence on Sab is
    a_i b_i + H_x(i, b) + H_y(i, a) - 3 Sab, likewise on Saa and Sbb, and that on r = Sab / sqrt(Saa Sbb) is
    dSab / sqrt(Saa Sbb) - r / 2 (dSaa / Saa + dSbb / Sbb). (Croux and Dehon 2010,
    doi:10.1007/s10260-010-0142-z, give it for numbers without ties.)

    Raises:
        DataError: if there is nothing to score, or an example's reference is not one finite number.
    """
    return _scored("spearman", _spearman, predictions, references)


def pearson_spearman(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> MetricValue:
    """Return the mean of ``pearson`` and ``spearman``.

    The standard error is as for those, with the mean of an example's two influences, so it counts how far the
    two err together.

    Raises:
        DataError: if there is nothing to score, or an example's reference is not one finite number.
    """
    return _scored("pearson-spearman", _mean_of_both, predictions, references)


PEARSON = Metric("pearson", higher_is_better=True, function=pearson)
SPEARMAN = Metric("spearman", higher_is_better=True, function=spearman)
PEARSON_SPEARMAN = Metric("pearson-spearman", higher_is_better=True, function=pearson_spearman)


def _scored(
    name: str, measure: Correlation, predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> MetricValue:
    check(predictions, references)
    truths = [_truth(name, index, options) for index, options in enumerate(references)]
    answers = [_number(prediction) for prediction in predictions]
    pairs = [(answer, truth) for answer, truth in zip(answers, truths, strict=True) if answer is not None]
    if not pairs:
        return estimate(0.0, [0.0] * len(answers))
    value, changes = measure(*zip(*pairs, strict=True))
    share = len(pairs) / len(answers)
    change = iter(changes)
    return estimate(
        value * share,
        [-value * share if answer is None else next(change) + value * (1 - share) for answer in answers],
    )


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _truth(name: str, index: int, options: Sequence[str]) -> float:
    number = _number(options[0])
    if number is None or len(options) > 1:
        raise DataError(
            f"{name}: the references of example {index} are {', '.join(map(repr, options))}; "
            "give each example one finite number, such as 3.8."
        )
    return number


def _pearson(xs: Sequence[float], ys: Sequence[float]) -> tuple[float, list[float]]:
    u, v = _centred(xs), _centred(ys)
    products = [a * b for a, b in zip(u, v, strict=True)]
    return correlation(products, [a * a for a in u], [b * b for b in v])


def _centred(numbers: Sequence[float]) -> list[float]:
    """Return the numbers less their mean, scaled to lie within [-2, 2]; zeros if they do not vary."""
    if min(numbers) == max(numbers):
        # The mean of equal numbers may be off by a rounding, which would look like variation.
        return [0.0] * len(numbers)
    # An absurdly large answer would overflow when squared.
    largest = max(map(abs, numbers))
    scaled = [number / largest for number in numbers]
    mean = math.fsum(scaled) / len(scaled)
    return [number - mean for number in scaled]


def _spearman(xs: Sequence[float], ys: Sequence[float]) -> tuple[float, list[float]]:
    a, b = _ranks(xs), _ranks(ys)
    with_b, with_a = _above(xs, b), _above(ys, a)
    cross = [p * q + h + g for p, q, h, g in zip(a, b, with_b, with_a, strict=True)]
    own_x = [p * p + 2 * h for p, h in zip(a, _above(xs, a), strict=True)]
    own_y = [q * q + 2 * h for q, h in zip(b, _above(ys, b), strict=True)]
    # Each averages to three times its moment: the same r comes out, and a third of each influence.
    value, changes = correlation(cross, own_x, own_y)
    return value, [3 * change for change in changes]


def _mean_of_both(xs: Sequence[float], ys: Sequence[float]) -> tuple[float, list[float]]:
    (linear, by_value), (ranked, by_rank) = _pearson(xs, ys), _spearman(xs, ys)
    return (linear + ranked) / 2, [(p + q) / 2 for p, q in zip(by_value, by_rank, strict=True)]


def _ranks(numbers: Sequence[float]) -> list[float]:
    """Return each number's rank as a centred fraction: share below plus half the share equal, less 1/2."""
    return [0.5 - share for share in _above(numbers, [1.0] * len(numbers))]


def _above(numbers: Sequence[float], weights: Sequence[float]) -> list[float]:
    """Return for each number the mean of all weights, counted whole where larger, half where equal."""
    result = [0.0] * len(numbers)
    larger = 0.0
    order = sorted(range(len(numbers)), key=lambda index: -numbers[index])
    for _, group in groupby(order, key=numbers.__getitem__):
        equal = list(group)
        here = math.fsum(weights[index] for index in equal)
        for index in equal:
            result[index] = (larger + here / 2) / len(numbers)
        larger += here
    return result
