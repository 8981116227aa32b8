"""What a task's evaluation holds beside the metrics: each example with its answer, and what it counts for."""

import math
from dataclasses import replace

import pytest
from mixture_calls import words
from own_calls import FirstWord, classification, write_csv
from qa_calls import Reader, row, task_of
from toy_task import copy_task
from writer_calls import Writes, tokenizer

from prunekit.errors import PluginError
from prunekit.models import load_model, load_processor
from prunekit.tasks.answering import Answered, evaluation
from prunekit.tasks.base import Metric, MetricValue
from prunekit.tasks.fashion import FashionConfig, FashionMNIST
from prunekit.tasks.metrics import ACCURACY, TOP
from prunekit.tasks.mixture.task import Mixture, MixtureConfig
from prunekit.tasks.own.label_words import Text2TextClassification, Text2TextClassificationConfig
from prunekit.testing.tiny import tiny_model

ROWS = [("a", "good"), ("b b", "bad"), ("c", "bad"), ("d", "good")]
ANSWERS = {"a": "Good", "b b": "fair", "c": "good", "d": "good"}
ASKED = Answered(["x", "y"], [["a"], ["b"]], [3, 4], ["a", "c"])


def held(found):
    return list(zip(found.inputs, found.references, found.answers, found.lengths, strict=True))


def holds_identity(found):
    for name, influences in found.influences.items():
        assert len(influences) == found.metrics["n"], name
        wanted = math.hypot(*influences) / len(influences)
        assert found.metrics[f"{name}_stderr"] == pytest.approx(wanted, abs=1e-9), name
    return True


def labelled(folder, **keys):
    path = write_csv(folder / "a.csv", ROWS)
    settings = {"data": {"test": path}, "source": "text", "label": "label", "labels": ["good", "bad"], **keys}
    return Text2TextClassification(Text2TextClassificationConfig(**settings), tokenizer())


# By family


def test_of_text_to_text_it_holds_sources_references_and_answers():
    task = copy_task()
    found = task.evaluate(tiny_model("t5"), "test", batch_size=4, limit=3)
    examples = task.examples("test")[:3]
    assert found.inputs == [example.source for example in examples]
    assert found.references == [list(example.references) for example in examples]
    assert found.answers == task.predict(tiny_model("t5"), examples, batch_size=4)
    assert found.lengths == task.lengths("test")[:3]
    assert set(found.influences) == {"per", "wer"}
    assert holds_identity(found)


def test_of_labels_as_words_it_holds_what_answers_are_scored_against(tmp_path):
    task = labelled(tmp_path, words={"bad": "h"})
    found = task.evaluate(Writes(ANSWERS), "test", batch_size=3)
    assert sorted(held(found)) == [
        ("a", ["good"], "good", 2),
        ("b b", ["bad"], "fair", 3),
        ("c", ["bad"], "good", 2),
        ("d", ["good"], "good", 2),
    ]
    influences = dict(zip(found.inputs, zip(*found.influences.values(), strict=True), strict=True))
    assert list(found.influences) == ["accuracy", "unparsable"]
    assert influences == {"a": (50, -25), "b b": (-50, 75), "c": (-50, -25), "d": (50, -25)}


def test_of_texts_with_labels_it_holds_the_texts(tmp_path):
    path = write_csv(tmp_path / "a.csv", [("a b", "c", "good"), ("b", "d", "bad")], ("text", "more", "label"))
    task = classification({"test": path}, labels=["bad", "good"], text=["text", "more"])
    found = task.evaluate(FirstWord([[0.0, 1.0]] * 17, ("bad", "good")), "test", batch_size=2)
    assert found.inputs == ["a b\n\nc", "b\n\nd"]
    assert found.references == [["good"], ["bad"]]
    assert found.lengths == [6, 5]
    assert holds_identity(found)


def test_of_images_it_holds_their_places():
    task = FashionMNIST(FashionConfig(), load_processor("embedded:vit-fashion"))
    task.metrics = (ACCURACY, *TOP)
    found = task.evaluate(load_model("embedded:vit-fashion"), "test", batch_size=10, limit=12)
    assert (found.inputs[0], found.inputs[11]) == ("image 0", "image 11")
    assert found.lengths == [1] * 12
    # Of five ranks, the best answer.
    assert set(found.answers) <= set(task.labels)
    assert holds_identity(found)


def test_of_questions_it_holds_the_questions_and_not_their_windows(tmp_path):
    task = task_of(tmp_path, [row("a b c d e f g h", "d e"), row("a b", "b", question="of a")])
    found = task.evaluate(Reader({"b": 1}, {"b": 1}), "test", batch_size=2)
    assert held(found) == [
        ("a b c d e f g h\n\nof", ["d e"], "b", 24),
        ("a b\n\nof a", ["b"], "b", 7),
    ]
    assert holds_identity(found)


# A mixture


@pytest.fixture
def mixture(tmp_path):
    one = write_csv(tmp_path / "one.csv", [(text, "good") for text in "abcdef"])
    two = write_csv(tmp_path / "two.csv", [("g", "good"), ("h", "bad")])
    tasks = {"long": words({"test": one}), "short": words({"test": two}, metrics=["macro-f1", "accuracy"])}
    return Mixture(MixtureConfig(tasks=tasks), tokenizer())


HALF = {**dict.fromkeys("abc", "good"), **dict.fromkeys("def", "bad"), "g": "good", "h": "fair"}


def test_a_mixture_holds_each_tasks_examples_in_turn(mixture):
    found = mixture.evaluate(Writes(HALF), "test", batch_size=3)
    alone = [task.evaluate(Writes(HALF), "test", batch_size=3) for task in mixture.tasks.values()]
    assert held(found) == [*held(alone[0]), *held(alone[1])]
    assert (sorted(found.inputs[:6]), sorted(found.inputs[6:])) == (list("abcdef"), list("gh"))


def test_an_example_of_a_mixture_counts_in_its_own_task_and_in_the_mean(mixture):
    found = mixture.evaluate(Writes(HALF), "test", batch_size=3)
    names = ["mean", "long/accuracy", "long/unparsable", "short/macro-f1", "short/accuracy"]
    assert list(found.influences) == [*names, "short/unparsable"]
    by_text = {name: dict(zip(found.inputs, found.influences[name], strict=True)) for name in names}
    assert by_text["long/accuracy"] == pytest.approx(
        {**dict.fromkeys("abc", 50 * 8 / 6), **dict.fromkeys("def", -50 * 8 / 6), "g": 0, "h": 0}
    )
    assert by_text["short/accuracy"] == pytest.approx({**dict.fromkeys("abcdef", 0), "g": 200, "h": -200})
    assert found.influences["mean"] == pytest.approx(
        [
            (first + second) / 2
            for first, second in zip(
                found.influences["long/accuracy"], found.influences["short/macro-f1"], strict=True
            )
        ]
    )
    assert holds_identity(found)


def test_a_mean_of_a_metric_without_influences_has_none(mixture):
    plain = Metric("accuracy", True, lambda *given: MetricValue(*ACCURACY.function(*given)[:2]))
    mixture.tasks["long"].metrics = (plain,)
    found = mixture.evaluate(Writes(HALF), "test", batch_size=3)
    assert list(found.influences) == ["short/macro-f1", "short/accuracy", "short/unparsable"]


# Versions


def test_versions_are_those_of_all_that_is_scored(tmp_path, mixture):
    assert copy_task().metric_versions() == {"per": "1", "wer": "1"}
    task = labelled(tmp_path)
    task.metrics = tuple(replace(metric, version="2") for metric in task.metrics)
    assert task.metric_versions() == {"accuracy": "2", "unparsable": "2"}
    assert mixture.metric_versions() == dict.fromkeys(
        ["mean", "long/accuracy", "long/unparsable", "short/macro-f1", "short/accuracy", "short/unparsable"],
        "1",
    )


@pytest.mark.parametrize("version", ["", 2, None])
def test_a_version_that_is_no_text_is_a_fault_of_the_metrics_plugin(version):
    with pytest.raises(PluginError, match=r"^Metric 'seen': version is .*; give a text that changes with"):
        Metric("seen", True, ACCURACY.function, version=version)


# Fingerprints


def test_the_fingerprint_is_the_examples_and_not_the_models(tmp_path):
    task = labelled(tmp_path)
    one = task.evaluate(Writes(ANSWERS), "test", batch_size=3)
    other = task.evaluate(Writes(dict.fromkeys(ANSWERS, "bad")), "test", batch_size=2)
    assert one.answers != other.answers
    assert one.fingerprint == other.fingerprint == replace(one, lengths=[9] * 4).fingerprint
    assert len(one.fingerprint) == 64
    assert one.fingerprint != task.evaluate(Writes(ANSWERS), "test", batch_size=3, limit=3).fingerprint
    assert one.fingerprint != replace(one, references=[["good"]] * 4).fingerprint
    assert one.fingerprint != replace(one, inputs=["a", "b", "b c", "d"]).fingerprint


# What metrics give


def test_a_metric_may_give_no_influences():
    metrics = [Metric("bare", True, lambda *_: MetricValue(1.0, 0.5)), ACCURACY]
    found = evaluation(metrics, ASKED, has_sources=False)
    assert found.metrics["bare_stderr"] == 0.5
    assert found.influences == {"accuracy": [50, -50]}


@pytest.mark.parametrize(
    ("influences", "given"),
    [
        ([1.0], "1 influences, 1 of"),
        ([1.0, math.nan], "2 influences, 1 of"),
        ([0.0] * 3, "3 influences, 3 of"),
    ],
)
def test_influences_that_are_not_one_number_an_example_are_a_fault_of_the_plugin(influences, given):
    metric = Metric("odd", True, lambda *_: MetricValue(1.0, 0.5, influences))
    with pytest.raises(PluginError) as caught:
        evaluation([metric], ASKED, has_sources=False)
    assert str(caught.value) == (
        f"Metric 'odd' gave {given} them finite numbers, for 2 examples; give one number an example, or none "
        "at all."
    )
