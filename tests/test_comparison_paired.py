"""Paired intervals: against scipy, against cases worked by hand, and how often they hold the truth."""

import numpy as np
import pytest
from scipy import stats

from prunekit.comparison import paired
from prunekit.comparison.paired import Interval, differences, intervals


def one(found, seed=0):
    [interval] = intervals([np.asarray(found, float)], seed=seed)
    return interval


@pytest.mark.parametrize(("correlation", "examples"), [(0.0, 40), (0.9, 40), (0.9, 300)])
def test_with_one_seed_it_is_scipys_paired_percentile_bootstrap(correlation, examples):
    generator = np.random.default_rng(3)
    shared = generator.normal(size=examples)
    ours, theirs = (correlation * shared + generator.normal(1 + 0.2 * side, 1, examples) for side in (0, 1))
    own = one(differences({0: ours}, {0: theirs}))
    expected = stats.bootstrap(
        (ours, theirs),
        lambda a, b, axis: np.mean(a, axis=axis) - np.mean(b, axis=axis),
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=paired.RESAMPLES,
        rng=np.random.default_rng(0),
    ).confidence_interval
    width = expected.high - expected.low
    assert own.difference == pytest.approx(ours.mean() - theirs.mean())
    assert (own.low, own.high) == pytest.approx(expected, abs=0.03 * width)


def test_two_examples_are_drawn_alike_a_quarter_of_the_time_each():
    # Means over two draws of {0, 4}: 0, 2, 2, 4. The outer quarters hold the 2.5 % tails.
    assert one([[0.0, 4.0]]) == Interval(2.0, 0.0, 4.0)


def test_two_examples_that_both_gain_are_an_improvement():
    found = one([[1.0, 3.0]])
    assert found == Interval(2.0, 1.0, 3.0)
    assert found.verdict(higher_is_better=True) == "better"


def test_two_seeds_without_spread_over_examples_have_students_interval_of_one_degree():
    # Seed means 1 and 3. Drawn alike, their deviation of 1, stretched by sqrt(2 / 1), is the bound; with all
    # variance from two seeds Student's t has 1 degree of freedom, 12.706 where the normal has 1.960.
    found = one([[1.0, 1.0], [3.0, 3.0]])
    bound = 2**0.5 * 12.7062 / 1.95996
    assert (found.low, found.high) == pytest.approx((2 - bound, 2 + bound), rel=1e-4)


def test_seeds_that_agree_give_the_interval_of_one():
    row = np.random.default_rng(1).normal(0.3, 1.0, 50)
    found, alone = one([row, row, row]), one([row])
    assert (found.low, found.high) == pytest.approx((alone.low, alone.high))


def test_disagreeing_seeds_widen_the_interval():
    row = np.random.default_rng(1).normal(0.3, 1.0, 50)
    agreeing, disagreeing = one([row, row, row]), one([row - 1, row, row + 1])
    assert disagreeing.difference == pytest.approx(agreeing.difference)
    assert disagreeing.low < agreeing.low
    assert disagreeing.high > agreeing.high


@pytest.mark.parametrize(
    ("seeds", "between", "of_examples", "of_both", "at_least"),
    [
        (1, 0.0, 1.0, 0.0, 0.92),
        (3, 0.0, 1.0, 0.0, 0.92),
        (3, 0.0, 1.0, 1.0, 0.92),
        (3, 0.1, 1.0, 1.0, 0.92),
        (3, 1.0, 1.0, 1.0, 0.87),  # three seeds decide all
        (5, 1.0, 1.0, 1.0, 0.92),
    ],
)
def test_the_interval_holds_the_truth_about_as_often_as_it_says(
    monkeypatch, seeds, between, of_examples, of_both, at_least
):
    monkeypatch.setattr(paired, "RESAMPLES", 1000)
    generator = np.random.default_rng(11)
    held = []
    for trial in range(400):
        found = 1.0 + between * generator.normal(size=(seeds, 1))
        found = found + of_examples * generator.normal(size=(1, 150))
        found = found + of_both * generator.normal(size=(seeds, 150))
        interval = one(found, seed=trial)
        held.append(interval.low <= 1.0 <= interval.high)
    assert at_least <= np.mean(held) <= 0.995


def test_a_model_against_itself_is_exactly_no_difference():
    values = {seed: np.random.default_rng(seed).normal(8.5, 3, 100) for seed in (0, 1, 2)}
    found = one(differences(values, dict(values)))
    assert found == Interval(0.0, 0.0, 0.0)
    assert found.verdict(higher_is_better=False) == "no difference"


def test_rounding_is_no_difference():
    values = np.random.default_rng(0).normal(8.5, 3, 100)
    found = one(differences({0: values * (1 + 1e-13)}, {0: values}))
    assert found.verdict(higher_is_better=True) == "no difference"


def test_a_seed_is_paired_with_the_references_same_seed_or_else_with_its_mean():
    own = {0: [1.0, 2.0], 7: [5.0, 5.0]}
    reference = {0: [1.0, 1.0], 1: [3.0, 5.0]}
    assert differences(own, reference).tolist() == [[0.0, 1.0], [3.0, 2.0]]


@pytest.mark.parametrize(
    ("bounds", "higher_is_better", "verdict"),
    [
        ((0.1, 0.9), True, "better"),
        ((0.1, 0.9), False, "worse"),
        ((0.1, 0.9), None, "higher"),
        ((-0.9, -0.1), True, "worse"),
        ((-0.9, -0.1), False, "better"),
        ((-0.9, -0.1), None, "lower"),
        ((-0.1, 0.9), True, "no difference"),
        ((0.0, 0.9), True, "no difference"),
    ],
)
def test_the_verdict_needs_zero_outside_the_interval(bounds, higher_is_better, verdict):
    assert Interval(0.5, *bounds).verdict(higher_is_better=higher_is_better) == verdict


def test_many_comparisons_give_what_each_gives_alone(monkeypatch):
    generator = np.random.default_rng(5)
    found = [generator.normal(size=(seeds, 30)) for seeds in (1, 3, 2)]
    monkeypatch.setattr(paired, "_CELLS_AT_ONCE", 30 * 999)  # a last chunk that is not full
    together = intervals(found, seed=4)
    for interval, each in zip(together, found, strict=True):
        alone = one(each, seed=4)
        assert (interval.low, interval.high) == pytest.approx((alone.low, alone.high))


def test_examples_that_are_not_equally_many_are_refused():
    with pytest.raises(ValueError, match="3 examples cannot be paired with 2"):
        differences({0: [1.0, 2.0, 3.0]}, {0: [1.0, 2.0]})


def test_one_example_has_no_interval():
    with pytest.raises(ValueError, match="two examples or more"):
        intervals([np.ones((1, 1))], seed=0)


def test_nothing_to_compare_gives_nothing():
    assert intervals([], seed=0) == []
