"""Exact match and token F1 of short answers, by hand and against the SQuAD rules."""

import math

import pytest

from prunekit.errors import DataError
from prunekit.tasks.metrics import EXACT_MATCH, TOKEN_F1, exact_match, token_f1


@pytest.mark.parametrize(
    ("prediction", "reference"),
    [
        ("The Eiffel Tower", "eiffel tower"),
        ("Eiffel Tower.", "an Eiffel  Tower"),
        ("U.S.", "us"),
        ("a.m.", "am"),
        ("ten-year", "tenyear"),
        ("A.", ""),
    ],
)
def test_case_articles_punctuation_and_space_do_not_count(prediction, reference):
    assert exact_match([prediction], [[reference]]).value == 100
    assert token_f1([prediction], [[reference]]).value == 100


@pytest.mark.parametrize(
    ("prediction", "reference"), [("theatre", "atre"), ("Ana", "n"), ("the-end", "end"), ("café", "cafe")]
)
def test_what_only_looks_like_an_article_counts(prediction, reference):
    assert exact_match([prediction], [[reference]]).value == 0


def test_exact_match_takes_any_reference_and_has_a_binomial_error():
    # 3 of 4 right: sqrt(0.75 * 0.25 / 4).
    predictions = ["Paris", "in Paris", "1889", ""]
    references = [["paris"], ["Paris", "in Paris"], ["in 1889"], [""]]
    value, stderr, _ = exact_match(predictions, references)
    assert value == pytest.approx(75)
    assert stderr == pytest.approx(100 * math.sqrt(0.75 * 0.25 / 4))


def test_token_f1_by_hand():
    # 2 of 3 words predicted are among the 4 of the reference: 2 * 2 / 7.
    value, *_ = token_f1(["green Eiffel Tower"], [["the Eiffel Tower of Paris"]])
    assert value == pytest.approx(100 * 4 / 7)


def test_token_f1_counts_a_repeated_word_as_often_as_both_have_it():
    # "no" twice of three times: 2 * 2 / 5.
    assert token_f1(["no no no"], [["no no"]]).value == pytest.approx(100 * 4 / 5)


def test_token_f1_takes_the_best_reference():
    assert token_f1(["Eiffel Tower"], [["tower", "eiffel tower", "x"]]).value == 100


def test_token_f1_has_the_error_of_a_mean():
    # 1, 0 and 2/3: the squares of the distances from 5/9, over 9.
    value, stderr, _ = token_f1(["a b c", "x", "b"], [["b c"], ["y"], ["b c"]])
    assert value == pytest.approx(100 * 5 / 9)
    squares = [(score - 5 / 9) ** 2 for score in (1, 0, 2 / 3)]
    assert stderr == pytest.approx(100 * math.sqrt(sum(squares)) / 3)


@pytest.mark.parametrize("function", [exact_match, token_f1])
def test_a_question_without_an_answer_wants_none(function):
    assert function(["", "Paris"], [[""], [""]]).value == pytest.approx(50)


def test_a_reference_of_an_article_alone_shares_no_word_with_anything():
    # As in SQuAD 1.1's script, where the normalised texts are equal, and no word is common to them.
    assert exact_match(["..."], [["the"]]).value == 100
    assert token_f1(["..."], [["the"]]).value == 0


@pytest.mark.parametrize("function", [exact_match, token_f1])
def test_no_answer_where_there_is_one_is_wrong(function):
    assert function([""], [["Paris"]]).value == 0


@pytest.mark.parametrize("function", [exact_match, token_f1])
def test_answers_without_a_reference_are_an_error(function):
    with pytest.raises(DataError, match=r"^Example 0 has no reference; give at least one"):
        function(["Paris"], [[]])


def test_scores_of_answers_are_better_when_higher():
    metrics = [(metric.name, metric.higher_is_better) for metric in (EXACT_MATCH, TOKEN_F1)]
    assert metrics == [("exact-match", True), ("token-f1", True)]
