"""Percentiles, bootstrap intervals and verdicts on samples worked by hand."""

import random

import pytest

from prunekit.measure import statistics


def test_a_gain_within_the_spread_of_dense_against_itself_is_no_difference():
    reference, twin, other = [100.0] * 9, [95.0] * 9, [97.0] * 9
    compared = statistics.compare(reference, twin, other, seed=0)
    assert compared["speedup_low"] > 1.0
    assert compared["verdict"] == "no difference"


def test_bootstrap_keeps_the_two_times_of_a_round_together():
    reference = [10.0, 20.0, 40.0, 80.0, 160.0]
    other = [sample / 2 for sample in reference]
    assert statistics.ratio_interval(reference, other, seed=0) == pytest.approx((2.0, 2.0, 2.0))


def test_bootstrap_gives_the_same_interval_for_the_same_seed():
    noise = random.Random(1)
    first, second = ([noise.uniform(1.0, 2.0) for _ in range(12)] for _ in range(2))
    assert statistics.ratio_interval(first, second, 3) == statistics.ratio_interval(first, second, 3)
