"""The task text2text: templates, references, cut-off, and what does not fit."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from own_calls import text2text, warnings_in, word_tokenizer, write_csv, write_lines
from pydantic import ValidationError

from prunekit.errors import DataError
from prunekit.plugins import get_registry
from prunekit.tasks.base import Metric, MetricValue
from prunekit.tasks.own.templates import Template
from prunekit.tasks.own.text2text import Text2Text, Text2TextConfig
from prunekit.testing.tiny import tiny_model

pytestmark = pytest.mark.slow

ROWS = [("a b c", "d"), ("e", "f g")]


def by_source(task, split="test"):
    return {pair.source: pair.references for pair in task.pairs(split)}


@pytest.fixture
def path(tmp_path):
    return write_csv(tmp_path / "a.csv", ROWS)


# Templates and references


def test_a_column_is_taken_as_it_stands_and_a_template_is_filled(path):
    assert by_source(text2text({"test": path})) == {"a b c": ("d",), "e": ("f g",)}
    task = text2text({"test": path}, source="sum: {text} of {label} {{x}}", target="of {label}")
    assert by_source(task) == {"sum: a b c of d {x}": ("of d",), "sum: e of f g {x}": ("of f g",)}


def test_columns_in_templates_may_have_any_name(tmp_path):
    path = write_csv(tmp_path / "a.csv", [("x", "y")], header=("my text.1", "label"))
    assert by_source(text2text({"test": path}, source="of {my text.1}")) == {"of x": ("y",)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sum: {document", "write {{ and }} for braces that name no column"),
        ("sum: {}", "braces hold a column's name and nothing else"),
        ("sum: {text!r}", "braces hold a column's name and nothing else"),
        ("sum: {text:>9}", "braces hold a column's name and nothing else"),
        ("sum: {{text}}", "names no column; put one into braces, as in 'summarize: {document}'"),
    ],
)
def test_templates_that_cannot_be_filled_are_refused(text, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Template(text)
    with pytest.raises(ValidationError, match=re.escape(message)):
        Text2TextConfig(data={"train": "a.csv"}, source=text, target="b", metrics=["per"])


def test_a_template_cannot_reach_behind_a_value(path):
    with pytest.raises(DataError, match=r"task\.source asks for a column 'text\.__class__', but "):
        text2text({"test": path}, source="of {text.__class__}")


def test_further_references_come_from_columns_or_lists_and_the_target_is_first(tmp_path):
    rows = [
        {"text": "a", "label": "b", "other": "c", "more": ["d", "b", "e"]},
        {"text": "f", "label": "g", "other": "", "more": []},
        {"text": "h", "label": "a", "other": None, "more": None},
    ]
    path = write_lines(tmp_path / "a.jsonl", rows)
    assert by_source(text2text({"test": path}, references=["other", "more"])) == {
        "a": ("b", "c", "d", "e"),
        "f": ("g",),
        "h": ("a",),
    }


def test_the_target_may_be_a_column_of_lists_whose_first_is_trained_on(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [{"text": "a", "label": ["b", "c"]}])
    task = text2text({"test": path})
    (example,) = task.examples("test")
    assert example.references == ("b", "c")
    assert task.tokenizer.decode(example.labels) == "b </s>"


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ({"text": "a", "label": []}, "'label' holds nothing"),
        ({"text": "a", "label": 3}, "'label' holds 3 (int)"),
        ({"text": "a", "label": ["b", 3]}, "'label' holds 3 (int)"),
        ({"text": 3, "label": "b"}, "'text' holds 3 (int)"),
    ],
)
def test_what_is_no_text_is_told_with_its_row(tmp_path, row, found):
    path = write_lines(tmp_path / "a.jsonl", [row])
    with pytest.raises(DataError) as caught:
        text2text({"test": path})
    assert str(caught.value).startswith(f"Task text2text: {path}, line 1: {found}, but a text is needed.")


def test_a_reference_that_is_no_text_is_told_with_its_row(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [{"text": "a", "label": "b", "more": ["c", {"d": 1}]}])
    with pytest.raises(DataError, match=r"a\.jsonl, line 1: 'more' holds \{'d': 1\} \(dict\), but a text is"):
        text2text({"test": path}, references=["more"])


def test_numbers_are_filled_into_templates_as_they_are_written():
    rows = [{"text": "a", "label": "b", "count": 3, "share": 0.5}]
    task = text2text({"test": rows}, source="{text} {count} of {share}", target="{share}")
    assert by_source(task) == {"a 3 of 0.5": ("0.5",)}
    assert by_source(text2text({"test": rows}, target="of {count}")) == {"a": ("of 3",)}


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (None, "nothing"),
        ([1], "[1] (list)"),
        ({"b": 1}, "{'b': 1} (dict)"),
        (True, "True (bool)"),
        (float("nan"), "nan (float)"),
    ],
)
def test_templates_take_nothing_but_texts_and_numbers(value, found):
    with pytest.raises(DataError) as caught:
        text2text({"test": [{"text": value, "label": "b"}]}, source="of {text}")
    assert str(caught.value).startswith(
        f"Task text2text: task.data.test, row 1: 'text' holds {found}, but a text is needed."
    )


# Cut-off


def test_sources_and_targets_are_cut_off_counted_and_told(path, caplog):
    task = text2text({"test": path}, max_source_length=3, max_target_length=2)
    found = {example.references: (example.input_ids, example.labels) for example in task.examples("test")}
    assert found == {("d",): ([3, 4, 1], [6, 1]), ("f g",): ([7, 1], [8, 1])}
    assert task.truncated == {"test": (1, 1)}
    assert warnings_in(caplog) == [
        "Task text2text, test: 1 of 2 sources are longer than 3 tokens and were cut off there.",
        "Task text2text, test: 1 of 2 targets are longer than 2 tokens and were cut off there.",
    ]
    assert task.max_new_tokens == 2


def test_cutting_off_leaves_the_given_tokenizer_as_it_was(path):
    given = word_tokenizer(bert=False)
    before = given.backend_tokenizer.to_str()
    config = Text2TextConfig(
        data={"test": path}, source="text", target="label", metrics=["per"], max_source_length=2
    )
    task = Text2Text(config, given)
    assert task.lengths("test") == [2, 2]
    assert given.backend_tokenizer.to_str() == before


# Models and metrics


def test_answers_are_scored_against_every_reference(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [{"text": "a b", "label": "c", "more": "d"}] * 3)
    task = text2text({"test": path}, references=["more"], max_target_length=4, metrics=["accuracy", "per"])
    model = tiny_model("t5")
    answers = task.predict(model, task.examples("test"), batch_size=2)
    found = task.evaluate(model, "test", batch_size=2).metrics
    assert found["per"] == task.metrics[1].function(answers, [("c", "d")] * 3).value
    assert list(found) == ["accuracy", "accuracy_stderr", "per", "per_stderr", "n"]
    assert (task.primary_metric, task.higher_is_better) == ("accuracy", True)


@pytest.fixture
def given(monkeypatch):
    """The calls of a metric of that name, which is installed."""
    calls = []

    def function(*arguments):
        calls.append(arguments)
        return MetricValue(0.0, 0.0)

    metric = Metric("given", higher_is_better=True, function=function, wants_sources=True)
    monkeypatch.setitem(get_registry().metrics, "given", metric)
    return calls


def test_a_metric_that_wants_sources_gets_them_in_order(path, given):
    task = text2text({"test": path}, source="of {text}", metrics=["given"], max_source_length=3)
    model = tiny_model("t5")
    task.evaluate(model, "test", batch_size=1)
    pairs = task.pairs("test")
    ((_, references, sources),) = given
    assert sources == [pair.source for pair in pairs]
    assert references == [pair.references for pair in pairs]


def test_a_metric_that_cannot_be_had_here_is_told_when_the_task_is_made(path, monkeypatch):
    def check():
        raise DataError("Metric lost: its data is not there.")

    lost = replace(get_registry().metrics["accuracy"], name="lost", check=check)
    monkeypatch.setitem(get_registry().metrics, "lost", lost)
    with pytest.raises(DataError, match=r"^Metric lost: its data is not there\.$"):
        text2text({"test": path}, metrics=["lost"])


def test_a_metric_of_several_answers_is_refused_when_the_task_is_made(path):
    with pytest.raises(DataError, match=r"^Metric top-5 looks at the model's 5 best answers to an example"):
        text2text({"test": path}, metrics=["top-5"])


@pytest.mark.parametrize(
    ("penalty", "beams", "expected"), [(0.0, 4, 0.0), (None, 4, "absent"), (2.0, 1, "absent")]
)
def test_a_length_penalty_is_passed_on_to_beam_search_if_it_is_given(
    path, monkeypatch, penalty, beams, expected
):
    task = text2text({"test": path}, length_penalty=penalty, max_target_length=4)
    model = tiny_model("t5")
    seen = []
    generate = model.generate

    def watched(**keys):
        seen.append(keys.get("length_penalty", "absent"))
        return generate(**keys)

    monkeypatch.setattr(model, "generate", watched)
    task.predict(model, task.examples("test"), batch_size=2, num_beams=beams)
    assert seen == [expected]


def test_a_model_with_fewer_positions_than_sources_may_have_tokens_is_an_error(path):
    task = text2text({"test": path}, max_source_length=64, max_target_length=8)
    with pytest.raises(
        DataError,
        match=r"^Task text2text: task\.max_source_length is 64, but the model has 32 positions\. Set "
        r"task\.max_source_length to at most 32\.$",
    ):
        task.evaluate(tiny_model("bart"), "test", batch_size=2)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"metrics": ["rouge-l"]}, "no metric 'rouge-l' is installed; did you mean rougeL?"),
        ({"metrics": []}, "at least 1 item"),
        ({"max_source_length": 1}, "greater than or equal to 2"),
        ({"sauce": "text"}, "Extra inputs are not permitted"),
    ],
)
def test_keys_that_make_no_sense_are_refused(keys, message):
    with pytest.raises(ValidationError, match=re.escape(message)):
        Text2TextConfig(
            **{"data": {"train": "a.csv"}, "source": "a", "target": "b", "metrics": ["per"], **keys}
        )
