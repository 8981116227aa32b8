"""Pearson's and Spearman's correlation against scipy, by hand, and on answers that are no numbers."""

import math
import random

import pytest
from scipy.stats import pearsonr, spearmanr

from prunekit.errors import DataError
from prunekit.tasks.metrics import (
    PEARSON,
    PEARSON_SPEARMAN,
    SPEARMAN,
    pearson,
    pearson_spearman,
    spearman,
)

BOTH = [PEARSON, SPEARMAN]
ALL = [PEARSON, SPEARMAN, PEARSON_SPEARMAN]


def drawn(count=200, seed=0):
    """Similarities from 0 to 5 in steps of 0.2, as in STS-B, and answers in steps of 0.5: many ties."""
    rng = random.Random(seed)
    truths = [rng.randrange(26) / 5 for _ in range(count)]
    return [round(2 * (truth + rng.gauss(0, 1.5))) / 2 for truth in truths], truths


def texts(numbers):
    return [str(number) for number in numbers]


def one_each(numbers):
    return [[str(number)] for number in numbers]


def test_pearson_is_that_of_scipy():
    answers, truths = drawn()
    wanted = pearsonr(answers, truths).statistic
    assert pearson(texts(answers), one_each(truths)).value == pytest.approx(100 * wanted)


def test_spearman_is_that_of_scipy_ties_included():
    answers, truths = drawn()
    wanted = spearmanr(answers, truths).statistic
    assert spearman(texts(answers), one_each(truths)).value == pytest.approx(100 * wanted)


def test_pearson_spearman_is_the_mean_of_both():
    answers, truths = drawn()
    given = texts(answers), one_each(truths)
    wanted = (pearson(*given).value + spearman(*given).value) / 2
    assert pearson_spearman(*given).value == pytest.approx(wanted)


def test_pearson_and_its_error_by_hand():
    # u = -1, -1, 1, 1; v = -1, 1, -1, 1 times 1 for the first four: r 0, influences u v, all 1 or -1.
    value, stderr, _ = pearson(["0", "0", "2", "2"], one_each([3, 5, 3, 5]))
    assert value == pytest.approx(0)
    assert stderr == pytest.approx(100 * math.sqrt(4) / 4)


def test_spearman_of_an_order_kept_is_100_and_no_more():
    value, stderr, _ = spearman(["1", "10"], one_each([1, 2]))
    assert value == 100
    assert stderr == pytest.approx(0, abs=1e-9)


def test_spearman_by_hand():
    # Rank differences 1, 1, 1, 1, 0 of 5: 1 - 6 * 4 / (5 * 24).
    value, *_ = spearman(["2", "1", "4", "3", "5"], one_each([1, 2, 3, 4, 5]))
    assert value == pytest.approx(80)


@pytest.mark.parametrize("metric", BOTH, ids=lambda metric: metric.name)
def test_answers_turned_round_score_minus_100(metric):
    assert metric.function(["3", "2", "1"], one_each([1, 2, 3])).value == pytest.approx(-100)


@pytest.mark.parametrize("metric", ALL, ids=lambda metric: metric.name)
@pytest.mark.parametrize("junk", ["", "unknown", "3.8 out of 5", "3,8", "nan", "inf"])
def test_an_answer_that_is_no_number_costs_its_share(metric, junk):
    answers, truths = drawn()
    kept = metric.function(texts(answers), one_each(truths)).value
    with_junk = metric.function([*texts(answers), *[junk] * 50], one_each([*truths, *[2.5] * 50])).value
    assert with_junk == pytest.approx(kept * 200 / 250)


@pytest.mark.parametrize("metric", ALL, ids=lambda metric: metric.name)
def test_no_numbers_at_all_score_0(metric):
    assert metric.function(["yes", "no"], one_each([1, 2]))[:2] == (0.0, 0.0)


@pytest.mark.parametrize("metric", ALL, ids=lambda metric: metric.name)
def test_one_number_among_nonsense_scores_0(metric):
    assert metric.function(["1", "no"], one_each([1, 2]))[:2] == (0.0, 0.0)


@pytest.mark.parametrize("metric", ALL, ids=lambda metric: metric.name)
def test_a_model_that_answers_one_number_only_scores_0(metric):
    # The mean of three times 0.1 is not quite 0.1.
    assert metric.function(["0.1"] * 3, one_each([1, 2, 3]))[:2] == (0.0, 0.0)


@pytest.mark.parametrize("metric", ALL, ids=lambda metric: metric.name)
def test_references_that_do_not_vary_score_0(metric):
    assert metric.function(["1", "2", "3"], one_each([0.1] * 3))[:2] == (0.0, 0.0)


def test_an_absurdly_large_answer_is_a_number_like_others():
    # As if it were infinitely far: r is that of an indicator of the last example.
    value, *_ = pearson(["1", "2", "3", "1e300"], one_each([1, 2, 3, 4]))
    assert value == pytest.approx(100 * pearsonr([0, 0, 0, 1], [1, 2, 3, 4]).statistic)


@pytest.mark.parametrize("metric", ALL, ids=lambda metric: metric.name)
def test_numbers_may_have_space_around_them(metric):
    answers, truths = drawn()
    spaced = [f" {answer}\n" for answer in answers]
    assert metric.function(spaced, one_each(truths)) == metric.function(texts(answers), one_each(truths))


@pytest.mark.parametrize(
    ("options", "shown"), [(["high"], "'high'"), (["nan"], "'nan'"), (["1.0", "2.0"], "'1.0', '2.0'")]
)
@pytest.mark.parametrize("metric", ALL, ids=lambda metric: metric.name)
def test_a_reference_that_is_not_one_number_is_an_error(metric, options, shown):
    with pytest.raises(DataError) as caught:
        metric.function(["1", "2"], [["1"], options])
    assert str(caught.value) == (
        f"{metric.name}: the references of example 1 are {shown}; "
        "give each example one finite number, such as 3.8."
    )


@pytest.mark.parametrize("metric", ALL, ids=lambda metric: metric.name)
def test_correlations_of_nothing_are_an_error(metric):
    with pytest.raises(DataError, match=r"^There are no predictions to score"):
        metric.function([], [])


def test_correlations_are_better_when_higher():
    metrics = [(metric.name, metric.higher_is_better) for metric in ALL]
    assert metrics == [("pearson", True), ("spearman", True), ("pearson-spearman", True)]
