"""Rows of data that want to hurt: read as the characters they are, shown as these, or refused by line."""

import json

import pytest
from own_calls import write_csv
from page_calls import run_page

from prunekit.errors import DataError
from prunekit.reports.markdown import escape
from prunekit.shown import visible
from prunekit.tasks.data.source import DataSpec, open_splits

UGLY = [
    "\x1b[31mred\x1b[0m",
    "[bold]rich[/bold] [link=x]y[/link]",
    "<script>alert(1)</script>",
    "=HYPERLINK(1)",
    "a\x00b\x07",
    "\u202eturned",
    "]]> --> ${x} {{ y }} {% z %}",
    "NaN",
    '"quoted", and more',
]


def texts(tmp_path, lines):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f"{line}\n" for line in lines))
    return open_splits(DataSpec(test=str(path)), "own")["test"].texts("text")


def test_texts_are_read_as_the_characters_they_are(tmp_path):
    found = texts(tmp_path, [json.dumps({"text": text}) for text in UGLY])
    assert sorted(found) == sorted(UGLY)


def test_texts_in_csv_are_read_as_the_characters_they_are(tmp_path):
    ugly = [text for text in UGLY if "\x00" not in text]
    path = write_csv(tmp_path / "rows.csv", [(text, "x") for text in ugly])
    assert sorted(open_splits(DataSpec(test=path), "own")["test"].texts("text")) == sorted(ugly)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[" * 100_000, "rows.jsonl, line 1: found values too deep inside each other. Correct the row or"),
        (
            '{"text": 1' + "0" * 5000 + "}",
            "line 1: found a number of thousands of digits. Correct the row",
        ),
        (
            '{"text": "\\ud800"}',
            "'text' holds half a character, U+D800, which no file takes. Correct",
        ),
        ('{"text": NaN}', "'text' holds nan (float), but a text is needed. Correct the row or leave it out."),
        ('{"text": {"a": 1}}', "'text' holds {'a': 1} (dict), but a text is needed."),
        ("{", "rows.jsonl, line 1: not JSON ("),
    ],
)
def test_a_row_beyond_the_limits_is_refused_by_line(line, said, tmp_path):
    with pytest.raises(DataError) as caught:
        texts(tmp_path, [line])
    assert said in str(caught.value)


@pytest.mark.parametrize("text", UGLY)
def test_no_text_steers_a_terminal(text):
    assert visible(text).isprintable()


@pytest.mark.parametrize("text", UGLY)
def test_no_text_becomes_markup_in_a_page(text):
    page = run_page(label=text, model=text, task=text, log=[])
    assert page.count("<script") == 1
    assert "alert(1)</script>" not in page


@pytest.mark.parametrize("text", ["<b>x</b>", "[a](b)", "*x* _y_", "`x`", "a|b", "$x$", "&amp;"])
def test_no_text_becomes_markup_in_markdown(text):
    assert escape(text) != text
