"""Influences of the shipped metrics: together the standard error, each what its example does."""

import math
import random
from functools import cache
from types import SimpleNamespace

import pytest

from prunekit.tasks.metrics import METRICS, overlap

pytestmark = pytest.mark.slow

NUMBERS = ("pearson", "spearman", "pearson-spearman")
LABELS = ("accuracy", "top-1", "top-5", "f1", "macro-f1", "mcc")


@pytest.fixture(autouse=True)
def no_synonyms(monkeypatch):
    """METEOR without the data of WordNet."""
    monkeypatch.setattr(overlap, "_wordnet", lambda: SimpleNamespace(synsets=lambda *_: []))


@cache
def examples(name, count):
    """Answers and references of a metric, right and wrong ones, and some that are nonsense."""
    rng = random.Random(7)
    if name in NUMBERS:
        truths = [rng.randrange(26) / 5 for _ in range(count)]
        answers = [str(truth + rng.gauss(0, 1)) if rng.random() < 0.85 else "none" for truth in truths]
        return answers, [[str(truth)] for truth in truths]
    if name in LABELS:
        names = ["not_x", "x"] if name == "f1" else ["x", "y", "z"]
        truths = rng.choices(names, weights=range(1, len(names) + 1), k=count)
        answers = [truth if rng.random() < 0.6 else rng.choice([*names, "junk"]) for truth in truths]
        return answers, [[truth] for truth in truths]
    truths = [[rng.choice("abcde") for _ in range(rng.randrange(5, 12))] for _ in range(count)]
    answers = [" ".join(w if rng.random() < 0.8 else rng.choice("cdefg") for w in truth) for truth in truths]
    return answers, [[" ".join(truth), "a b"] for truth in truths]


every_metric = pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)


@every_metric
@pytest.mark.parametrize("count", [1, 2, 31])
def test_the_standard_error_is_that_of_the_influences(metric, count):
    value, stderr, influences = metric.function(*examples(metric.name, count))
    assert len(influences) == count
    assert stderr == pytest.approx(math.hypot(*influences) / count, abs=1e-9)
    assert math.fsum(influences) == pytest.approx(0, abs=1e-7)
    assert count < 31 or (stderr > 0 and math.isfinite(value))


@every_metric
def test_an_influence_is_what_one_more_of_its_example_does(metric):
    # To first order: with n examples, one more of an example moves the value by influence / (n + 1).
    answers, references = (list(column) * 30 for column in examples(metric.name, 12))
    value, _, influences = metric.function(answers, references)
    found = [
        (metric.function([*answers, answers[i]], [*references, references[i]])[0] - value)
        * (len(answers) + 1)
        for i in range(12)
    ]
    assert influences[:12] == pytest.approx(found, rel=0.05, abs=0.5)


@every_metric
def test_without_anything_right_or_that_varies_there_are_influences_still(metric):
    truths = [["1"], ["2"]] if metric.name in NUMBERS else [["x"], ["not_x"]]
    _, stderr, influences = metric.function(["none", "none"], truths)
    assert len(influences) == 2
    assert stderr == pytest.approx(math.hypot(*influences) / 2)
