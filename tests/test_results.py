"""What is stored in docs/results, and that the pages show it (tests/test_docs.py compares their tables)."""

from __future__ import annotations

import html
import json
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STORED = sorted((ROOT / "docs" / "results").glob("*.json"))
COMPARED = [path for path in STORED if path.with_suffix(".svg").is_file()]


def read(path):
    return json.loads(path.read_text())


def names(paths):
    return {"argvalues": paths, "ids": [path.stem for path in paths]}


def test_every_shipped_comparison_has_its_results():
    recipes = {path.stem for path in (ROOT / "recipes" / "compare").glob("*.yaml")}
    assert {path.stem for path in COMPARED} == recipes


@pytest.mark.parametrize("path", **names(STORED))
def test_figures_name_the_command_that_made_them(path):
    command = read(path)["command"]
    assert command.startswith("prunekit ")
    recipes = [part for part in shlex.split(command) if part.endswith(".yaml")]
    assert all((ROOT / recipe).is_file() for recipe in recipes)
    pages = [" ".join((ROOT / page).read_text().split()) for page in ("README.md", "docs/results.md")]
    assert any(command in page for page in pages)


@pytest.mark.parametrize("path", **names(COMPARED))
def test_every_label_of_the_recipe_is_a_row_of_three_seeds_without_an_error(path):
    found = read(path)
    labels = list(found["recipe"]["methods"])
    assert [row["label"] for row in found["rows"] if not row["dense"]] == labels
    for row in found["rows"]:
        assert row["error"] is None
        assert [seed["error"] for seed in row["seeds"]] == ([] if row["dense"] else [None] * 3)


@pytest.mark.parametrize("path", **names(COMPARED))
def test_the_picture_names_every_row(path):
    texts = html.unescape(re.sub(r"<[^>]*>", " ", path.with_suffix(".svg").read_text()))
    for row in read(path)["rows"]:
        assert row["name"] in texts


@pytest.mark.parametrize("path", **names(STORED))
def test_no_folder_of_the_machine_is_named(path):
    texts = re.findall(r'"(/[^"]*)"', path.read_text())
    assert texts == []
