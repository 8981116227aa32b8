"""Rows in memory, columns inside of columns, rows in two splits, and what tells data from other data."""

from __future__ import annotations

import hashlib
import re

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from own_calls import REVIEWS, classification, text2text, warnings_in, write_csv, write_lines
from pydantic import ValidationError

from prunekit.errors import DataError
from prunekit.tasks.data.source import DataSpec, fingerprint_of, open_splits
from prunekit.tasks.own.classification import TextClassificationConfig

ROWS = [{"text": text, "label": label} for text, label in REVIEWS]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def opened(**keys):
    return open_splits(DataSpec(**keys), "mine")


# Rows in memory


def test_rows_may_stand_in_the_recipe(tmp_path):
    keys = yaml.safe_load(
        """
        data:
          train:
            - {text: a b, label: good}
            - {text: c, label: bad}
            - {text: d, label: good}
          test: TEST
        text: text
        label: label
        """.replace("TEST", write_csv(tmp_path / "a.csv", REVIEWS))
    )
    config = TextClassificationConfig(**keys)
    task = classification(**config.model_dump(include={"data", "text", "label"}))
    assert task.labels == ("bad", "good")
    assert {split: len(task.examples(split)) for split in task.splits} == {
        "train": 2,
        "validation": 1,
        "test": 4,
    }


def test_a_data_set_of_datasets_may_stand_in_for_rows_and_keeps_its_class_names():
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["good", "bad"])}
    )
    data = datasets.Dataset.from_list([{"text": "a", "label": 0}, {"text": "b", "label": 1}], features)
    task = classification({"test": data.with_format("torch")})
    assert task.labels == ("good", "bad")
    assert task.config.data.model_dump()["test"] == [{"text": "a", "label": 0}, {"text": "b", "label": 1}]
    assert classification({"test": data, "streaming": True}).examples("test")[0].label in (0, 1)


@pytest.mark.parametrize(
    ("row", "found"), [({"text": 5, "label": "good"}, "5 (int)"), ({"label": "good"}, "nothing")]
)
@pytest.mark.parametrize("streaming", [False, True])
def test_a_fault_in_rows_in_memory_is_told_with_the_number_of_the_row(row, found, streaming):
    with pytest.raises(DataError) as caught:
        classification({"test": [*ROWS, row], "streaming": streaming}, labels=["bad", "good"])
    assert str(caught.value) == (
        f"Task text-classification: task.data.test, row 5: 'text' holds {found}, but a text is needed. "
        "Correct the row or leave it out."
    )


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"train": ROWS, "hub": "x/y", "revision": COMMIT}, "hub: x/y and rows (train) exclude each other"),
        ({"train": []}, "train is an empty list; name a file, or leave it out"),
        ({"train": [{"text": "a"}, 5]}, "lists 5 (int); give only paths, or only rows"),
        ({"train": ["a.csv", {"text": "a"}]}, "lists {'text': 'a'} (dict); give only paths, or only rows"),
        ({"train": [5]}, "lists 5 (int); give only paths, or only rows"),
    ],
)
def test_rows_that_cannot_be_are_refused(keys, message):
    with pytest.raises(ValidationError, match=re.escape(message)):
        DataSpec(**keys)


def test_an_empty_data_set_is_an_error():
    with pytest.raises(DataError, match=r"^Task mine: task\.data\.test has no rows\. Give at least one\.$"):
        opened(test=datasets.Dataset.from_list([]))


# Columns inside of columns


QUESTIONS = [
    {"text": "a", "answers": {"text": ["b", "c"], "start": [0, 1]}, "by": [{"name": "x"}, {"name": "y"}]},
    {"text": "d", "answers": {"text": ["e"], "start": [2]}, "by": []},
]


@pytest.mark.parametrize(
    "write", [write_lines, lambda path, rows: pq.write_table(pa.Table.from_pylist(rows), path)]
)
@pytest.mark.parametrize("streaming", [False, True])
def test_a_dotted_name_reads_a_key_of_the_objects_in_a_column(tmp_path, monkeypatch, write, streaming):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    path = tmp_path / ("a.jsonl" if write is write_lines else "a.parquet")
    write(path, QUESTIONS)
    rows = opened(test=str(path), streaming=streaming)["test"]
    for name in ("answers.text", "by.name"):
        rows.check_column("target", name)
    assert sorted(rows.values("answers.text")) == [["b", "c"], ["e"]]
    assert sorted(rows.values("by.name")) == [[], ["x", "y"]]
    task = text2text(
        {"test": str(path), "streaming": streaming}, target="answers.text", references=["by.name"]
    )
    assert {pair.source: pair.references for pair in task.pairs("test")} == {
        "a": ("b", "c", "x", "y"),
        "d": ("e",),
    }


def test_a_column_that_is_called_so_comes_first_and_templates_reach_inside():
    rows = [{"a.b": "x", "a": {"b": "y", "c": {"d": 3}}}]
    task = text2text({"test": rows}, source="of {a.c.d}", target="a.b")
    assert task.pairs("test")[0] == ("of 3", ("x",))


def test_a_key_that_objects_do_not_have_is_told_with_those_they_have(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", QUESTIONS)
    with pytest.raises(DataError) as caught:
        text2text({"test": path}, target="answers.txt")
    assert str(caught.value) == (
        f"Task text2text: task.target asks for a column 'answers.txt', but {path} has 'answers.text', "
        "'answers.start'; did you mean answers.text? Correct task.target, or the data."
    )


def test_what_an_object_lacks_is_a_missing_text():
    rows = [{"text": "a", "label": {"name": "b"}}, {"text": "c", "label": {"other": "d"}}]
    with pytest.raises(DataError, match=r"row 2: 'label\.name' holds nothing, but a text is needed"):
        text2text({"test": rows}, target="label.name")


# Rows in two splits


def test_inputs_of_train_in_another_split_are_counted_and_told_once(tmp_path, caplog):
    train = write_csv(tmp_path / "a.csv", [("a", "good"), ("b", "bad"), ("c", "good"), ("c", "bad")])
    test = write_csv(tmp_path / "b.csv", [("b", "good"), ("c", "good"), ("c", "bad"), ("d", "bad")])
    dev = [{"text": "e", "label": "good"}]
    task = classification({"train": train, "validation": dev, "test": test})
    for split in task.splits:
        task.examples(split)
    assert warnings_in(caplog) == [
        "Task text-classification, test: 3 of 4 inputs also stand in train, so that answers to them may be "
        "known by heart. Leave each in one of the two only."
    ]


def test_pairs_are_the_same_input_only_if_both_texts_are(caplog):
    def row(text, label):
        return {"text": text, "more": "x", "label": label}

    rows = {"train": [row("a", "good"), row("b", "bad")], "validation": [{**row("a", "good"), "more": "y"}]}
    classification(rows, text=["text", "more"])
    assert warnings_in(caplog) == []


def test_texts_to_texts_are_compared_by_their_sources(caplog):
    rows = {"train": [{"text": "a", "label": "b"}], "validation": [{"text": "a", "label": "c"}]}
    text2text(rows)
    assert warnings_in(caplog)[0].startswith("Task text2text, validation: 1 of 1 inputs also stand in train")
    caplog.clear()
    text2text({**rows, "streaming": True})
    assert warnings_in(caplog) == []


def test_of_the_hub_rows_are_compared_once_both_splits_were_needed(monkeypatch, caplog):
    found = {split: datasets.Dataset.from_list(ROWS) for split in ("train", "validation")}
    monkeypatch.setattr(datasets, "load_dataset", lambda *arguments, **keys: found)
    task = classification({"hub": "x/y", "revision": COMMIT})
    task.examples("validation")
    assert warnings_in(caplog) == []
    task.examples("train")
    assert len(warnings_in(caplog)) == 1


# Fingerprints


def test_the_fingerprint_of_files_is_that_of_their_bytes(tmp_path):
    path = write_csv(tmp_path / "a.csv", REVIEWS)
    expected = {path: hashlib.sha256((tmp_path / "a.csv").read_bytes()).hexdigest()}
    assert classification({"test": path}, labels=["bad", "good"]).fingerprint() == expected
    assert text2text({"test": path}).fingerprint() == expected


def test_the_fingerprint_of_the_hubs_data_is_its_revision():
    assert fingerprint_of(DataSpec(hub="x/y", revision=COMMIT)) == {"hub:x/y": COMMIT}
    assert fingerprint_of(DataSpec(hub="x/y", config="z", revision=COMMIT)) == {"hub:x/y:z": COMMIT}


def test_the_fingerprint_of_rows_in_memory_is_that_of_their_content():
    found = fingerprint_of(DataSpec(train=ROWS))
    assert list(found) == ["task.data.train"]
    assert fingerprint_of(DataSpec(train=datasets.Dataset.from_list(ROWS))) == found
    assert fingerprint_of(DataSpec(train=ROWS[:3])) != found


def test_the_fingerprint_of_a_folder_is_that_of_names_and_sizes(tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "1").write_bytes(b"abc")
    found = fingerprint_of(DataSpec(train=str(tmp_path)))
    assert list(found) == [str(tmp_path)]
    (tmp_path / "cat" / "1").write_bytes(b"abcd")
    assert fingerprint_of(DataSpec(train=str(tmp_path))) != found


def test_the_fingerprint_of_a_missing_file_is_an_error():
    with pytest.raises(
        DataError, match=r"^none\.csv cannot be read: No such file or directory\. Correct the"
    ):
        fingerprint_of(DataSpec(train="none.csv"))


# Folders and images


def test_a_folder_is_refused_where_the_task_takes_files(tmp_path):
    for name in ("images", "images.v2"):
        (tmp_path / name).mkdir()
        with pytest.raises(
            DataError, match=rf"task\.data\.test: .*/{name} is a folder \(.*\)\. Name the file"
        ):
            opened(test=str(tmp_path / name))


def test_a_folder_of_images_is_read_where_the_task_takes_folders(tmp_path):
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "1.png").write_bytes(b"")
    rows = open_splits(DataSpec(test=str(tmp_path)), "mine", folders=True)["test"]
    assert sorted(zip(rows.values("label"), rows.values("image"), strict=True)) == [
        ("cat", str(tmp_path / "cat" / "1.png")),
        ("dog", str(tmp_path / "dog" / "1.png")),
    ]


def test_a_file_whose_name_does_not_say_how_to_read_it_is_refused(tmp_path):
    (tmp_path / "rows").write_text("text\na\n")
    with pytest.raises(DataError, match=r"/rows must end in \.csv, \.tsv, \.jsonl, \.json, \.parquet\.$"):
        opened(test=str(tmp_path / "rows"))


def test_images_of_the_hub_come_as_stored(monkeypatch):
    features = datasets.Features({"image": datasets.Image()})
    data = datasets.Dataset.from_list([{"image": {"bytes": b"abc", "path": None}}], features)
    monkeypatch.setattr(datasets, "load_dataset", lambda *arguments, **keys: {"test": data})
    for streaming in (False, True):
        rows = opened(hub="x/y", revision=COMMIT, streaming=streaming)["test"]
        assert rows.values("image") == [{"bytes": b"abc", "path": None}]
