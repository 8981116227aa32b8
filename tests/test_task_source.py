"""Rows by split: which keys go together, what is held out, in which order rows come."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from own_calls import REVIEWS, write_csv, write_lines
from pydantic import ValidationError

from prunekit.errors import DataError
from prunekit.tasks.data.source import DataSpec, open_splits

pytestmark = pytest.mark.slow

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ROWS = [{"text": text, "label": label} for text, label in REVIEWS]


def opened(**keys):
    return open_splits(DataSpec(**keys), "mine")


def test_reading_files_leaves_nothing_in_the_cache_of_datasets(tmp_path):
    write_csv(tmp_path / "a.csv", REVIEWS)
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "b.parquet")
    program = (
        "from prunekit.tasks.data.source import DataSpec, open_splits\n"
        "rows = open_splits(DataSpec(train='a.csv', test='b.parquet'), 'mine')\n"
        "print(sum(len(r.values('text')) for r in rows.values()))"
    )
    home = tmp_path / "home"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "HOME": str(home), "HF_HOME": str(home / "hf")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "8\n"
    assert not [path for path in home.rglob("*") if path.is_file()]


def test_a_missing_file_is_told_with_the_path_that_was_tried(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    write_csv(tmp_path / "data" / "reviews.csv", REVIEWS)
    with pytest.raises(DataError) as caught:
        opened(train="data/review.csv")
    assert str(caught.value) == (
        f"Task mine: task.data.train: data/review.csv: there is no file {tmp_path}/data/review.csv; did you "
        "mean "
        f"reviews.csv? (relative paths start at the current folder, {tmp_path}). Correct the path, or run "
        "prunekit elsewhere."
    )


# The recipe's keys


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "give files by split, such as `train: reviews.csv`, or `hub:` and `revision:`"),
        (
            {"train": "a.csv", "hub": "x/y", "revision": COMMIT},
            "hub: x/y and files (train) exclude each other",
        ),
        ({"hub": "x/y"}, "hub: x/y needs `revision:`, the commit of the data set"),
        ({"train": "a.csv", "config": "sst2"}, "config belongs to a data set of the hub; add `hub: ID`"),
        ({"train": "a.xlsx"}, "train: a.xlsx must end in .csv, .tsv, .jsonl, .json, .parquet"),
        ({"train": []}, "train is an empty list; name a file, or leave it out"),
        ({"train": ["a.csv", "./a.csv"]}, "train names"),
        (
            {"train": "a.csv", "test": "./a.csv"},
            "a.csv: rows of one must not be in the other. Leave validation",
        ),
        (
            {"hub": "x/y", "revision": COMMIT, "splits": {"validation": "validation", "test": "validation"}},
            "test and validation share validation",
        ),
        ({"hub": "x/y", "revision": COMMIT, "splits": {"dev": "validation"}}, "Input should be 'train'"),
        ({"dev": "a.csv"}, "Extra inputs are not permitted"),
    ],
)
def test_keys_that_do_not_go_together_are_refused(keys, message):
    with pytest.raises(ValidationError, match=re.escape(message)):
        DataSpec(**keys)


def test_calibration_rows_may_be_training_rows():
    assert set(DataSpec(train="a.csv", calibration="a.csv").files) == {"train", "calibration"}


# Splits


def numbered(path, count, start=0):
    return write_csv(path, [(f"t{start + i}", str(i % 2)) for i in range(count)])


def test_splits_come_in_an_order_of_their_own_with_the_rows_mixed(tmp_path):
    rows = opened(
        test=numbered(tmp_path / "c.csv", 5),
        train=[numbered(tmp_path / "a.csv", 30), numbered(tmp_path / "b.csv", 10, 30)],
        validation=numbered(tmp_path / "d.csv", 4),
    )
    assert list(rows) == ["train", "validation", "test"]
    texts = rows["train"].texts("text")
    assert sorted(texts) == sorted(f"t{i}" for i in range(40))
    assert texts != [f"t{i}" for i in range(40)]
    assert {each for each in texts[:10] if int(each[1:]) >= 30}
    index = texts.index("t31")
    assert rows["train"].where(index) == f"{tmp_path}/b.csv, line 3"
    assert opened(train=str(tmp_path / "a.csv"), validation=str(tmp_path / "d.csv"))["train"].texts(
        "text"
    ) == opened(train=str(tmp_path / "a.csv"), validation=str(tmp_path / "d.csv"))["train"].texts("text")


def test_one_file_is_divided_into_train_validation_and_test(tmp_path, caplog):
    path = numbered(tmp_path / "a.csv", 40)
    with caplog.at_level(logging.INFO, "prunekit"):
        rows = opened(train=path)
    assert {split: len(each) for split, each in rows.items()} == {"train": 32, "validation": 4, "test": 4}
    assert sorted(t for each in rows.values() for t in each.texts("text")) == sorted(
        f"t{i}" for i in range(40)
    )
    assert caplog.messages == [
        "Task mine: no data is given for validation and test, so 8 of the 40 rows of train are held out "
        "(half "
        "for each), as in every run."
    ]


def test_validation_alone_is_held_out_where_there_is_a_test(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "prunekit"):
        rows = opened(train=numbered(tmp_path / "a.csv", 10), test=numbered(tmp_path / "b.csv", 3, 50))
    assert {split: len(each) for split, each in rows.items()} == {"train": 9, "validation": 1, "test": 3}
    assert caplog.messages == [
        "Task mine: no data is given for validation, so 1 of the 10 rows of train is held out, as in every "
        "run."
    ]


def test_nothing_is_held_out_where_validation_is_given_or_there_is_no_train(tmp_path):
    one, other = numbered(tmp_path / "a.csv", 10), numbered(tmp_path / "b.csv", 3)
    assert {split: len(each) for split, each in opened(train=one, validation=other).items()} == {
        "train": 10,
        "validation": 3,
    }
    assert list(opened(test=one)) == ["test"]


def test_too_few_rows_to_hold_out_some_is_an_error(tmp_path):
    with pytest.raises(
        DataError,
        match=r"^Task mine: task\.data\.train has 2 rows, too few to hold out some for validation and test\. "
        r"Give "
        r"task\.data\.validation\.$",
    ):
        opened(train=numbered(tmp_path / "a.csv", 2))


def test_a_missing_column_is_told_with_those_there_are(tmp_path):
    rows = opened(test=write_csv(tmp_path / "a.csv", REVIEWS, header=("sentence", "label")))["test"]
    with pytest.raises(DataError) as caught:
        rows.check_column("text", "sentense")
    assert str(caught.value) == (
        f"Task mine: task.text asks for a column 'sentense', but {tmp_path}/a.csv has 'sentence', 'label'; "
        "did "
        "you mean sentence? Correct task.text, or the data."
    )


@pytest.mark.parametrize(
    ("row", "found"), [({"text": 5}, "5 (int)"), ({"text": None}, "nothing"), ({"other": "a"}, "nothing")]
)
def test_a_text_that_is_none_is_told_with_its_row(tmp_path, row, found):
    path = write_lines(tmp_path / "a.jsonl", [{"text": "a"}, row])
    with pytest.raises(DataError) as caught:
        opened(test=path)["test"].texts("text")
    assert str(caught.value) == (
        f"Task mine: {path}, line 2: 'text' holds {found}, but a text is needed. Correct the row or leave it "
        "out."
    )
