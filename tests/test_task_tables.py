"""Files as tables: every format, and what each fault says."""

from __future__ import annotations

import json

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from own_calls import REVIEWS, write_csv, write_lines

from prunekit.errors import DataError
from prunekit.tasks.data.tables import read_table

ROWS = [{"text": text, "label": label} for text, label in REVIEWS]


def listed(table):
    return list(zip(table.columns["text"](), table.columns["label"](), strict=True))


def fault(path):
    with pytest.raises(DataError) as caught:
        read_table(path)
    return str(caught.value)


# Formats


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.csv", lambda path: write_csv(path, REVIEWS)),
        ("a.tsv", lambda path: write_csv(path, REVIEWS, delimiter="\t")),
        ("a.jsonl", lambda path: write_lines(path, ROWS)),
        ("a.json", lambda path: path.write_text(json.dumps(ROWS, indent=2))),
        ("lines.json", lambda path: write_lines(path, ROWS)),
        ("a.parquet", lambda path: pq.write_table(pa.Table.from_pylist(ROWS), path)),
        ("UPPER.CSV", lambda path: write_csv(path, REVIEWS)),
    ],
)
def test_every_format_gives_the_same_rows(tmp_path, name, write):
    write(tmp_path / name)
    table = read_table(tmp_path / name)
    assert listed(table) == REVIEWS
    assert table.size == 4


def test_csv_values_stay_the_texts_they_are(tmp_path):
    rows = [("NA", "0"), ("null", "007"), ("1.50", "true"), ('a "b", c\nd', "1")]
    write_csv(tmp_path / "a.csv", rows)
    assert listed(read_table(tmp_path / "a.csv")) == rows


def test_a_byte_order_mark_and_windows_line_ends_do_not_show(tmp_path):
    (tmp_path / "a.csv").write_bytes("text,label\r\nä,1\r\n\r\nb,0\r\n".encode("utf-8-sig"))
    table = read_table(tmp_path / "a.csv")
    assert listed(table) == [("ä", "1"), ("b", "0")]
    assert table.where(1) == f"{tmp_path}/a.csv, line 4"


def test_a_text_may_be_as_long_as_a_book(tmp_path):
    text = "word " * 60_000
    write_csv(tmp_path / "a.csv", [(text, "1")])
    assert listed(read_table(tmp_path / "a.csv")) == [(text, "1")]


def test_lines_are_those_of_the_file_though_texts_have_line_breaks(tmp_path):
    write_csv(tmp_path / "a.csv", [("a\nb", "1"), ("c", "0")])
    assert read_table(tmp_path / "a.csv").where(1).endswith("a.csv, line 4")
    (tmp_path / "b.jsonl").write_text('{"text": "a\\u2028b"}\n\n{"text": "c\u2028d"}\n', encoding="utf-8")
    table = read_table(tmp_path / "b.jsonl")
    assert table.columns["text"]() == ["a\u2028b", "c\u2028d"]
    assert table.where(1).endswith("b.jsonl, line 3")


def test_a_parquet_file_from_datasets_keeps_its_class_names(tmp_path):
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
    )
    data = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features)
    pq.write_table(
        data.data.table.replace_schema_metadata(features.arrow_schema.metadata), tmp_path / "a.parquet"
    )
    table = read_table(tmp_path / "a.parquet")
    assert table.classes == {"label": ("bad", "good")}
    assert table.columns["label"]() == [1, 0]


# Malformed files


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.csv",
            "text,label\na,1\nb,c,0\n",
            "line 3: found 3 fields, but the first line names 2 columns (text, label)",
        ),
        ("a.csv", 'text,label\na,1\n"b" c,0\n', "line 3: ',' expected after '\"'. Double the quotes inside"),
        ("a.csv", 'text,label\n"a,1\nb,0\n', "line 3: unexpected end of data. Double the quotes"),
        ("a.csv", "text,text\na,1\n", "two columns are called 'text'. Give every column its own name."),
        ("a.csv", "text,label\n", "has no rows. Give a file with at least one."),
        ("a.csv", "", "has no rows."),
        (
            "a.jsonl",
            '{"text": "a"}\n{"text": }\n',
            "line 2: not JSON (Expecting value, column 10). Write one object",
        ),
        ("a.jsonl", '["a", 1]\n', 'line 1: found a list, but a row is an object such as {"text": "..."}.'),
        ("a.json", '[{"text": "a"},\n 5]', "row 2: found a int, but a row is an object"),
        (
            "a.json",
            '[{"text": "a"},\n',
            "line 2: not JSON (Expecting value, column 1). Write a list of objects",
        ),
        ("a.json", "[]", "has no rows."),
        ("a.parquet", "text,label\n", "is not a parquet file: "),
    ],
)
def test_a_malformed_file_is_an_error_that_names_file_and_row(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    text = fault(tmp_path / name)
    assert text.startswith(str(tmp_path / name))
    assert message in text


def test_a_file_in_another_encoding_is_an_error(tmp_path):
    (tmp_path / "a.csv").write_bytes("text,label\nä,1\n".encode("latin-1"))
    assert fault(tmp_path / "a.csv") == (
        f"{tmp_path}/a.csv is not UTF-8: byte 12 is 0xe4. Save it as UTF-8, which spreadsheets offer when "
        "they "
        "export."
    )


def test_a_folder_in_place_of_a_file_is_an_error(tmp_path):
    (tmp_path / "a.csv").mkdir()
    assert fault(tmp_path / "a.csv").endswith(
        f"is a folder ({tmp_path}/a.csv). Name the file, or the files as a list."
    )
