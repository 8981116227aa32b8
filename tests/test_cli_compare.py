"""``prunekit compare`` on the command line: what it asks for, and how it prints what it gets."""

from __future__ import annotations

import csv
import json
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from cli_calls import RECIPE, call_main
from comparison_calls import comparison
from fake_plugins import fake_registry

import prunekit.comparison


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    registry = fake_registry()
    monkeypatch.setattr("prunekit.plugins.get_registry", lambda: registry)


class About(NamedTuple):
    name: str
    command: str
    reference: str


@pytest.fixture
def comparing(monkeypatch):
    """Stands in for ``prunekit.comparison.compare``: remembers the calls and returns ``answer``."""
    fake = SimpleNamespace(calls=[], answer=comparison(), About=About)

    def recorder(name):
        def record(*positional, **named):
            fake.calls.append((name, positional, named))
            return fake.answer

        return record

    fake.compare_recipe, fake.compare_runs = recorder("recipe"), recorder("runs")
    monkeypatch.setitem(sys.modules, "prunekit.comparison.compare", fake)
    monkeypatch.setattr(prunekit.comparison, "compare", fake, raising=False)
    return fake


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(RECIPE)
    return "small.yaml"


@pytest.fixture
def call(capsys):
    return partial(call_main, capsys)


# What is asked for


def test_a_recipe_is_run_with_its_seed_into_a_folder_of_its_name(call, comparing, recipe):
    result = call("compare", recipe)
    ((kind, (recipes, about, folder), named),) = comparing.calls
    assert result.code == 0
    assert (kind, str(folder), about) == (
        "recipe",
        "runs/compare-small",
        About("small", "prunekit compare small.yaml", "dense"),
    )
    assert [(point, found.seed) for point, found in recipes] == [({}, 0)]
    assert list(named["seeds"]) == [0]


def test_seeds_count_on_from_the_recipes_own(call, comparing, recipe):
    call("compare", recipe, "--seeds", "3", "--set", "seed=5")
    assert list(comparing.calls[0][2]["seeds"]) == [5, 6, 7]


def test_a_sweep_is_the_recipe_once_for_each_value(call, comparing, recipe):
    call("compare", recipe, "--sweep", "budget.sparsity=0.5,0.6")
    recipes = comparing.calls[0][1][0]
    assert [(point, found.budget.sparsity) for point, found in recipes] == [
        ({"budget.sparsity": 0.5}, 0.5),
        ({"budget.sparsity": 0.6}, 0.6),
    ]


def test_the_command_that_made_it_is_told_without_how_it_was_printed(call, comparing, recipe):
    call("compare", recipe, "--seeds", "2", "--only", "tr*", "--reference", "trim", "--csv")
    about = comparing.calls[0][1][1]
    assert about.command == "prunekit compare small.yaml --seeds 2 --only 'tr*' --reference trim"
    assert about.reference == "trim"


@pytest.mark.parametrize("target", ["small.yaml", "runs"])
@pytest.mark.parametrize("wanted", [True, False])
def test_deterministic_kernels_are_used_where_they_are_asked_for(
    call, comparing, recipe, monkeypatch, target, wanted
):
    seen = []

    def compare(_, about, *rest, **named):
        seen.append((torch.are_deterministic_algorithms_enabled(), "--deterministic" in about.command))
        return comparing.answer

    monkeypatch.setattr(comparing, "compare_recipe", compare)
    monkeypatch.setattr(comparing, "compare_runs", compare)
    Path("runs").mkdir()
    call("compare", target, *(["--deterministic"] if wanted else []))
    assert seen == [(wanted, wanted)]
    assert not torch.are_deterministic_algorithms_enabled()


def test_run_folders_are_compared_as_they_are(call, comparing, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    call("compare", "a", "b", "--out", "both")
    kind, (folders, about, out), _ = comparing.calls[0]
    assert (kind, [str(folder) for folder in folders], str(out)) == ("runs", ["a", "b"], "both")
    assert about == About("both", "prunekit compare a b", "dense")


@pytest.mark.parametrize(
    "option", [("--seeds", "2"), ("--sweep", "budget.sparsity=0.5"), ("--set", "seed=1"), ("--only", "a")]
)
def test_what_belongs_to_a_recipe_is_refused_for_finished_runs(call, comparing, tmp_path, option):
    result = call("compare", str(tmp_path), *option)
    assert result.code == 2
    assert f"{option[0]} cannot change what is finished. Leave it out, or give the recipe." in result.err
    assert not comparing.calls


def test_a_sweep_without_values_is_refused_with_an_example(call, comparing, recipe):
    result = call("compare", recipe, "--sweep", "budget.sparsity")
    assert result.code == 2
    assert "is no sweep; give a recipe key and its values, such as budget.sparsity=0.5,0.6." in result.err


def test_every_value_of_a_sweep_is_checked_before_anything_runs(call, comparing, recipe):
    result = call("compare", recipe, "--sweep", "budget.sparsity=0.5,60")
    assert result.code == 2
    assert "budget.sparsity = 60" in result.err
    assert not comparing.calls


# How it is printed


def test_the_table_and_where_the_page_lies(call, comparing, recipe):
    result = call("compare", recipe)
    assert "nash-4" in result.out
    assert result.out.endswith("\nPage: runs/compare-small/comparison.html\n")


def test_json_is_the_whole_comparison(call, comparing, recipe):
    found = json.loads(call("compare", recipe, "--json").out)
    rows, expected = found.pop("rows"), comparing.answer.pop("rows")
    assert found == comparing.answer
    assert sorted(rows, key=str) == sorted(expected, key=str)


def test_csv_is_nothing_but_csv(call, comparing, recipe):
    rows = list(csv.DictReader(call("compare", recipe, "--csv").out.splitlines()))
    assert len(rows) == len(comparing.answer["rows"])


def test_latex_is_a_booktabs_table(call, comparing, recipe):
    assert r"\toprule" in call("compare", recipe, "--latex").out


def test_two_forms_at_once_are_refused(call, comparing, recipe):
    result = call("compare", recipe, "--csv", "--json")
    assert result.code == 2
    assert "give one of --csv, --json, not several." in result.err


def test_a_comparisons_folder_is_printed_again(call, comparing, tmp_path):
    (tmp_path / "comparison.json").write_text(json.dumps(comparing.answer))
    result = call("compare", str(tmp_path), "--markdown")
    assert result.code == 0
    assert "nash-4" in result.out
    assert not comparing.calls


def test_a_comparison_in_which_nothing_succeeded_ends_in_1(call, comparing, recipe):
    for row in comparing.answer["rows"]:
        row["error"] = None if row["dense"] else "failed"
    assert call("compare", recipe).code == 1


def test_a_failed_row_among_others_ends_in_0(call, comparing, recipe):
    assert any(row["error"] for row in comparing.answer["rows"])
    assert call("compare", recipe).code == 0
