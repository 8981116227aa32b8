"""The task text2text-classification: labels and numbers as words, and answers that are none of them."""

from __future__ import annotations

import json
import re

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from own_calls import write_csv, write_lines
from pydantic import ValidationError
from writer_calls import Writes, tokenizer

from prunekit.errors import DataError
from prunekit.plugins import get_registry
from prunekit.tasks.base import Metric, MetricValue
from prunekit.tasks.own.label_words import (
    NumberSpec,
    Text2TextClassification,
    Text2TextClassificationConfig,
)
from prunekit.testing.tiny import tiny_model

ROWS = [("a", "good"), ("b", "bad"), ("c", "bad"), ("d", "good")]


def made(data, **keys):
    """The task on these files."""
    settings = {"data": data, "source": "text", "label": "label", **keys}
    return Text2TextClassification(Text2TextClassificationConfig(**settings), tokenizer())


def config(**keys):
    return Text2TextClassificationConfig(data={"train": "a.csv"}, source="text", label="label", **keys)


def written(task, split="test"):
    """What is trained on, and what is scored against, by source."""
    return {pair.source: pair.references for pair in task.pairs(split)}


def scored(task, answers, **keys):
    return task.evaluate(Writes(answers), "test", batch_size=3, **keys).metrics


def predicted(task, answers):
    examples = task.examples("test")
    texts = [task.tokenizer.decode(example.input_ids[:-1]) for example in examples]
    return dict(zip(texts, task.predict(Writes(answers), examples, batch_size=2), strict=True))


@pytest.fixture
def path(tmp_path):
    return write_csv(tmp_path / "a.csv", ROWS)


BOTH = {"labels": ["good", "bad"]}


# Labels and words


def test_a_label_is_written_as_its_name_or_as_its_word(path):
    assert written(made({"test": path}, **BOTH)) == {
        "a": ("good", "good"),
        "b": ("bad", "bad"),
        "c": ("bad", "bad"),
        "d": ("good", "good"),
    }
    task = made({"test": path}, **BOTH, words={"bad": "so so"})
    assert written(task)["b"] == ("so so", "bad")
    example = next(each for each in task.examples("test") if each.references == ("so so", "bad"))
    assert task.tokenizer.decode(example.labels) == "so so </s>"


def test_integers_count_the_labels_given(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [{"text": "a", "label": 1}, {"text": "b", "label": True}])
    task = made({"test": path}, **BOTH, words={"bad": "so"})
    assert written(task) == {"a": ("so", "bad"), "b": ("so", "bad")}


def test_labels_are_the_datas_own_names_of_its_integers(tmp_path):
    info = {"info": {"features": {"label": {"names": ["good", "bad"], "_type": "ClassLabel"}}}}
    table = pa.table({"text": ["a", "b"], "label": [0, 1]})
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(info)}), tmp_path / "a.parquet")
    task = made({"test": str(tmp_path / "a.parquet")}, words={"good": "nice"})
    assert written(task) == {"a": ("nice", "good"), "b": ("bad", "bad")}


def test_labels_are_those_in_train_and_in_what_is_held_out_of_it(tmp_path):
    rows = [("a", "fair" if i == 3 else ROWS[i % 2][1]) for i in range(20)]
    for start in range(0, 20, 5):  # wherever the mixing puts the rare one
        path = write_csv(tmp_path / "t.csv", rows[start:] + rows[:start])
        assert set(made({"train": path}).labels) == {"bad", "fair", "good"}


def test_without_train_or_names_the_labels_must_be_listed(path):
    with pytest.raises(DataError, match=r"found 0 labels in the training rows \(none\), .* List all labels"):
        made({"test": path})


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"labels": ["good", "good"]}, "labels names a label twice: good, good"),
        (
            {**BOTH, "words": {"godo": "so"}},
            "words names 'godo', which is none of the labels; did you mean good? they are good, bad",
        ),
        (
            {**BOTH, "words": {"bad": " Good"}},
            "'good' and 'bad' would both be written ' Good' (capital letters and white space around a word "
            "do not count); give them different words",
        ),
        ({"labels": ["yes", "Yes"]}, "'yes' and 'Yes' would both be written 'Yes'"),
        ({**BOTH, "words": {"bad": " "}}, "words has nothing to write for 'bad'; give it a word"),
        ({**BOTH, "positive": "good"}, "positive is for f1; add f1 to metrics, or leave positive out"),
        (
            {**BOTH, "positive": "nice", "metrics": ["f1"]},
            "positive names 'nice', which is none of the labels; they are good, bad",
        ),
        (
            {"labels": ["a", "b", "c"], "positive": "a", "metrics": ["f1"]},
            "positive is for two labels, and there are 3; leave it out, use macro-f1",
        ),
        ({**BOTH, "numbers": {"step": 0.2}}, "labels is for labels; leave it out, or numbers"),
        ({"words": {"a": "b"}, "numbers": {"step": 1}}, "words is for labels; leave it out, or numbers"),
    ],
)
def test_keys_that_do_not_go_together_are_refused(keys, message):
    with pytest.raises(ValidationError, match=re.escape(message)):
        config(**keys)


def test_words_for_labels_that_only_the_data_knows_are_checked_with_the_data(tmp_path):
    path = write_csv(tmp_path / "t.csv", ROWS * 5)
    with pytest.raises(DataError, match=r"Task text2text-classification: task\.words names 'nice', which is"):
        made({"train": path}, words={"nice": "so"})


def test_a_label_that_is_none_is_told_with_its_row(tmp_path):
    path = write_csv(tmp_path / "a.csv", [("a", "good"), ("b", "badd")])
    with pytest.raises(DataError) as caught:
        made({"test": path}, **BOTH)
    assert str(caught.value) == (
        f"Task text2text-classification: {path}, line 3: 'label' holds 'badd', which is none of the labels; "
        "did you mean bad? (good, bad). Correct the row, or list every label under task.labels."
    )


def test_a_training_row_without_a_label_is_told(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [{"text": "a", "label": "good"}, {"text": "b", "label": None}])
    with pytest.raises(DataError, match=r"line 2: 'label' holds nothing, but a name or an integer is needed"):
        made({"train": path, "validation": write_csv(tmp_path / "v.csv", ROWS)})


def test_a_word_that_ends_behind_the_longest_answer_is_refused(path):
    with pytest.raises(DataError) as caught:
        made({"test": path}, **BOTH, words={"bad": "so so so"}, max_target_length=3)
    assert str(caught.value) == (
        "Task text2text-classification: the label 'bad' is written 'so so so', which has 4 tokens, but "
        "answers end at 3. Raise task.max_target_length to 4, or give it a shorter word under task.words."
    )


def test_a_word_that_the_tokenizer_cannot_write_is_refused(path):
    with pytest.raises(DataError) as caught:
        made({"test": path}, **BOTH, words={"bad": "so awful"})
    assert str(caught.value) == (
        "Task text2text-classification: the label 'bad' is written 'so awful', but the tokenizer can only "
        "write 'so'. Give it another word under task.words."
    )


# Answers


def test_answers_are_names_of_labels_whatever_the_case(path):
    task = made({"test": path}, **BOTH, words={"bad": "so"})
    found = predicted(task, {"a": "Good", "b": "so", "c": "good", "d": "good"})
    assert found == {"a": "good", "b": "bad", "c": "good", "d": "good"}


def test_an_unparsable_answer_is_wrong_and_counted(path):
    task = made({"test": path}, **BOTH)
    answers = {"a": "good", "b": "bad", "c": "bad bad", "d": "nice"}
    assert predicted(task, answers) == answers
    found = scored(task, answers)
    assert found == {
        "accuracy": 50.0,
        "accuracy_stderr": 25.0,
        "unparsable": 50.0,
        "unparsable_stderr": 25.0,
        "n": 4,
    }
    assert scored(task, answers | {"c": "nice", "d": ""})["accuracy"] == 50.0


@pytest.mark.parametrize("metric", ["accuracy", "f1", "macro-f1", "mcc"])
@pytest.mark.parametrize("nonsense", ["fair", "", "h"])
def test_nonsense_earns_nothing_by_any_metric(path, metric, nonsense):
    task = made({"test": path}, **BOTH, metrics=[metric], **({"positive": "good"} if metric == "f1" else {}))
    assert scored(task, dict.fromkeys("abcd", nonsense))[metric] == 0
    right = {"a": "good", "b": "bad", "c": "bad", "d": "good"}
    assert scored(task, right)[metric] == pytest.approx(100)
    for source in "abcd":
        assert scored(task, {**right, source: nonsense})[metric] < 99
    assert scored(task, right | {"a": nonsense, "b": nonsense})["unparsable"] == 50


def test_the_name_of_a_label_that_is_written_otherwise_is_no_answer(path):
    task = made({"test": path}, **BOTH, words={"good": "nice", "bad": "so"})
    answers = {"a": "good", "b": "bad", "c": "so", "d": "nice"}
    assert predicted(task, answers) == {"a": "'good'", "b": "'bad'", "c": "bad", "d": "good"}
    found = scored(task, answers)
    assert (found["accuracy"], found["unparsable"]) == (50, 50)


def test_labels_that_swap_words_are_told_apart(path):
    task = made({"test": path}, **BOTH, words={"good": "bad", "bad": "good"})
    answers = {"a": "bad", "b": "good", "c": "good", "d": "bad"}
    assert predicted(task, answers) == {"a": "good", "b": "bad", "c": "bad", "d": "good"}
    assert scored(task, answers)["accuracy"] == 100


def test_the_positive_label_is_the_one_given(path):
    answers = {"a": "good", "b": "good", "c": "bad", "d": "good"}
    found = {
        label: scored(made({"test": path}, **BOTH, metrics=["f1"], positive=label), answers)["f1"]
        for label in ("good", "bad")
    }
    assert found == pytest.approx({"good": 100 * 4 / 5, "bad": 100 * 2 / 3})


def test_scores_of_a_limit_are_those_of_the_first(path):
    task = made({"test": path}, **BOTH)
    assert scored(task, dict.fromkeys("abcd", "h"), limit=3)["n"] == 3


def test_streamed_rows_are_answered_and_scored_alike(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    path = write_csv(tmp_path / "t.csv", ROWS * 5)
    keys = {"words": {"bad": "so"}}
    whole, streamed = (made({"train": path, "streaming": flag}, **keys) for flag in (False, True))
    assert whole.labels == streamed.labels
    for split in whole.splits:
        assert list(streamed.examples(split)) == list(whole.examples(split))
    answers = {"a": "good", "b": "so", "c": "h", "d": "bad"}
    assert scored(streamed, answers) == scored(whole, answers)


def test_a_metric_that_reads_sources_gets_them_and_the_names_of_labels(path, monkeypatch):
    seen = []

    def judge(predictions, references, sources):
        seen.extend(zip(sources, predictions, references, strict=True))
        return MetricValue(1.0, 0.0)

    metric = Metric("judge", higher_is_better=True, function=judge, wants_sources=True)
    monkeypatch.setitem(get_registry().metrics, "judge", metric)
    task = made({"test": path}, **BOTH, words={"bad": "so"}, metrics=["judge"])
    assert scored(task, dict.fromkeys("abcd", "so"))["judge"] == 1
    assert sorted(seen) == [(text, "bad", (label,)) for text, label in ROWS]


def test_a_model_trains_on_the_words_and_answers(path):
    task = made({"test": path}, **BOTH, max_target_length=3)
    torch.manual_seed(0)
    model = tiny_model("t5")
    batch = task.collate(task.examples("test"))
    assert batch["labels"].shape == (4, 2)
    assert model(**batch).loss.isfinite()
    found = task.evaluate(model, "test", batch_size=2).metrics
    assert found["accuracy"] + found["unparsable"] <= 100


# Numbers


@pytest.mark.parametrize(
    ("step", "number", "text"),
    [
        (0.2, 3.8, "3.8"),
        (0.2, 3.799999952316284, "3.8"),
        (0.2, 4.9, "4.8"),
        (0.2, 4.900000095367432, "4.8"),
        (0.2, 2.5, "2.4"),
        (0.2, 5, "5.0"),
        (0.2, 0.05, "0.0"),
        (0.2, -0.05, "0.0"),
        (0.1, 0.25, "0.2"),
        (0.25, 0.3, "0.25"),
        (1, 2.6, "3"),
        (10, 26, "30"),
        (0.5, -1.3, "-1.5"),
    ],
)
def test_a_number_is_written_as_the_nearest_step(step, number, text):
    assert NumberSpec(step=step).text(number) == text


def test_numbers_are_trained_on_rounded_and_scored_against_the_data(tmp_path):
    path = write_csv(tmp_path / "a.csv", [("a", "0.95"), ("b", "3.75"), ("c", "5")])
    task = made({"test": path}, numbers={"step": 0.2})
    assert written(task) == {"a": ("1.0", "0.95"), "b": ("3.8", "3.75"), "c": ("5.0", "5.0")}
    found = scored(task, {"a": "1.0", "b": "3.8", "c": "5.0"})
    assert list(found) == [
        "pearson",
        "pearson_stderr",
        "spearman",
        "spearman_stderr",
        "unparsable",
        "unparsable_stderr",
        "n",
    ]
    assert 99.9 < found["pearson"] < 100
    assert (found["spearman"], found["unparsable"]) == (pytest.approx(100), 0)


@pytest.mark.parametrize("nonsense", ["h", "nan", "", "3.8 3.8"])
def test_what_is_no_number_lowers_the_correlation_by_its_share(tmp_path, nonsense):
    path = write_csv(tmp_path / "a.csv", [("a", "1"), ("b", "3.8"), ("c", "5"), ("d", "0")])
    task = made({"test": path}, numbers={"step": 0.2})
    found = scored(task, {"a": "1.0", "b": "3.8", "c": "5.0", "d": nonsense})
    assert found["pearson"] == pytest.approx(75)
    assert found["unparsable"] == 25
    assert scored(task, dict.fromkeys("abcd", nonsense))["spearman"] == 0


def test_a_label_that_is_no_number_is_told_with_its_row(tmp_path):
    path = write_csv(tmp_path / "a.csv", [("a", "1"), ("b", "high")])
    with pytest.raises(DataError) as caught:
        made({"test": path}, numbers={"step": 0.2})
    assert str(caught.value) == (
        f"Task text2text-classification: {path}, line 3: 'label' holds 'high', but a finite number is "
        "needed. Correct the row."
    )


@pytest.mark.parametrize("step", [0, -1])
def test_a_step_is_positive(step):
    with pytest.raises(ValidationError, match="greater than 0"):
        config(numbers={"step": step})
