"""Top-k accuracy, F1, macro-F1, Matthews' correlation: as scikit-learn's, by hand, and of foreign answers."""

import math
import random
from functools import partial

import numpy as np
import pytest
from sklearn.metrics import f1_score, matthews_corrcoef, top_k_accuracy_score

from prunekit.errors import DataError
from prunekit.tasks.metrics import (
    ACCURACY,
    F1,
    MACRO_F1,
    MCC,
    TOP,
    accuracy,
    f1,
    for_classes,
    macro_f1,
    mcc,
    top_k,
)

WORDS = ["equivalent", "not_equivalent"]
THREE = ["entailment", "neutral", "contradiction"]


def drawn(labels, count=200, seed=0):
    """Labels, and answers that are right two times in three."""
    rng = random.Random(seed)
    truths = rng.choices(labels, weights=range(1, len(labels) + 1), k=count)
    return [truth if rng.random() < 2 / 3 else rng.choice(labels) for truth in truths], truths


def one_each(labels):
    return [[label] for label in labels]


@pytest.mark.parametrize("k", [1, 3, 5])
def test_top_k_is_that_of_scikit_learn(k):
    rng = np.random.default_rng(0)
    logits, truths = rng.normal(size=(80, 8)), rng.integers(8, size=80)
    ranked = ["\n".join(map(str, row)) for row in np.argsort(-logits)]
    wanted = top_k_accuracy_score(truths, logits, k=k, labels=range(8))
    value, stderr, _ = top_k(k, ranked, one_each(map(str, truths)))
    assert value == pytest.approx(100 * wanted)
    assert stderr == pytest.approx(100 * math.sqrt(wanted * (1 - wanted) / 80))


def test_top_5_of_fewer_than_five_classes_takes_all():
    assert top_k(5, ["a\nb", "b\na"], one_each(["b", "c"])).value == pytest.approx(50)


def test_top_k_compares_labels_whole_and_takes_any_reference():
    assert top_k(5, ["tabby cat\ndog"], one_each(["cat"])).value == 0
    assert top_k(5, ["tabby cat\ndog"], [["cat", "dog"]]).value == 100


def test_top_1_and_top_5_are_better_when_higher_and_look_at_so_many_answers():
    described = [(metric.name, metric.higher_is_better, metric.ranks) for metric in TOP]
    assert described == [("top-1", True, 1), ("top-5", True, 5)]


def test_each_top_k_is_of_its_own_k():
    assert [metric.function(["a\nb"], one_each(["b"])).value for metric in TOP] == [0, 100]


def test_f1_is_that_of_scikit_learn():
    answers, truths = drawn(WORDS)
    wanted = f1_score(truths, answers, pos_label="equivalent")
    assert f1(answers, one_each(truths)).value == pytest.approx(100 * wanted)


def test_f1_and_its_error_by_hand():
    # TP 2, FP 1, FN 1: 4 / 6. 2 tp - F1 (2 tp + wrong) is 2/3, 2/3, -2/3, -2/3 and 0, and the sum below 6.
    answers, truths = ["1", "1", "1", "0", "0"], ["1", "1", "0", "1", "0"]
    value, stderr, _ = f1(answers, one_each(truths))
    assert value == pytest.approx(100 * 4 / 6)
    assert stderr == pytest.approx(100 * math.sqrt(4 * (2 / 3) ** 2) / 6)


@pytest.mark.parametrize(
    ("positive", "negative"),
    [
        ("equivalent", "not_equivalent"),
        ("duplicate", "not_duplicate"),
        ("acceptable", "unacceptable"),
        ("hate", "non-hate"),
        ("stop", "No stop"),
        ("1", "0"),
        ("True", "False"),
        ("yes", "no"),
        ("positive", "negative"),
        ("LABEL_1", "LABEL_0"),
    ],
)
def test_f1_tells_the_positive_class_from_the_labels(positive, negative):
    # Always answering "positive" finds it 1 time in 4: precision 1/4, recall 1; "negative" finds nothing.
    truths = one_each([negative, positive, negative, negative])
    assert f1([positive] * 4, truths).value == pytest.approx(100 * 2 * 0.25 / 1.25)
    assert f1([negative] * 4, truths).value == 0


def test_f1_takes_the_positive_class_it_is_given():
    answers, truths = drawn(["ham", "spam"])
    wanted = f1_score(truths, answers, pos_label="spam")
    assert f1(answers, one_each(truths), positive="spam").value == pytest.approx(100 * wanted)


@pytest.mark.parametrize(
    ("answers", "truth", "value"),
    [
        (["equivalent", "not_equivalent"], "equivalent", 100 * 2 / 3),
        (["equivalent", "not_equivalent"], "not_equivalent", 0.0),
        (["junk", "not_equivalent"], "not_equivalent", 0.0),
        (["junk", "1"], "1", 100 * 2 / 3),
        (["0", "0"], "0", 0.0),
        (["not_spam", "spam"], "spam", 100 * 2 / 3),
    ],
)
def test_f1_of_references_of_one_class_tells_it_where_it_can(answers, truth, value):
    assert f1(answers, one_each([truth] * 2)).value == pytest.approx(value)


def test_f1_of_labels_that_tell_nothing_is_an_error():
    with pytest.raises(
        DataError,
        match=r"^f1: the labels do not tell which class is positive; the references name 'ham', 'spam'\. "
        r"Use macro-f1, mcc or accuracy, which need none, or labels such as 'spam' and 'not_spam'",
    ):
        f1(["ham", "spam"], one_each(["ham", "spam"]))


def test_f1_of_more_than_two_classes_is_an_error():
    with pytest.raises(
        DataError,
        match=r"^f1 is for two classes, and the references name 6: 'a', 'b', 'c', 'd', 'e', …; use mac",
    ):
        f1(list("abcdef"), one_each("abcdef"))


def test_f1_of_a_positive_class_that_is_not_there_is_an_error():
    with pytest.raises(
        DataError, match=r"^f1: the positive label is to be 'spma', but the references name 'ham', 'spam'\.$"
    ):
        f1(["ham", "spam"], one_each(["ham", "spam"]), positive="spma")


def test_an_unrecognised_answer_to_a_negative_example_costs_f1_as_much_as_the_wrong_class():
    truths = one_each(["equivalent", "not_equivalent", "not_equivalent"])
    right_then_junk = f1(["equivalent", "not", "<pad>"], truths)
    assert right_then_junk == f1(["equivalent"] * 3, truths)
    assert right_then_junk.value == pytest.approx(50.0)


def test_an_unrecognised_answer_to_a_positive_example_is_a_miss():
    truths = one_each(["equivalent", "equivalent", "not_equivalent"])
    assert f1(["equivalent", "equivalen", "not_equivalent"], truths).value == pytest.approx(100 * 2 / 3)


def test_classes_tell_f1_its_positive_one_before_there_are_answers():
    metrics = for_classes([ACCURACY, F1], WORDS)
    assert [metric.name for metric in metrics] == ["accuracy", "f1"]
    # Neither the one class of the references nor a foreign answer that looks like its negation matters.
    assert metrics[1].function(["not_equivalent", "not_not_equivalent"], one_each(WORDS[1:] * 2)).value == 0


def test_the_positive_class_can_be_said():
    _, metric = for_classes([ACCURACY, F1], ["ham", "spam"], "spam")
    answers, truths = drawn(["ham", "spam"])
    wanted = f1_score(truths, answers, pos_label="spam")
    assert metric.function(answers, one_each(truths)).value == pytest.approx(100 * wanted)
    assert for_classes([ACCURACY, MCC], ["ham", "spam"]) == (ACCURACY, MCC)


@pytest.mark.parametrize(
    ("classes", "positive", "text"),
    [
        (["ham", "spam"], None, "f1: the labels do not tell which class is positive; "),
        (["ham", "spam"], "eggs", "f1: the positive label is to be 'eggs', but "),
        (THREE, "neutral", "f1 is for two classes, and "),
    ],
)
def test_classes_that_f1_cannot_be_told_of_are_an_error(classes, positive, text):
    with pytest.raises(DataError) as caught:
        for_classes([F1], classes, positive)
    assert str(caught.value).startswith(text)


def test_a_positive_class_that_no_metric_asks_for_is_an_error():
    with pytest.raises(
        DataError, match=r"^The positive label is to be 'spam', which only f1 asks for; add f1"
    ):
        for_classes([ACCURACY, MACRO_F1], ["ham", "spam"], "spam")


@pytest.mark.parametrize("metric", [ACCURACY, F1, MACRO_F1, MCC], ids=lambda metric: metric.name)
def test_a_foreign_answer_is_never_dropped(metric):
    answers, truths = drawn(WORDS)
    right = [index for index, answer in enumerate(answers) if answer == truths[index]]
    spoilt = ["<extra_id_0>" if index in right[::4] else answer for index, answer in enumerate(answers)]
    kept = [index for index, answer in enumerate(spoilt) if answer in WORDS]
    dropped = metric.function([spoilt[i] for i in kept], one_each(truths[i] for i in kept))
    found = metric.function(spoilt, one_each(truths))
    assert found.value < dropped.value
    assert found.value < metric.function(answers, one_each(truths)).value


def test_macro_f1_is_that_of_scikit_learn():
    answers, truths = drawn(THREE)
    wanted = f1_score(truths, answers, average="macro")
    assert macro_f1(answers, one_each(truths)).value == pytest.approx(100 * wanted)


def test_macro_f1_gives_no_class_credit_for_an_unrecognised_answer():
    answers, truths = drawn(THREE)
    answers = ["junk" if index % 3 == 0 else answer for index, answer in enumerate(answers)]
    wanted = f1_score(truths, answers, average="macro", labels=THREE)
    assert macro_f1(answers, one_each(truths)).value == pytest.approx(100 * wanted)


def test_macro_f1_of_one_class_is_its_f1_and_has_that_error():
    # TP 3, FN 1: 6 / 7. Residuals 2 - 12/7 three times and -6/7, over 7.
    value, stderr, _ = macro_f1(["a", "a", "a", "junk"], one_each("aaaa"))
    assert value == pytest.approx(100 * 6 / 7)
    assert stderr == pytest.approx(100 * math.sqrt(3 * (2 / 7) ** 2 + (6 / 7) ** 2) / 7)


@pytest.mark.parametrize("labels", [WORDS, THREE], ids=["two", "three"])
def test_mcc_is_that_of_scikit_learn(labels):
    answers, truths = drawn(labels)
    wanted = matthews_corrcoef(truths, answers)
    assert mcc(answers, one_each(truths)).value == pytest.approx(100 * wanted)


def test_mcc_of_two_classes_is_matthews_formula():
    # TP 3, TN 2, FP 1, FN 2: (3 * 2 - 1 * 2) / sqrt(4 * 5 * 3 * 4).
    answers, truths = list("11100100"), list("11111000")
    assert mcc(answers, one_each(truths)).value == pytest.approx(100 * 4 / math.sqrt(240))


def test_unrecognised_answers_are_together_one_class_of_mcc_that_is_never_true():
    answers, truths = drawn(THREE)
    junk = [f"junk {index}" if index % 3 == 0 else answer for index, answer in enumerate(answers)]
    wanted = matthews_corrcoef(truths, ["?" if answer not in THREE else answer for answer in junk])
    assert mcc(junk, one_each(truths)).value == pytest.approx(100 * wanted)


@pytest.mark.parametrize("metric", [F1, MACRO_F1, MCC], ids=lambda metric: metric.name)
def test_nonsense_alone_scores_nothing(metric):
    _, truths = drawn(WORDS)
    assert metric.function(["<extra_id_0>"] * len(truths), one_each(truths))[:2] == (0.0, 0.0)


@pytest.mark.parametrize("metric", [F1, MACRO_F1, MCC], ids=lambda metric: metric.name)
def test_more_nonsense_scores_less(metric):
    _, truths = drawn(WORDS)
    shares = [0, 3, 6, 9]
    junk = [["" if index % 10 < share else t for index, t in enumerate(truths)] for share in shares]
    values = [metric.function(answers, one_each(truths)).value for answers in junk]
    assert values == sorted(values, reverse=True)
    assert values[0] == pytest.approx(100)
    assert values[1] < 95


def test_mcc_of_a_model_that_says_one_thing_only_is_0():
    _, truths = drawn(WORDS)
    assert mcc(["equivalent"] * len(truths), one_each(truths))[:2] == (0.0, 0.0)


def test_mcc_of_references_of_one_class_is_0():
    assert mcc(["0", "1"], one_each(["1", "1"]))[:2] == (0.0, 0.0)


@pytest.mark.parametrize("metric", [F1, MACRO_F1, MCC], ids=lambda metric: metric.name)
def test_perfect_answers_score_100_and_have_no_error(metric):
    _, truths = drawn(WORDS)
    value, stderr, _ = metric.function(truths, one_each(truths))
    assert value == pytest.approx(100)
    assert stderr == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("metric", [F1, MACRO_F1, MCC], ids=lambda metric: metric.name)
def test_an_answer_that_equals_any_reference_is_right(metric):
    references = [["0", "1"], ["0"], ["1"], ["1"]]
    wanted = metric.function(["1", "0", "1", "0"], one_each(["1", "0", "1", "1"]))
    assert metric.function(["1", "0", "1", "0"], references) == wanted


def test_mcc_of_two_classes_has_the_error_of_pearsons_correlation():
    # Cells (1,1) 2, (0,0) 1, (0,1) 1, (1,0) 0 of (truth, answer), as numbers: r = 1 / sqrt 3, u and v below.
    answers, truths = list("1101"), list("1100")
    r = 1 / math.sqrt(3)
    us = [1, 1, -1, -1]
    vs = [r, r, -3 * r, r]
    influences = [u * v - r / 2 * (u * u + v * v) for u, v in zip(us, vs, strict=True)]
    value, stderr, _ = mcc(answers, one_each(truths))
    assert value == pytest.approx(100 * r)
    assert stderr == pytest.approx(100 * math.sqrt(sum(i * i for i in influences)) / 4)


@pytest.mark.parametrize("function", [accuracy, partial(top_k, 5), f1, macro_f1, mcc])
def test_labels_without_a_reference_are_an_error(function):
    with pytest.raises(DataError, match=r"^Example 1 has no reference; give at least one"):
        function(["1", "0"], [["1"], []])


def test_scores_of_labels_are_better_when_higher():
    metrics = [(metric.name, metric.higher_is_better) for metric in (F1, MACRO_F1, MCC)]
    assert metrics == [("f1", True), ("macro-f1", True), ("mcc", True)]
