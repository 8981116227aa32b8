"""Medians, percentiles, what a ratio of two medians is worth, and whether the machine was quiet enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

RESAMPLES = 10_000
LEVEL = 0.95
NOISE_BOUND = 0.05
"""A reference that differs from itself by more than this share makes a machine too noisy."""


def summary(samples_ms: Sequence[float]) -> dict[str, Any]:
    """``median_ms, p10_ms, p90_ms, p99_ms`` (linear between samples), and the samples in round order."""
    p10, median, p90, p99 = np.percentile(samples_ms, [10, 50, 90, 99])
    return {
        "median_ms": float(median),
        "p10_ms": float(p10),
        "p90_ms": float(p90),
        "p99_ms": float(p99),
        "samples_ms": [float(sample) for sample in samples_ms],
    }


def ratio_interval(
    reference_ms: Sequence[float], other_ms: Sequence[float], seed: int
) -> tuple[float, float, float]:
    """Median of the reference over median of the other, with its 95 % bootstrap interval.

    Percentile bootstrap over rounds: what slowed one model of a round down slowed the other too, so the two
    times stay together.

    Args:
        reference_ms: one time a round.
        other_ms: the other model's times, round for round.
        seed: decides the resamples, so that the same samples always give the same interval.

    Returns:
        ``(ratio, low, high)``; above 1 where the other is faster.
    """
    reference, other = np.asarray(reference_ms), np.asarray(other_ms)
    rounds = len(reference)
    drawn = np.random.default_rng(seed).integers(0, rounds, size=(RESAMPLES, rounds))
    ratios = np.median(reference[drawn], axis=1) / np.median(other[drawn], axis=1)
    low, high = np.quantile(ratios, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(np.median(reference) / np.median(other)), float(low), float(high)


def compare(
    reference_ms: Sequence[float], twin_ms: Sequence[float], other_ms: Sequence[float], seed: int
) -> dict[str, Any]:
    """Speedup of a model over the reference, and whether it stands out of the reference's own spread.

    Args:
        reference_ms: one time a round.
        twin_ms: the reference measured a second time in the same rounds.
        other_ms: the model's times in the same rounds.
        seed: of the bootstrap.

    Returns:
        ``speedup, speedup_low, speedup_high``, and what `verdict` says of them beside the reference against
        its twin.
    """
    speedup, low, high = ratio_interval(reference_ms, other_ms, seed)
    _, twin_low, twin_high = ratio_interval(reference_ms, twin_ms, seed)
    found = verdict(low, high, twin_low, twin_high)
    return {"speedup": speedup, "speedup_low": low, "speedup_high": high, "verdict": found}


def verdict(low: float, high: float, control_low: float, control_high: float) -> str:
    """What an interval of a speedup says beside the interval of the reference against itself.

    Returns:
        "faster" or "slower" where the whole interval lies beyond 1 and beyond the control's, else
        "no difference".
    """
    if low > max(1.0, control_high):
        return "faster"
    if high < min(1.0, control_low):
        return "slower"
    return "no difference"


def noise(control: Mapping[str, Any]) -> dict[str, Any]:
    """How far the reference is from itself, and whether anything can be said beside that.

    Args:
        control: what `compare` gave for the reference against its twin.

    Returns:
        ``control_low, control_high`` (the interval), ``spread`` (the larger of the two distances from 1, as a
        share), ``too_noisy`` (more than `NOISE_BOUND`) and ``says``, one sentence.
    """
    low, high = control["speedup_low"], control["speedup_high"]
    spread = max(high, 1 / low) - 1
    measured = f"the reference against itself differs by up to {spread:.1%}"
    says = f"{measured}; differences inside that are called no difference."
    if spread > NOISE_BOUND:
        says = (
            f"too noisy: {measured}, more than {NOISE_BOUND:.0%}, so a second run may give other figures. "
            "Close other programs or ask for more rounds."
        )
    return {
        "control_low": low,
        "control_high": high,
        "spread": spread,
        "too_noisy": spread > NOISE_BOUND,
        "says": says,
    }
