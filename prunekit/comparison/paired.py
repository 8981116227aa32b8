"""What a difference between two models is worth, when both answered the same examples.

An example's pseudo-value is the metric's value plus that example's influence on it: a number an example whose
mean is the metric and whose spread gives the metric's standard error (the delta method). So every metric,
ratios of sums and correlations too, is compared as a mean is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 10_000
LEVEL = 0.95
ROUNDING = 1e-9
"""A difference smaller than this share of the values is the rounding of their sums."""
_CELLS_AT_ONCE = 4_000_000  # of counts, 32 MB

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A mean difference and its 95 % interval, in the metric's unit."""

    difference: float
    low: float
    high: float

    def verdict(self, *, higher_is_better: bool | None) -> str:
        """``"no difference"`` where 0 lies inside the interval, else ``"better"`` or ``"worse"``.

        Where nobody knows which direction is good, ``"higher"`` or ``"lower"``.
        """
        if self.low <= 0 <= self.high:
            return "no difference"
        is_higher = self.low > 0
        if higher_is_better is None:
            return "higher" if is_higher else "lower"
        return "better" if is_higher is higher_is_better else "worse"


def differences(own: Mapping[int, ArrayLike], reference: Mapping[int, ArrayLike]) -> Floats:
    """A model's pseudo-values less the reference's, seed by seed and example by example.

    Args:
        own: seed to pseudo-values, ``[N]`` each.
        reference: the same of what it is compared with. A seed that it does not have is compared with its
            mean over seeds.

    Returns:
        ``[S, N]``, a row for each seed of ``own``. Differences that rounding explains are exactly 0.

    Raises:
        ValueError: if the examples are not equally many.
    """
    theirs = {seed: np.asarray(values, float) for seed, values in reference.items()}
    mean = np.mean(list(theirs.values()), axis=0)
    ours = np.asarray(list(own.values()), float)  # [S, N]
    if ours.shape[1:] != mean.shape:
        raise ValueError(f"{ours.shape[1]} examples cannot be paired with {len(mean)}")
    found = ours - np.asarray([theirs.get(seed, mean) for seed in own])
    found[np.abs(found) <= ROUNDING * max(np.abs(ours).max(), np.abs(mean).max())] = 0.0
    return np.asarray(found, float)


def intervals(found: Sequence[Floats], *, seed: int) -> list[Interval]:
    """Bootstrap intervals of mean differences, over examples and over seeds.

    A draw takes N examples with replacement, the same ones for every seed, and adds S seeds' deviations from
    the mean over seeds, drawn with replacement and stretched by sqrt(S / (S - 1)), without which their
    variance would come out too small by that factor squared. Percentiles of the draws give the interval.

    A spread known from few seeds is itself uncertain, so the interval is then widened as Student's t is wider
    than the normal distribution, with Satterthwaite's degrees of freedom: by nothing where one seed was run
    or seeds agree, by 2.2 where three seeds decide all. What seeds differ in by chance, example by example,
    counts in both parts, so that the interval errs on the wide side.

    Args:
        found: what `differences` returned, of any number of models and metrics; all of the same examples.
        seed: decides the draws. All share them.

    Raises:
        ValueError: if there are fewer than two examples, which have no spread.
    """
    if not found:
        return []
    examples = found[0].shape[1]
    if examples < 2:
        raise ValueError("an interval takes two examples or more")
    means = np.asarray([each.mean(axis=0) for each in found])  # [R, N]
    draws = _example_draws(means, seed)
    return [_interval(each, own, seed) for each, own in zip(found, draws, strict=True)]


def _example_draws(means: Floats, seed: int) -> Floats:
    """Means over resampled examples, ``[R, RESAMPLES]``."""
    examples = means.shape[1]
    generator = np.random.default_rng(seed)
    step = max(1, _CELLS_AT_ONCE // examples)
    parts = []
    for start in range(0, RESAMPLES, step):
        draws = min(step, RESAMPLES - start)
        drawn = generator.integers(0, examples, size=(draws, examples))
        cells = drawn + examples * np.arange(draws)[:, None]
        counts = np.bincount(cells.ravel(), minlength=draws * examples).reshape(draws, examples)
        parts.append(means @ counts.T.astype(float) / examples)
    return np.concatenate(parts, axis=1)


def _interval(found: Floats, draws: Floats, seed: int) -> Interval:
    seeds, examples = found.shape
    of_examples = found.mean(axis=0)  # [N]
    center = float(of_examples.mean())
    if seeds > 1:
        deviations = found.mean(axis=1) - center  # [S]
        # A stream of its own, so that the examples drawn do not depend on how many seeds there are.
        picks = np.random.default_rng([seed, seeds]).integers(0, seeds, size=(RESAMPLES, seeds))
        draws = draws + np.sqrt(seeds / (seeds - 1)) * deviations[picks].mean(axis=1)
        from_seeds = float(np.square(deviations).sum()) / (seeds * (seeds - 1))
        from_examples = float(np.square(of_examples - center).sum()) / examples**2
        widening = _widening(from_examples, from_seeds, seeds)
    else:
        widening = 1.0
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Interval(
        center, center - widening * (center - float(low)), center + widening * (float(high) - center)
    )


def _widening(from_examples: float, from_seeds: float, seeds: int) -> float:
    """Student's quantile over the normal one; the two variances are of the mean's two parts."""
    if from_seeds == 0:
        return 1.0
    from scipy.special import ndtri, stdtrit

    freedom = (seeds - 1) * (1 + from_examples / from_seeds) ** 2
    share = (1 + LEVEL) / 2
    return float(stdtrit(freedom, share) / ndtri(share))
