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


def control(low, high):
    return {"speedup": 1.0, "speedup_low": low, "speedup_high": high, "verdict": "no difference"}


@pytest.mark.parametrize(("low", "high", "spread"), [(0.99, 1.02, 0.02), (0.96, 1.01, 1 / 0.96 - 1)])
def test_noise_is_the_furthest_that_the_reference_is_from_itself(low, high, spread):
    found = statistics.noise(control(low, high))
    assert (found["control_low"], found["control_high"]) == (low, high)
    assert found["spread"] == pytest.approx(spread)
    assert not found["too_noisy"]
    assert found["says"].startswith(f"the reference against itself differs by up to {spread:.1%}; ")


@pytest.mark.parametrize("interval", [(0.99, 1.06), (0.94, 1.01)])
def test_a_machine_on_which_the_reference_differs_from_itself_by_more_than_the_bound_is_too_noisy(interval):
    found = statistics.noise(control(*interval))
    assert found["too_noisy"]
    assert found["says"] == (
        f"too noisy: the reference against itself differs by up to {found['spread']:.1%}, more than 5%, so a "
        "second run may give other figures. Close other programs or ask for more rounds."
    )
