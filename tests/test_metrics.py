"""Phone and word error rates and accuracy on cases worked by hand; which metrics there are."""

import math
import os
import random
import subprocess
import sys

import pytest
from nltk.metrics.distance import edit_distance
from sklearn.metrics import accuracy_score

from prunekit.errors import DataError
from prunekit.tasks.metrics import ACCURACY, METRICS, PER, WER, accuracy, phone_error_rate, word_error_rate


def test_perfect_predictions_have_no_error():
    predictions, references = ["HH AH L OW", "K AE T"], [["HH AH L OW"], ["K AE T"]]
    assert phone_error_rate(predictions, references)[:2] == (0.0, 0.0)
    assert word_error_rate(predictions, references)[:2] == (0.0, 0.0)


def test_per_counts_the_edits_of_nltk():
    rng = random.Random(0)
    predictions, truths = ([rng.choices("ABCDE", k=rng.randrange(9)) for _ in range(60)] for _ in range(2))
    edits = sum(edit_distance(p, t) for p, t in zip(predictions, truths, strict=True))
    found = phone_error_rate([" ".join(p) for p in predictions], [[" ".join(t)] for t in truths])
    assert found.value == pytest.approx(100 * edits / sum(map(len, truths)))


def test_per_counts_a_substitution_a_deletion_and_an_insertion():
    # 1 + 1 + 1 edits over 3 + 4 + 2 phones.
    predictions = ["K AH T", "HH AH OW", "G OW Z"]
    references = [["K AE T"], ["HH AH L OW"], ["G OW"]]
    assert phone_error_rate(predictions, references).value == pytest.approx(100 * 3 / 9)


def test_per_standard_error_is_that_of_a_ratio():
    # Edits 0 and 2 over 4 and 4 phones: rate 1/4, residuals -1 and 1, so sqrt(2) / 8.
    value, stderr, _ = phone_error_rate(["A B C D", "A B X X"], [["A B C D"], ["A B C D"]])
    assert value == pytest.approx(25.0)
    assert stderr == pytest.approx(100 * math.sqrt(2) / 8)


def test_per_takes_the_nearest_reference():
    # 3 edits from the first reference, 1 from the second, whose 4 phones count.
    references = [["T AH M EY T OW", "AH M EY T"]]
    assert phone_error_rate(["AH M AA T"], references).value == pytest.approx(100 * 1 / 4)


def test_per_takes_the_longer_of_two_equally_near_references():
    # "A B" is one edit from "A" and from "A B C"; the three phones count.
    assert phone_error_rate(["A B"], [["A", "A B C"]]).value == pytest.approx(100 * 1 / 3)
    assert phone_error_rate(["A B"], [["A B C", "A"]]).value == pytest.approx(100 * 1 / 3)


def test_an_empty_prediction_deletes_every_phone():
    assert phone_error_rate([""], [["K AE T"]]).value == pytest.approx(100.0)
    assert word_error_rate([""], [["K AE T"]]).value == pytest.approx(100.0)


def test_endless_garbage_scores_above_100_percent():
    # 2 of the 10 predicted phones are right at best: 8 insertions over 2 phones.
    assert phone_error_rate(["G OW" + " L" * 8], [["G OW"]]).value == pytest.approx(400.0)


def test_phones_are_compared_whole_not_by_character():
    # As text "AA" and "AE" differ in one character of two; as phones they differ wholly.
    assert phone_error_rate(["AA"], [["AE"]]).value == pytest.approx(100.0)


def test_wer_counts_a_word_right_if_any_reference_matches():
    # 1 of 4 wrong: 25 percent, sqrt(0.25 * 0.75 / 4).
    predictions = ["D AE T AH", "D EY T AH", "K AE T", "K AH T"]
    references = [["D EY T AH", "D AE T AH"], ["D EY T AH", "D AE T AH"], ["K AE T"], ["K AE T"]]
    value, stderr, _ = word_error_rate(predictions, references)
    assert value == pytest.approx(25.0)
    assert stderr == pytest.approx(100 * math.sqrt(0.25 * 0.75 / 4))


def test_surrounding_space_is_no_error():
    assert phone_error_rate([" K  AE T "], [["K AE T"]]).value == 0
    assert word_error_rate([" K  AE T "], [["K AE T"]]).value == 0


@pytest.mark.parametrize("function", [phone_error_rate, word_error_rate, accuracy])
def test_input_that_cannot_be_scored_is_an_error(function):
    with pytest.raises(DataError, match=r"^There are no predictions to score; give at least one example\.$"):
        function([], [])
    with pytest.raises(DataError, match=r"^2 predictions were given for 1 lists of references"):
        function(["K", "G"], [["K"]])
    with pytest.raises(DataError, match=r"^Example 1 has no reference; give at least one"):
        function(["K", "G"], [["K"], []])


def test_per_of_empty_references_is_an_error():
    with pytest.raises(DataError, match="every reference is empty, so there are no phones to divide by"):
        phone_error_rate(["K"], [[""]])


def test_accuracy_counts_equal_labels_and_has_a_binomial_error():
    # 3 of 5 right: 60 percent, sqrt(0.6 * 0.4 / 5).
    predictions = ["red", "red", "blue", "green", "noun.act"]
    references = [["red"], ["green"], ["blue", "red"], ["green"], ["noun.action"]]
    value, stderr, _ = accuracy(predictions, references)
    assert value == pytest.approx(60.0)
    assert stderr == pytest.approx(100 * math.sqrt(0.6 * 0.4 / 5))


def test_accuracy_is_that_of_scikit_learn():
    rng = random.Random(0)
    answers, truths = rng.choices(["a", "b", "junk"], k=60), rng.choices(["a", "b", "c"], k=60)
    wanted = accuracy_score(truths, answers)
    assert accuracy(answers, [[truth] for truth in truths]).value == pytest.approx(100 * wanted)


def test_labels_are_compared_as_they_are():
    assert accuracy(["Ankle boot", "Bag "], [["Ankle boot"], ["Bag"]]).value == pytest.approx(50.0)


def test_accuracy_of_one_example_has_no_error():
    assert accuracy(["red"], [["red"]])[:2] == (100.0, 0.0)


def test_accuracy_is_better_when_higher():
    assert (ACCURACY.name, ACCURACY.higher_is_better) == ("accuracy", True)


def test_both_rates_are_better_when_lower():
    assert [(metric.name, metric.higher_is_better) for metric in (PER, WER)] == [
        ("per", False),
        ("wer", False),
    ]


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_metrics_that_ship_look_at_answers_and_references_alone(metric):
    assert not metric.wants_sources
    assert metric.ranks == (5 if metric.name == "top-5" else 1)


LISTING = """
import sys
from prunekit.plugins import Registry, plugin_sources
metrics = Registry(plugin_sources()).metrics
heavy = ("torch", "transformers", "datasets", "scipy", "sklearn", "numpy", "nltk", "rouge_score", "sacrebleu")
print(*metrics)
print("loaded:", *[name for name in heavy if name in sys.modules])
"""


def test_metrics_are_listed_without_loading_what_computes_them():
    # What a plugin's hook imports is the plugin's affair.
    environment = {**os.environ, "PRUNEKIT_PLUGINS": ""}
    command = [sys.executable, "-c", LISTING]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    names, loaded = done.stdout.splitlines()
    assert loaded == "loaded:"
    assert set(names.split()) == {
        *("accuracy", "top-1", "top-5", "f1", "macro-f1", "mcc"),
        *("pearson", "spearman", "pearson-spearman"),
        *("exact-match", "token-f1"),
        *("rouge1", "rouge2", "rougeL", "rougeLsum", "meteor"),
        *("bleu", "chrf"),
        *("per", "wer"),
    }
