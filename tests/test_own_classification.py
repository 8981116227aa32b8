"""The task text-classification: pairs, cut-off, regression, keys, what does not fit."""

from __future__ import annotations

import re

import pytest
import torch
from own_calls import (
    REVIEWS,
    FirstWord,
    classification,
    tiny_bert,
    warnings_in,
    write_csv,
)
from pydantic import ValidationError

from prunekit.errors import DataError
from prunekit.tasks.own.classification import TextClassificationConfig
from prunekit.testing.tiny import tiny_model

NAMES = ("bad", "good")
# Logits by word: a 4, b 5, ..., good 12, bad 13, fair 14.
FIRST_OF_TWO = [[0.0, 0.0]] * 4 + [[1.0, 0.0]] * 13


@pytest.fixture
def path(tmp_path):
    return write_csv(tmp_path / "a.csv", REVIEWS)


# Pairs


def pairs_path(tmp_path):
    rows = [("a b", "c", "yes"), ("d", "e f", "no")]
    return write_csv(tmp_path / "p.csv", rows, header=("premise", "hypothesis", "label"))


def test_two_columns_are_a_pair_with_types_of_their_own(tmp_path):
    task = classification(
        {"test": pairs_path(tmp_path)}, text=["premise", "hypothesis"], labels=["no", "yes"]
    )
    found = {each.label: each.features for each in task.examples("test")}
    assert found[1] == {"input_ids": [2, 4, 5, 3, 6, 3], "token_type_ids": [0, 0, 0, 0, 1, 1]}
    assert found[0] == {"input_ids": [2, 7, 3, 8, 9, 3], "token_type_ids": [0, 0, 0, 1, 1, 1]}


def test_of_a_pair_the_longer_text_loses_its_end(tmp_path):
    task = classification(
        {"test": pairs_path(tmp_path)}, text=["premise", "hypothesis"], labels=["no", "yes"], max_length=5
    )
    found = {each.label: each.features["input_ids"] for each in task.examples("test")}
    assert found == {1: [2, 4, 3, 6, 3], 0: [2, 7, 3, 8, 3]}
    assert task.truncated == {"test": 2}


# Cut-off


def test_texts_that_were_cut_off_are_counted_and_told(path, caplog):
    task = classification({"test": path}, labels=["bad", "good"], max_length=4)
    assert sorted(task.lengths("test")) == [4, 4, 4, 4]
    assert all(each.features["input_ids"][-1] == 3 for each in task.examples("test"))
    assert task.truncated == {"test": 2}
    assert warnings_in(caplog) == [
        "Task text-classification, test: 2 of 4 texts are longer than 4 tokens and were cut off there."
    ]


def test_nothing_is_told_where_no_text_is_too_long(path, caplog):
    task = classification({"test": path}, labels=["bad", "good"], max_length=7)
    assert max(task.lengths("test")) == 7
    assert (task.truncated, warnings_in(caplog)) == ({"test": 0}, [])


# Regression


SCORED = [("a", "0.5"), ("b c", "-1.25"), ("good", "3"), ("bad", "2e0")]


def test_a_regression_hands_out_numbers_and_scores_the_models(tmp_path):
    path = write_csv(tmp_path / "r.csv", SCORED)
    task = classification({"test": path}, regression=True)
    batch = task.collate(task.examples("test"))
    assert batch["labels"].dtype == torch.float32
    assert sorted(batch["labels"].tolist()) == [-1.25, 0.5, 2.0, 3.0]
    numbers = {4: 0.5, 5: -1.25, 12: 3.0, 13: 2.0}
    model = FirstWord([[numbers.get(word, 0.0)] for word in range(17)], ["LABEL_0"])
    examples = task.examples("test")
    assert task.predict(model, examples, batch_size=2) == [task.reference(each) for each in examples]
    found = task.evaluate(model, "test", batch_size=3).metrics
    assert (found["pearson"], found["spearman"]) == (pytest.approx(100), pytest.approx(100))
    assert (task.primary_metric, task.higher_is_better, task.labels) == ("pearson", True, ())


def test_a_regression_gives_a_loss(tmp_path):
    task = classification({"test": write_csv(tmp_path / "r.csv", SCORED)}, regression=True)
    model = tiny_bert(num_labels=1)
    batch = task.collate(task.examples("test"))
    output = model(**batch)
    assert output.loss.item() == pytest.approx(
        (output.logits.squeeze() - batch["labels"]).square().mean().item()
    )


@pytest.mark.parametrize(
    ("value", "found"), [("good", "'good'"), ("", "nothing"), ("nan", "'nan'"), ("inf", "'inf'")]
)
def test_a_label_that_is_no_number_is_an_error(tmp_path, value, found):
    path = write_csv(tmp_path / "r.csv", [("a", "1"), ("b", value)])
    with pytest.raises(DataError) as caught:
        classification({"test": path}, regression=True)
    assert str(caught.value) == (
        f"Task text-classification: {path}, line 3: 'label' holds {found}, but a finite number is needed. "
        "Correct "
        "the row."
    )


def test_a_regression_refuses_a_classifier(tmp_path):
    task = classification({"test": write_csv(tmp_path / "r.csv", SCORED)}, regression=True)
    with pytest.raises(
        DataError,
        match=r"^Task text-classification: a regression needs one output, but the model has 3\. Use a model "
        r"with "
        r"num_labels 1, or leave task\.regression out\.$",
    ):
        task.evaluate(tiny_model("bert"), "test", batch_size=2)


# The recipe's keys


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"text": ["a", "b", "c"]}, "text names 3 columns; name one, or two for pairs"),
        ({"text": []}, "text names 0 columns"),
        ({"labels": ["a", "b"], "regression": True}, "labels are for classes; leave them out, or regression"),
        ({"positive": "a", "regression": True}, "positive is for classes; leave it out, or regression"),
        ({"labels": ["a", "b", "a"]}, "labels names a label twice: a, b, a"),
        ({"labels": ["a"]}, "at least 2 items"),
        ({"metrics": ["acuracy"]}, "no metric 'acuracy' is installed; did you mean accuracy? (installed: "),
        ({"metrics": []}, "at least 1 item"),
        ({"max_length": 2}, "greater than or equal to 3"),
        ({"data": {}}, "give files by split"),
    ],
)
def test_keys_that_make_no_sense_are_refused(keys, message):
    with pytest.raises(ValidationError, match=re.escape(message)):
        TextClassificationConfig(**{"data": {"train": "a.csv"}, "text": "text", "label": "label", **keys})


def test_metrics_are_those_named_and_the_first_leads(path):
    task = classification({"test": path}, labels=["bad", "good"], metrics=["wer", "accuracy"])
    found = task.evaluate(FirstWord(FIRST_OF_TWO, NAMES), "test", batch_size=4).metrics
    assert list(found) == ["wer", "wer_stderr", "accuracy", "accuracy_stderr", "n"]
    assert (task.primary_metric, task.higher_is_better) == ("wer", False)


def test_a_missing_column_is_an_error_before_anything_runs(path):
    with pytest.raises(
        DataError, match=r"task\.label asks for a column 'lable', but .* did you mean label\? "
    ):
        classification({"test": path}, label="lable")


# f1


def test_the_positive_label_decides_f1(path):
    # Always "good": the two good ones of four are found; as the positive class precision 1/2 and recall 1.
    found = {}
    for positive in NAMES:
        task = classification({"test": path}, labels=list(NAMES), metrics=["f1"], positive=positive)
        always_good = FirstWord([[0.0, 1.0]] * 17, NAMES)
        found[positive] = task.evaluate(always_good, "test", batch_size=2).metrics["f1"]
    assert found == {"good": pytest.approx(100 * 2 / 3), "bad": 0}


def test_f1_of_labels_that_do_not_tell_is_refused_before_anything_runs(tmp_path):
    path = write_csv(tmp_path / "b.csv", [("a", "ham"), ("b", "spam")])
    with pytest.raises(DataError) as caught:
        classification({"test": path}, labels=["ham", "spam"], metrics=["f1"])
    assert str(caught.value).startswith("Task text-classification: f1: the labels do not tell which class")
    assert str(caught.value).endswith("Or name the positive one under task.positive.")


def test_a_positive_label_without_f1_is_refused(path):
    with pytest.raises(DataError, match="which only f1 asks for; add f1 to the metrics"):
        classification({"test": path}, labels=list(NAMES), positive="good")
