"""What every metric starts with and ends in: a check of what it was given, a value with its standard error.

A metric is a function of the distribution of examples, and the first-order change that one example makes to
it is the example's influence, psi_i (0 on average). The delta method then gives the standard error ``sqrt(sum
psi_i^2) / n`` for examples drawn independently. For a mean of scores it is the plug-in ``sqrt(sum (score_i -
mean)^2) / n``, which for scores of 0 and 1 is the binomial ``sqrt(p (1 - p) / n)``.

The influences are part of a metric's value: ``value + psi_i`` are pseudo-values, whose mean is the value and
whose differences between two models, example by example, say how sure the difference of the two values is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from prunekit.errors import DataError
from prunekit.tasks.base import MetricValue


def check(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    """Refuse predictions that cannot be scored.

    Raises:
        DataError: if there are none, or an example has no reference, or the counts differ.
    """
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


def estimate(value: float, influences: Sequence[float]) -> MetricValue:
    """Return value, standard error and influences in percent, given value and influences as fractions."""
    spread = math.sqrt(math.fsum(influence**2 for influence in influences))
    percent = [100 * influence for influence in influences]
    return MetricValue(100 * value, 100 * spread / len(influences), percent)


def mean(scores: Sequence[float]) -> MetricValue:
    """Return the mean of scores between 0 and 1 in percent; the influence is ``score_i - mean``."""
    value = math.fsum(scores) / len(scores)
    return estimate(value, [score - value for score in scores])


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> tuple[float, list[float]]:
    """Return the ratio of two sums, and each example's influence on it.

    The influence is ``(numerator_i - ratio * denominator_i) / mean denominator``: that of a ratio estimator.
    Where the denominators are all 0 the ratio counts as 0.
    """
    total = math.fsum(denominators)
    if total == 0:
        return 0.0, [0.0] * len(denominators)
    value = math.fsum(numerators) / total
    scale = len(denominators) / total
    pairs = zip(numerators, denominators, strict=True)
    return value, [(numerator - value * denominator) * scale for numerator, denominator in pairs]


def correlation(
    products: Sequence[float], squares_x: Sequence[float], squares_y: Sequence[float]
) -> tuple[float, list[float]]:
    """Return ``r = sum xy / sqrt(sum xx * sum yy)`` of centred values, and each example's influence on it.

    With ``Sxy`` and so on for the means, the influence is
    ``xy_i / sqrt(Sxx Syy) - r / 2 * (xx_i / Sxx + yy_i / Syy)``. Where x or y does not vary, r counts as 0.

    Args:
        products: the product of the two centred values of each example; of vectors, the inner product.
        squares_x: the square of the first.
        squares_y: the square of the second.
    """
    count = len(products)
    mean_x, mean_y = math.fsum(squares_x) / count, math.fsum(squares_y) / count
    if mean_x <= 0 or mean_y <= 0:
        return 0.0, [0.0] * count
    scale = math.sqrt(mean_x) * math.sqrt(mean_y)
    # Rounding may leave a perfect correlation a little above 1.
    value = max(-1.0, min(1.0, math.fsum(products) / count / scale))
    triples = zip(products, squares_x, squares_y, strict=True)
    return value, [xy / scale - value / 2 * (xx / mean_x + yy / mean_y) for xy, xx, yy in triples]
