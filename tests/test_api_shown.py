"""How objects show themselves: readable at a prompt, escaped in a notebook."""

from __future__ import annotations

from pathlib import Path

import pytest
from comparison_calls import COMPARISON
from report_calls import REPORT
from rich.console import Console

import prunekit
from prunekit.progress import Progress
from prunekit.pruning.units import UnitGroup, UnitGroups
from prunekit.results import Comparison, Quality, Report, Speed
from prunekit.shown import Shown, as_html, as_text
from prunekit.testing.tiny import tiny_model

NASTY = "<script>[red]\x1b[2J</script>"


def test_columns_are_aligned_and_lines_do_not_end_in_blanks():
    table = Shown("Title", ("name", "size"), [("a", "1"), ("long name", "")], ["Note."])
    assert as_text([table]).splitlines() == ["Title", "name       size", "a          1", "long name", "Note."]


def test_wide_characters_count_twice():
    assert as_text([Shown("", ("a", "b"), [("中", "x")])]).splitlines() == ["a   b", "中  x"]


def test_html_is_escaped_and_steers_no_terminal():
    shown = as_html([Shown(NASTY, (NASTY,), [(NASTY,)], [NASTY])])
    assert shown.count("&lt;script&gt;[red] [2J&lt;/script&gt;") == 4
    assert "<script>" not in shown
    assert "\x1b" not in shown


def test_groups_of_blocks_that_are_alike_share_a_line():
    sizes = (4, 4, 2, 4)
    groups = UnitGroups(
        {f"encoder.{i}.ffn.neurons": UnitGroup("", "neuron", size) for i, size in enumerate(sizes)}
    )
    groups["encoder.blocks"] = UnitGroup("encoder.blocks", "block", 4)
    assert repr(groups).splitlines() == [
        "5 groups of units",
        "group                       kind    size  width",
        "encoder.{0..1}.ffn.neurons  neuron  4     1",
        "encoder.2.ffn.neurons       neuron  2     1",
        "encoder.3.ffn.neurons       neuron  4     1",
        "encoder.blocks              block   4     1",
        "encoder.{0..1}.ffn.neurons: one such group in each of these blocks.",
    ]


def test_a_model_says_what_it_is_in_a_line():
    shown = repr(prunekit.PrunableModel(tiny_model("t5")))
    assert shown.startswith(
        "PrunableModel(T5ForConditionalGeneration, adapter t5, encoder of 3 blocks and decoder of 3 blocks, "
    )
    assert shown.endswith(" parameters)")


def test_a_plan_shows_counts_and_the_first_units():
    plan = prunekit.PruningPlan(keep={"a": tuple(range(30)), "b": (1, 5)}, method="nash", base_model="mine")
    assert repr(plan).splitlines() == [
        "PruningPlan of nash for mine: 2 groups named, all others stay whole",
        "group  kept  units",
        "a      30    [0, 1, 2, 3, 4, 5, 6, 7, …]",
        "b      2     [1, 5]",
    ]
    assert str(plan) == repr(plan)


def test_a_long_plan_is_cut_off():
    plan = prunekit.PruningPlan(keep={f"g{i}": (0,) for i in range(30)})
    assert repr(plan).splitlines()[-1] == "and 6 more groups"


def test_a_report_shows_what_decides():
    shown = repr(Report(REPORT))
    assert shown.splitlines()[1].split() == ["requested", "achieved", "measured"]
    assert f"Report: {REPORT['run']}/report.md" in shown


def test_a_comparison_shows_a_line_a_row():
    lines = repr(Comparison(COMPARISON, Path("runs/both"))).splitlines()
    for row in COMPARISON["rows"]:
        assert any(line.startswith(row["name"]) for line in lines)
    assert lines[-1] == "Page: runs/both/comparison.html"


def test_quality_shows_each_metric_with_its_error():
    task = {"name": "echo"}
    found = {"model": "m", "task": task, "split": "test", "per": 9.1, "per_stderr": 0.25, "n": 1200}
    assert repr(Quality(found)).splitlines() == [
        "m, task echo, split test: 1,200 examples",
        "metric  value  standard error",
        "per     9.1    0.25",
    ]


def test_speed_says_what_could_not_be_measured():
    cell = {"batch_size": 2, "input_tokens": None, "reference": "m", "models": {"m": {"error": "too large"}}}
    shown = repr(Speed({"reference": "m", "cells": [cell], "environment": {}}))
    assert shown.splitlines()[0] == "Nothing could be measured."
    assert shown.splitlines()[-1] == "m: too large"


@pytest.mark.parametrize("installed", [True, False])
def test_bars_are_drawn_in_a_notebook_that_has_widgets(monkeypatch, installed):
    monkeypatch.setattr("prunekit.progress.find_spec", lambda name: object() if installed else None)
    console = Console(force_jupyter=True)
    assert Progress(console).enabled is installed
    assert not Progress(console, quiet=True).enabled


@pytest.mark.parametrize(
    "shown",
    [
        Report({**REPORT, "model": NASTY}),
        Comparison({**COMPARISON, "name": NASTY}, Path("c")),
        Quality({"model": NASTY, "task": {"name": "echo"}, "split": "test", "n": 1}),
        prunekit.PruningPlan(keep={NASTY: (0,)}),
        UnitGroups({NASTY: UnitGroup(NASTY, "head", 2)}),
    ],
    ids=lambda shown: type(shown).__name__,
)
def test_no_text_is_read_as_markup(shown):
    assert "&lt;script&gt;" in shown._repr_html_()
    assert "<script>" not in shown._repr_html_()
    assert "\x1b" not in shown._repr_html_() + repr(shown)
