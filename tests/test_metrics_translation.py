"""Corpus BLEU and chrF against sacrebleu, and the jackknife of both by hand."""

import math
import random

import pytest
from sacrebleu.metrics import BLEU as SacreBLEU
from sacrebleu.metrics import CHRF as SacreCHRF

from prunekit.errors import DataError
from prunekit.tasks.metrics import BLEU, CHRF, bleu, chrf

CASES = [(bleu, SacreBLEU), (chrf, SacreCHRF)]
PREDICTIONS = [
    "The dog bit the man.",
    "It was not unexpected.",
    "The man bit him first, of course.",
    "",
    "Nobody knew the reason why he did it .",
]
REFERENCES = [
    ["The dog had bit the man.", "The dog bit the man!"],
    ["It wasn't surprising.", "No one was surprised.", "It was not unexpected at all."],
    ["The man had bitten the dog, of course."],
    ["Silence."],
    ["Nobody knew why he did it."],
]
# sacrebleu wants the first references of all, then the second ones, None where an example has none left.
STREAMS = [[options[i] if i < len(options) else None for options in REFERENCES] for i in range(3)]


def without(items, index):
    return [*items[:index], *items[index + 1 :]]


@pytest.mark.parametrize(("function", "scorer"), CASES, ids=["bleu", "chrf"])
def test_the_value_is_that_of_sacrebleu(function, scorer):
    wanted = scorer().corpus_score(PREDICTIONS, STREAMS).score
    assert wanted > 20
    assert function(PREDICTIONS, REFERENCES).value == pytest.approx(wanted)


@pytest.mark.parametrize(("function", "scorer"), CASES, ids=["bleu", "chrf"])
def test_the_error_is_the_jackknifes(function, scorer):
    left = [
        scorer()
        .corpus_score(without(PREDICTIONS, index), [without(stream, index) for stream in STREAMS])
        .score
        for index in range(5)
    ]
    mean = sum(left) / 5
    wanted = math.sqrt(4 / 5 * sum((value - mean) ** 2 for value in left))
    assert wanted > 1
    assert function(PREDICTIONS, REFERENCES).stderr == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("scorer", "signature"),
    [
        (SacreBLEU, "case:mixed|eff:no|tok:13a|smooth:exp"),
        (SacreCHRF, "case:mixed|eff:yes|nc:6|nw:0|space:no"),
    ],
    ids=["bleu", "chrf"],
)
def test_the_signature_in_the_docstring_is_sacrebleus(scorer, signature):
    metric = scorer()
    metric.corpus_score(["a"], [["a"]])
    assert signature in str(metric.get_signature())
    assert signature in {SacreBLEU: bleu, SacreCHRF: chrf}[scorer].__doc__


@pytest.mark.parametrize(("function", "scorer"), CASES, ids=["bleu", "chrf"])
def test_the_error_agrees_with_a_bootstrap(function, scorer):
    rng = random.Random(0)
    words = ["the", "a", "dog", "cat", "man", "bit", "saw", "ran", "old", "red", "big", "and"]
    truths = [" ".join(rng.choices(words, k=rng.randrange(5, 10))) for _ in range(60)]
    answers = [" ".join(w if rng.random() < 0.8 else rng.choice(words) for w in t.split()) for t in truths]
    values = []
    for _ in range(200):
        chosen = rng.choices(range(60), k=60)
        metric = scorer()
        values.append(metric.corpus_score([answers[i] for i in chosen], [[truths[i] for i in chosen]]).score)
    mean = sum(values) / 200
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / 199)
    assert function(answers, [[truth] for truth in truths]).stderr == pytest.approx(spread, rel=0.15)


@pytest.mark.parametrize("function", [bleu, chrf])
def test_a_corpus_of_one_example_has_no_error(function):
    value, stderr, _ = function(["the old dog ran"], [["the old dog ran"]])
    assert value == pytest.approx(100)
    assert stderr == 0


@pytest.mark.parametrize("function", [bleu, chrf])
def test_nothing_but_empty_texts_scores_0(function):
    assert function(["", ""], [["a dog"], ["a cat"]])[:2] == (0.0, 0.0)


@pytest.mark.parametrize("function", [bleu, chrf])
def test_a_corpus_without_a_reference_is_an_error(function):
    with pytest.raises(DataError, match=r"^Example 1 has no reference; give at least one"):
        function(["a", "b"], [["a"], []])


def test_a_hundred_answers_in_tokens_print_no_warning(caplog):
    bleu(["the dog ran ."] * 100, [["the dog ran ."]] * 100)
    assert caplog.text == ""


def test_scores_of_translations_are_better_when_higher():
    metrics = [(metric.name, metric.higher_is_better) for metric in (BLEU, CHRF)]
    assert metrics == [("bleu", True), ("chrf", True)]
