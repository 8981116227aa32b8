"""Answers as a file: what is written is read again, and what is broken is named."""

import json

import pytest

from prunekit.errors import DataError
from prunekit.tasks.base import Evaluation
from prunekit.tasks.records import read_answers, write_answers

AGAIN = "Delete it and evaluate the model again: the command of its run does that."
LINE = {"input": "a", "references": ["b"], "answer": "c", "length": 3, "influences": {"per": 1.5}}


def evaluation(*texts, influences=None):
    return Evaluation(
        metrics={"n": len(texts)},
        inputs=list(texts),
        references=[[text, f"{text}!"] for text in texts],
        answers=list(texts),
        lengths=list(range(len(texts))),
        influences=influences or {},
    )


def lines(path, *rows):
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


def test_every_example_is_a_line_in_order(tmp_path):
    found = evaluation("one", "two", influences={"per": [0.1, -0.1], "wer": [5.0, -5.0]})
    write_answers(tmp_path / "answers.jsonl", found)
    assert read_answers(tmp_path / "answers.jsonl") == [
        {
            "input": "one",
            "references": ["one", "one!"],
            "answer": "one",
            "length": 0,
            "influences": {"per": 0.1, "wer": 5.0},
        },
        {
            "input": "two",
            "references": ["two", "two!"],
            "answer": "two",
            "length": 1,
            "influences": {"per": -0.1, "wer": -5.0},
        },
    ]


def test_control_characters_and_broken_unicode_survive(tmp_path):
    texts = [
        "\x00\x1b[31mred\x1b[0m",
        "two\nlines\r\nand\u2028more\x85",
        "[bold]not markup[/]",
        "\ud800",
        "日本 \u202e",
    ]
    write_answers(tmp_path / "answers.jsonl", evaluation(*texts))
    assert (tmp_path / "answers.jsonl").read_bytes().isascii()
    assert [row["answer"] for row in read_answers(tmp_path / "answers.jsonl")] == texts


def test_numbers_come_back_to_the_last_bit(tmp_path):
    write_answers(tmp_path / "answers.jsonl", evaluation("a", "b", influences={"per": [1 / 3, -1 / 3]}))
    assert [row["influences"]["per"] for row in read_answers(tmp_path / "answers.jsonl")] == [1 / 3, -1 / 3]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"input": 3}, "'input' is not a text"),
        ({"references": "b"}, "'references' is not a list of texts"),
        ({"references": []}, "'references' is not a list of texts"),
        ({"answer": None}, "'answer' is not a text"),
        ({"length": True}, "'length' is not a number of tokens"),
        ({"length": -1}, "'length' is not a number of tokens"),
        ({"influences": {"per": float("nan")}}, "'influences' is not an object of finite numbers"),
        ({"influences": {"per": "1"}}, "'influences' is not an object of finite numbers"),
        ({"influences": {"wer": 1}}, "'influences' are on other metrics than in line 1"),
    ],
)
def test_a_line_that_is_wrong_is_named_with_what_is(changes, problem, tmp_path):
    path = lines(tmp_path / "answers.jsonl", LINE, {**LINE, **changes})
    with pytest.raises(DataError) as caught:
        read_answers(path)
    assert str(caught.value) == f"{path}, line 2: {problem}. {AGAIN}"


def test_a_line_without_a_key_is_named(tmp_path):
    path = lines(tmp_path / "answers.jsonl", {key: LINE[key] for key in LINE if key != "answer"})
    with pytest.raises(DataError, match=r"answers\.jsonl, line 1: no 'answer'\. Delete it and evaluate"):
        read_answers(path)


@pytest.mark.parametrize("line", ["", "[1]", "{", "[" * 100_000])
def test_a_line_that_is_no_object_is_named(line, tmp_path):
    path = lines(tmp_path / "answers.jsonl", LINE, line)
    with pytest.raises(DataError, match=r"answers\.jsonl, line 2: not (JSON \(|an object with the keys)"):
        read_answers(path)


def test_a_file_that_was_cut_off_is_not_read_in_part(tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_text(f"{json.dumps(LINE)}\n{json.dumps(LINE)[:20]}")
    with pytest.raises(DataError, match=r"answers\.jsonl, line 2: the file ends within it\. Delete it"):
        read_answers(path)


def test_a_file_that_is_none_is_named(tmp_path):
    with pytest.raises(DataError, match=r"answers\.jsonl cannot be read \(.*No such file.*\)\. Evaluate"):
        read_answers(tmp_path / "answers.jsonl")
    (tmp_path / "answers.jsonl").write_bytes(b"\xff\xfe\n")
    with pytest.raises(DataError, match=r"answers\.jsonl cannot be read \(.*invalid start byte"):
        read_answers(tmp_path / "answers.jsonl")
