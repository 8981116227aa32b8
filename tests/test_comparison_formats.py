"""The comparison in every format, and text that none of them reads as markup."""

import csv
import io
import json
import subprocess
import sys

import pytest
from comparison_calls import ERROR, called, changed, comparison
from markdown_it import MarkdownIt
from rich.console import Console

from prunekit.errors import ComparisonError
from prunekit.reports.comparison import print_comparison, render

NASTY = (
    "=cmd|'x' [a](http://b) ![i](http://c) `t` *s* _u_ **b** ~~d~~ &lt; <b>h</b> $x$ [bold]z[/bold] \x1b[31m"
)


def printed(width, found=None, **flags):
    console = Console(file=io.StringIO(), width=width)
    print_comparison(found or comparison(), console, **flags)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [40, 60, 80, 120, 250])
def test_the_terminal_holds_every_cell_at_any_width(width):
    text = printed(width)
    assert max(map(len, text.splitlines())) <= width
    for piece in ("nash-2", "16.36", "2.04x", "1.36M", "5.2 min"):
        assert piece in text


def test_a_narrow_terminal_repeats_the_names():
    assert printed(80).count("│ nash-2 ") == 3
    assert printed(250).count("│ nash-2 ") == 1


def test_no_cell_is_folded_where_its_part_of_the_table_fits():
    assert "1.01x [0.98, 1.04] = │" in printed(80)


def test_markdown_is_a_title_a_table_and_notes():
    lines = render(comparison(), "markdown").splitlines()
    assert lines[0] == "# g2p: embedded:t5-g2p, task g2p"
    assert lines[2].startswith("| method | per (lower is better) | speedup |")
    assert lines[5].startswith("| nash-2 | 16.36 ± 0.45 ↓ | 2.04x [1.95, 2.11] | 171.2 |")
    assert "- ± is the standard deviation over seeds." in lines


def test_latex_is_a_table_with_the_rules_of_booktabs():
    lines = render(comparison(), "latex").splitlines()
    assert r"\begin{tabular}{lrrrrrrrrrrrr}" in lines
    assert lines.index(r"\toprule") < lines.index(r"\midrule") < lines.index(r"\bottomrule")
    [row] = [line for line in lines if line.startswith("nash-2 ")]
    assert row.startswith(
        r"nash-2 & 16.36 $\pm$ 0.45 $\downarrow$ & 2.04x {[}1.95, 2.11] & 171.2 & 1.36M ($-$51 \%)"
    )
    assert row.endswith(r"& 30 \% of encoder.{*} $\to$ 30.0 \% & 5.2 & 5.2 min & 1,200 & yes \\")


def test_csv_holds_raw_numbers_and_every_metric_with_its_interval():
    rows = {row["name"]: row for row in csv.DictReader(io.StringIO(render(comparison(), "csv")))}
    nash = rows["nash-2"]
    assert float(nash["wer"]) == pytest.approx(46.683, abs=1e-3)
    assert (nash["per_low"], nash["per_high"], nash["per_verdict"]) == ("6.9", "8.7", "worse")
    assert (nash["speedup_low"], nash["speed_verdict"]) == ("1.95", "faster")
    assert (nash["macs_dense"], nash["frontier"]) == ("20965248", "yes")
    assert (rows["uniform"]["seeds"], rows["uniform"]["failed_seeds"]) == ("0 2", "1")
    assert (rows["optin"]["per"], rows["optin"]["error"]) == ("", ERROR)


def test_csv_has_a_column_for_the_swept_key():
    found = changed("nash-2", point={"budget.sparsity": 0.5})
    rows = {row["name"]: row for row in csv.DictReader(io.StringIO(render(found, "csv")))}
    assert rows["nash-2"]["budget.sparsity"] == "0.5"
    assert rows["cofi"]["budget.sparsity"] == ""


def test_json_is_the_comparison_with_the_rows_asked_for():
    whole = json.loads(render(comparison(), "json", sort="name", only=["nash*"]))
    assert [row["name"] for row in whole["rows"]] == ["dense", "nash-2", "nash-4"]
    assert {**whole, "rows": 0} == {**comparison(), "rows": 0}


def test_an_unknown_format_is_refused_with_those_there_are():
    with pytest.raises(
        ComparisonError, match=r"is called 'tex'; did you mean latex\? There are: markdown, latex, csv"
    ):
        render(comparison(), "tex")


# Text of users, models and data


def test_the_terminal_reads_no_markup_and_no_control_characters():
    text = printed(250, called(NASTY))
    assert "[bold]z[/bold]" in text
    assert "\x1b" not in text


@pytest.mark.parametrize("start", ["", "# ", "- ", "1. ", "> ", "+ "])
def test_markdown_shows_names_as_they_are(start):
    name = start + NASTY.removesuffix(" \x1b[31m")
    parser = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    tokens = parser.parse(render(called(name), "markdown"))
    inline = [token for token in tokens if token.type == "inline"]
    children = {child.type for token in inline for child in token.children}
    assert children <= {"text", "text_special"}
    texts = ["".join(child.content for child in token.children) for token in inline]
    assert texts.count(name) == 2  # the row and the warning
    assert f"optin failed: {name}" in texts
    kinds = [token.type for token in tokens]
    assert (kinds.count("heading_open"), kinds.count("bullet_list_open")) == (1, 1)
    assert not {"ordered_list_open", "blockquote_open", "html_block", "fence"} & set(kinds)


def test_latex_spells_out_what_it_would_read():
    text = render(called(r"[a]*{b} \end{table} 50 % $x_1^2$ #~|<&>" + '"`'), "latex")
    escaped = (
        r"{[}a]{*}\{b\} \textbackslash{}end\{table\} 50 \% \$x\_1\textasciicircum{}2\$ "
        r"\#\textasciitilde{}\textbar{}\textless{}\&\textgreater{}\symbol{34}\symbol{96}"
    )
    assert rf"\caption{{{escaped}: embedded:t5-g2p, task g2p}}" in text
    assert f"\n{escaped} & " in text
    assert rf"{{\footnotesize {escaped}}}" in text


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1+x", "@SUM(A1)", "\t=1+1", " =1", "\r=1"])
def test_csv_gives_spreadsheets_no_formula(name):
    rows = list(csv.reader(io.StringIO(render(called(name), "csv"))))
    shown = [cell for row in rows for cell in row]
    assert f"'{name.strip()}" in shown
    assert not any(cell.startswith(("=", "+", "@", "\t", "\r")) for cell in shown)


def test_csv_leaves_negative_numbers_alone():
    rows = {row["name"]: row for row in csv.DictReader(io.StringIO(render(comparison(), "csv")))}
    assert rows["uniform"]["per_difference"] == "-0.312"


def test_the_tables_import_no_torch():
    heavy = "('torch', 'transformers', 'numpy')"
    code = f"import sys, prunekit.reports.comparison; print([m for m in {heavy} if m in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
