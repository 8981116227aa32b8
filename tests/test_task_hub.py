"""Data sets of the hub; nothing here asks it for anything."""

from __future__ import annotations

import builtins
import os
import subprocess
import sys
from pathlib import Path

import datasets
import pytest
from own_calls import write_csv

from prunekit.errors import DataError
from prunekit.tasks.data.source import DataSpec, open_splits

pytestmark = pytest.mark.slow

COMMIT = "0123456789abcdef0123456789abcdef01234567"
HUB = {"hub": "nyu-mll/glue", "config": "sst2", "revision": COMMIT}


def opened(**keys):
    return open_splits(DataSpec(**keys), "mine")


def numbered(path, count, start=0):
    return write_csv(path, [(f"t{start + i}", str(i % 2)) for i in range(count)])


@pytest.fixture
def hub(monkeypatch):
    """What ``datasets.load_dataset`` gives, and the calls of it."""
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
    )
    sizes = {"train": 20, "validation": 3, "test": 2, "extra": 1}
    found = {
        split: datasets.Dataset.from_dict(
            {"text": [f"{split} {i}" for i in range(size)], "label": [i % 2 for i in range(size)]}, features
        )
        for split, size in sizes.items()
    }
    calls = []

    def load_dataset(*arguments, **keys):
        calls.append((arguments, keys))
        return found

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return calls


def test_the_hub_is_asked_for_the_revision_with_a_cache_of_its_own_and_no_code(hub):
    rows = opened(**HUB)
    assert {split: len(each) for split, each in rows.items()} == {"train": 20, "validation": 3, "test": 2}
    assert rows["test"].classes("label") == ("bad", "good")
    assert sorted(rows["test"].texts("text")) == ["test 0", "test 1"]
    cache = os.path.join(datasets.config.HF_DATASETS_CACHE, "prunekit", COMMIT)
    assert hub == [(("nyu-mll/glue", "sst2"), {"revision": COMMIT, "cache_dir": cache})]


def test_a_part_of_the_hubs_split_can_be_one_of_ours(hub):
    rows = opened(**HUB, splits={"train": "train[:14]", "validation": "train[14:]", "test": "extra[0:1]"})
    texts = {
        split: sorted(each.texts("text"), key=lambda text: int(text.split()[1]))
        for split, each in rows.items()
    }
    assert texts == {
        "train": [f"train {i}" for i in range(14)],
        "validation": [f"train {i}" for i in range(14, 20)],
        "test": ["extra 0"],
    }
    assert rows["validation"].where(0).startswith("nyu-mll/glue train[14:], row ")


@pytest.mark.usefixtures("hub")
def test_a_split_of_which_a_part_is_used_is_not_taken_whole_as_well():
    rows = opened(**HUB, splits={"test": "train[:5]", "validation": "validation"})
    assert {split: len(each) for split, each in rows.items()} == {"validation": 3, "test": 5}


@pytest.mark.usefixtures("hub")
def test_parts_that_share_rows_are_refused():
    with pytest.raises(DataError) as caught:
        opened(**HUB, splits={"train": "train[:14]", "test": "train[10:]"})
    assert str(caught.value) == (
        "Task mine: test and train share rows 10 to 13 of train: rows of one must not be in the other. "
        "Correct task.data.splits."
    )


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize("part", ["train[:70%]", "train[-5:]", "train[3]", "train[:5]+validation"])
def test_a_part_that_is_written_otherwise_is_refused(part):
    with pytest.raises(DataError, match=r"written with the numbers of its rows, such as train\[:14000\]"):
        opened(**HUB, splits={"train": part})


@pytest.mark.usefixtures("hub")
def test_a_part_without_rows_is_refused():
    with pytest.raises(DataError, match=r"nyu-mll/glue train\[20:\] has no rows"):
        opened(**HUB, splits={"train": "train[20:]", "validation": "validation"})


def test_files_of_the_hub_are_asked_for_by_name(hub):
    opened(**HUB, data_files={"test": "valid.jsonl"})
    assert hub[0][1]["data_files"] == {"test": "valid.jsonl"}


@pytest.mark.usefixtures("hub")
def test_a_split_of_the_hub_serves_one_of_ours_only():
    rows = opened(**HUB, splits={"test": "validation"})
    assert {split: len(each) for split, each in rows.items()} == {"train": 18, "validation": 2, "test": 3}
    assert rows["test"].where(0).startswith("nyu-mll/glue validation, row ")
    assert all(text.startswith("train") for text in rows["validation"].texts("text"))


@pytest.mark.usefixtures("hub")
def test_a_split_that_the_hub_does_not_have_is_an_error():
    with pytest.raises(
        DataError,
        match=r"task\.data\.splits\.test asks for the split 'dev', but nyu-mll/glue has train, validation, "
        r"test, "
        r"extra\. Name one of these\.$",
    ):
        opened(**HUB, splits={"test": "dev"})


@pytest.mark.usefixtures("hub")
def test_a_revision_that_may_move_is_told(caplog):
    opened(**{**HUB, "revision": "main"})
    assert caplog.messages[0] == (
        "Task mine: revision main of nyu-mll/glue may move. Write its commit (40 digits) to read the same "
        "rows "
        "always."
    )


def test_files_ask_the_hub_for_nothing(tmp_path, hub):
    opened(train=numbered(tmp_path / "a.csv", 10))
    assert hub == []


def test_a_folder_of_the_hubs_name_is_not_taken_for_it(tmp_path, monkeypatch, hub):
    (tmp_path / "nyu-mll" / "glue").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        DataError, match=r"task\.data\.hub = nyu-mll/glue is a file or folder here, not a data set"
    ):
        opened(**HUB)
    assert hub == []


@pytest.mark.parametrize(
    "error",
    [
        builtins.ConnectionError("Couldn't reach 'nyu-mll/glue' on the Hub (LocalEntryNotFoundError)"),
        ValueError("BuilderConfig 'sst2' not found."),
        RuntimeError("Dataset scripts are no longer supported, but found glue.py"),
    ],
)
def test_a_data_set_that_cannot_be_had_names_id_cache_and_alternatives(monkeypatch, error):
    def fail(*arguments, **keys):
        raise error

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(DataError) as caught:
        opened(**HUB)
    cache = Path(datasets.config.HF_DATASETS_CACHE) / "prunekit" / COMMIT
    assert str(caught.value) == (
        f"Task mine: the data set 'nyu-mll/glue' (config sst2, revision {COMMIT}) cannot be had: "
        f"{type(error).__name__}: {error}. Neither the hub nor the cache {cache} gave it. Without a network "
        "here, "
        "run this once where there is one and copy that folder (HF_DATASETS_CACHE says where such folders "
        "are "
        "looked for); or save the splits as .parquet, .jsonl or .csv files and name them under task.data "
        "(train, "
        "validation, test) in place of hub."
    )


def test_offline_mode_fails_at_once_with_that_message_and_nothing_else(tmp_path):
    program = (
        "from prunekit.tasks.data.source import DataSpec, open_splits\n"
        "from prunekit.errors import DataError\n"
        "try:\n"
        f"    open_splits(DataSpec(hub='nyu-mll/glue', revision='{COMMIT}'), 'mine')\n"
        "except DataError as error:\n"
        "    print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("Task mine: the data set 'nyu-mll/glue' (config default, revision 0123")
    assert f"nor the cache {tmp_path}/datasets/prunekit/{COMMIT} gave it" in done.stdout
    assert done.stderr == ""
