"""Data that stays on disk: the same rows, examples and faults as in memory, and little of it held."""

from __future__ import annotations

import gc
import json
import logging
import tracemalloc

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from own_calls import (
    REVIEWS,
    FirstWord,
    classification,
    text2text,
    warnings_in,
    write_csv,
    write_lines,
)
from torch.utils.data import DataLoader

from prunekit.errors import DataError
from prunekit.tasks.calibration import calibration_examples
from prunekit.tasks.data.lazy import CHUNK
from prunekit.tasks.data.lines import LINE_READERS
from prunekit.tasks.data.source import DataSpec, open_splits
from prunekit.tasks.data.stored import BLOCK, cache_folder, stored_table
from prunekit.tasks.data.tables import DiskColumn, read_table
from prunekit.tasks.text_classification import LabelledText, TokenizedText
from prunekit.testing.tiny import tiny_model

pytestmark = pytest.mark.slow

MANY = 3 * BLOCK + 5
ROWS = [{"text": f"a {'b ' * (i % 7)}c", "label": ["good", "bad"][i % 3 % 2]} for i in range(MANY)]
WRITERS = {
    "a.csv": lambda path, rows: write_csv(path, [tuple(row.values()) for row in rows]),
    "a.tsv": lambda path, rows: write_csv(path, [tuple(row.values()) for row in rows], delimiter="\t"),
    "a.jsonl": write_lines,
    "a.json": lambda path, rows: path.write_text(json.dumps(rows)),
    "a.parquet": lambda path, rows: pq.write_table(pa.Table.from_pylist(rows), path),
}


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def in_cache():
    return sorted(path.name for path in cache_folder().iterdir()) if cache_folder().exists() else []


def both(data, make=classification, **keys):
    """A task with its rows in memory, and its twin with them on disk."""
    return make(data, **keys), make({**data, "streaming": True}, **keys)


# Rows


@pytest.mark.parametrize("name", WRITERS)
def test_rows_and_their_places_are_those_that_memory_has(tmp_path, name):
    WRITERS[name](tmp_path / name, ROWS)
    files = {"train": str(tmp_path / name), "test": write_csv(tmp_path / "b.csv", REVIEWS)}
    memory, disk = (open_splits(DataSpec(**files, streaming=on), "mine") for on in (False, True))
    assert list(disk) == list(memory)
    for split, rows in memory.items():
        assert disk[split].values("label") == rows.values("label")
        assert disk[split].texts("text", [2, 0]) == rows.texts("text", [2, 0])
        assert [disk[split].where(i) for i in range(3)] == [rows.where(i) for i in range(3)]


def test_rows_of_several_files_keep_their_order(tmp_path):
    files = [write_csv(tmp_path / f"{i}.csv", [(f"t{i} {j}", "1") for j in range(300)]) for i in range(3)]
    memory, disk = (open_splits(DataSpec(test=files, streaming=on), "mine")["test"] for on in (False, True))
    assert disk.texts("text") == memory.texts("text")
    assert [disk.where(i) for i in (0, 400)] == [memory.where(i) for i in (0, 400)]


def test_rows_may_differ_in_keys_and_types(tmp_path):
    rows = [{"a": 1, "b": {"c": ["x"]}}, {"a": "\ud800", "d": None}, {"a": [1.5, True], "b": {"e": 2}}]
    write_lines(tmp_path / "a.jsonl", rows)
    memory, disk = read_table(tmp_path / "a.jsonl"), stored_table(tmp_path / "a.jsonl")
    assert list(disk.columns) == list(memory.columns) == ["a", "b", "d"]
    for name in ("a", "b", "d", "b.c"):
        assert disk.values(name, range(3)) == memory.values(name, range(3))


def test_a_parquet_file_keeps_class_names_and_categories(tmp_path):
    features = datasets.Features({"label": datasets.ClassLabel(names=["bad", "good"])})
    labels = pa.table({"label": [1, 0] * BLOCK}, schema=features.arrow_schema)
    pq.write_table(labels, tmp_path / "a.parquet")
    assert stored_table(tmp_path / "a.parquet").classes == {"label": ("bad", "good")}
    kinds = pa.array(["x", "y", None] * BLOCK).dictionary_encode()
    pq.write_table(pa.table({"kind": kinds}), tmp_path / "b.parquet", row_group_size=BLOCK)
    assert stored_table(tmp_path / "b.parquet").values("kind", [0, BLOCK, 2 * BLOCK + 2]) == ["x", "y", "y"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b"text,label\na,1\nb,c,0\n"),
        ("a.csv", b'text,label\n"a,1\nb,0\n'),
        ("a.csv", b"text,text\na,1\n"),
        ("a.csv", b"text,label\n"),
        ("a.csv", "text,label\nä,1\n".encode("latin-1")),
        ("a.csv", b"text,label\n" + b"good,1\n" * 9000 + b"\xff,0\n"),
        ("a.jsonl", b'{"text": "a"}\n{"text": }\n'),
        ("a.jsonl", b'["a", 1]\n'),
        ("a.json", b'[{"text": "a"},\n 5]'),
        ("a.json", b'[{"text": "a"},\n'),
        ("a.json", b"[]"),
        ("a.parquet", b"text,label\n"),
    ],
)
def test_a_malformed_file_is_the_same_error_and_leaves_nothing(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as expected:
        read_table(tmp_path / name)
    with pytest.raises(DataError) as caught:
        stored_table(tmp_path / name)
    assert str(caught.value) == str(expected.value)
    assert in_cache() == []


def test_a_byte_that_is_not_utf_8_is_counted_from_the_start_of_the_file(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbftext,label\n" + b"good,1\n" * 9000 + b"\xff,0\n")
    with pytest.raises(DataError, match=r"is not UTF-8: byte 63015 is 0xff\. "):
        read_table(tmp_path / "a.csv")


def test_a_row_that_does_not_fit_is_the_same_error(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [*ROWS, {"text": 5, "label": "good"}])
    with pytest.raises(DataError) as expected:
        classification({"test": path}, labels=["bad", "good"])
    with pytest.raises(DataError) as caught:
        classification({"test": path, "streaming": True}, labels=["bad", "good"])
    assert str(caught.value) == str(expected.value)
    assert f"line {MANY + 1}: 'text' holds 5 (int)" in str(caught.value)


# The cache


def test_a_file_is_turned_once_until_it_changes(tmp_path, monkeypatch, caplog):
    path = tmp_path / "a.csv"
    write_csv(path, REVIEWS)
    with caplog.at_level(logging.INFO, "prunekit"):
        stored_table(path)
    assert caplog.messages == [f"Turning {path} into rows on disk, in {cache_folder() / in_cache()[0]}"]
    with monkeypatch.context() as patch:
        patch.setitem(LINE_READERS, ".csv", None)
        assert stored_table(path).values("text", [0]) == ["a good b"]
    write_csv(path, [("new", "good"), *REVIEWS])
    assert stored_table(path).values("text", [0]) == ["new"]
    assert len(in_cache()) == 2


def test_what_was_interrupted_leaves_nothing_and_starts_again(tmp_path, monkeypatch):
    path = tmp_path / "a.jsonl"
    write_lines(path, ROWS)
    read = LINE_READERS[".jsonl"]

    def interrupted(path):
        for number, row in enumerate(read(path)):
            if number == 2 * BLOCK:
                raise KeyboardInterrupt
            yield row

    with monkeypatch.context() as patch:
        patch.setitem(LINE_READERS, ".jsonl", interrupted)
        with pytest.raises(KeyboardInterrupt):
            stored_table(path)
    assert in_cache() == []
    assert stored_table(path).size == MANY


def test_a_cache_that_cannot_be_written_to_is_an_error(tmp_path):
    write_csv(tmp_path / "a.csv", REVIEWS)
    (tmp_path / "cache").write_text("")
    with pytest.raises(
        DataError,
        match=r"a\.csv: its rows cannot be kept in .*/cache/prunekit/files: .* Set HF_DATASETS_CACHE to a",
    ):
        stored_table(tmp_path / "a.csv")


def test_a_damaged_cache_is_an_error_that_names_it(tmp_path):
    write_csv(tmp_path / "a.csv", REVIEWS)
    stored_table(tmp_path / "a.csv")
    folder = cache_folder() / in_cache()[0]
    (folder / "rows.arrow").write_bytes(b"half")
    with pytest.raises(DataError, match=rf"its rows in {folder} are damaged: .* Delete that folder to turn"):
        stored_table(tmp_path / "a.csv")


# Tasks


@pytest.mark.parametrize("make", [classification, text2text])
def test_examples_lengths_and_batches_are_those_that_memory_has(tmp_path, make):
    memory, disk = both({"train": write_lines(tmp_path / "a.jsonl", ROWS)}, make)
    assert disk.splits == memory.splits == ("train", "validation", "test")
    for split in memory.splits:
        examples = disk.examples(split)
        assert len(examples) == len(memory.examples(split))
        assert list(examples) == list(memory.examples(split))
        assert (examples[3], examples[-1]) == (memory.examples(split)[3], memory.examples(split)[-1])
        assert list(disk.lengths(split)) == list(memory.lengths(split))
    assert list(disk.examples("train")[5:300:7][2:9]) == memory.examples("train")[5:300:7][2:9]
    batches = [
        list(DataLoader(task.examples("train"), batch_sampler=[[4, 2], [0]], collate_fn=task.collate))
        for task in (memory, disk)
    ]
    assert [each["input_ids"].tolist() for each in batches[0]] == [
        each["input_ids"].tolist() for each in batches[1]
    ]


def test_labels_scores_and_calibration_are_those_that_memory_has(tmp_path):
    memory, disk = both({"train": write_lines(tmp_path / "a.jsonl", ROWS)})
    assert disk.labels == memory.labels == ("bad", "good")
    model = FirstWord([[0.0, 0.0]] * 4 + [[1.0, 0.0]] * 13, ("bad", "good"))
    for limit in (None, 5):
        assert disk.evaluate(model, "test", batch_size=4, limit=limit) == memory.evaluate(
            model, "test", batch_size=4, limit=limit
        )
    assert calibration_examples(disk, 4, seed=1) == calibration_examples(memory, 4, seed=1)


def test_generated_answers_are_scored_as_in_memory(tmp_path):
    memory, disk = both(
        {"test": write_lines(tmp_path / "a.jsonl", ROWS[:6])}, text2text, max_target_length=3, metrics=["per"]
    )
    model = tiny_model("t5")
    assert disk.evaluate(model, "test", batch_size=4) == memory.evaluate(model, "test", batch_size=4)


@pytest.mark.parametrize("make", [classification, text2text])
def test_what_is_cut_off_is_told_once_of_all_that_was_looked_at(tmp_path, caplog, make):
    key = "max_length" if make is classification else "max_source_length"
    path = write_lines(tmp_path / "a.jsonl", [*ROWS[:20], {"text": "a b c d e f", "label": "good"}])
    memory, disk = both(
        {"test": path}, make, **{key: 5}, **({"labels": ["bad", "good"]} if make is classification else {})
    )
    memory.examples("test")
    told = warnings_in(caplog)
    assert len(told) == 1
    caplog.clear()
    list(disk.examples("test")[:0])
    assert warnings_in(caplog) == []
    for _ in range(2):
        list(disk.lengths("test"))
        list(disk.examples("test"))
    list(disk.examples("test")[:9])
    assert (warnings_in(caplog), disk.truncated) == (told, memory.truncated)


# Memory


def alive(*kinds):
    gc.collect()
    return sum(type(each) in kinds for each in gc.get_objects())


def test_no_more_than_a_chunk_of_rows_or_examples_is_alive(tmp_path):
    before = alive(LabelledText, TokenizedText)
    task = classification({"train": write_lines(tmp_path / "a.jsonl", ROWS), "streaming": True})
    examples = task.examples("train")
    assert len(examples) > 2 * CHUNK
    most = max(alive(LabelledText, TokenizedText) for i, _ in enumerate(examples) if i % 100 == 0)
    assert before < most <= before + 2 * CHUNK
    task.lengths("train")[0]
    assert alive(LabelledText, TokenizedText) == before


def test_reading_and_checking_a_file_takes_much_less_memory_than_it_has_bytes(tmp_path):
    path = tmp_path / "a.jsonl"
    with path.open("w") as file:
        for i in range(8 * BLOCK):
            file.write(json.dumps({"text": f"{i} {'word ' * 2000}", "label": ["good", "bad"][i % 2]}) + "\n")
    classification(
        {"test": write_csv(tmp_path / "b.csv", REVIEWS), "streaming": True}, labels=["bad", "good"]
    )
    tracemalloc.start()
    pool = pa.total_allocated_bytes()
    task = classification({"train": str(path), "streaming": True})
    taken = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert task.labels == ("bad", "good")
    assert taken < path.stat().st_size / 2
    assert pa.total_allocated_bytes() - pool < path.stat().st_size / 8


def test_slices_make_nothing_and_lengths_of_a_slice_only_its_own(tmp_path, monkeypatch):
    task = text2text({"test": write_lines(tmp_path / "a.jsonl", ROWS), "streaming": True})
    made = []
    make = task._made

    def counted(pairs):
        made.append(len(pairs))
        return make(pairs)

    monkeypatch.setattr(task, "_made", counted)
    examples = task.examples("test")
    part = examples[10:600]
    assert (len(part), made) == (590, [])
    assert len(task.lengths("test")[:40]) == 40
    assert made == [40]
    part.__getitems__([3, 1, 2])
    assert made == [40, 3]
    lengths = task.lengths("test")
    assert sum(lengths) == sum(lengths[i] for i in range(MANY))
    assert (sum(made[2:]), max(made)) == (MANY, CHUNK)


def test_the_hubs_rows_stay_on_disk(monkeypatch):
    data = datasets.Dataset.from_dict(
        {"text": [each["text"] for each in ROWS], "label": [0, 1, 1] * 257 + [0, 1]}
    )
    monkeypatch.setattr(datasets, "load_dataset", lambda *arguments, **keys: {"test": data})
    hub = {"hub": "x/y", "revision": "0" * 40}
    memory, disk = (open_splits(DataSpec(**hub, streaming=on), "mine")["test"] for on in (False, True))
    assert isinstance(disk.tables[0].columns["text"](), DiskColumn)
    assert disk.texts("text", [7, 3]) == memory.texts("text", [7, 3])
    assert list(disk.each("label")) == list(enumerate(memory.values("label")))
