"""The recipes that ship."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from prunekit.plugins import get_registry
from prunekit.recipe import Recipe, load_recipe, resolve_method

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "recipes").rglob("*.y*ml"))

every_recipe = pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(ROOT).as_posix())


def load(file: Path) -> Recipe:
    return load_recipe(file, registry=get_registry())


@every_recipe
def test_it_is_valid_and_all_its_methods_can_be_run(file):
    recipe = load(file)
    labels = [resolve_method(recipe, label, get_registry()).label for label in recipe.methods]
    assert labels == list(recipe.methods)


@every_recipe
def test_it_says_in_one_line_what_it_does(file):
    description = load(file).description
    assert description
    assert "\n" not in description


@every_recipe
def test_its_header_shows_the_command_that_runs_it(file):
    header = file.read_text().partition("\nversion:")[0]
    assert all(line.startswith("#") for line in header.splitlines())
    verbs = "prune|finetune|compare"
    command = re.search(rf"^#   prunekit ({verbs})(?: --method (\S+))? (\S+)", header, re.MULTILINE)
    verb, label, path = command.groups()
    assert path == file.relative_to(ROOT).as_posix()
    assert label in load(file).methods if verb == "prune" else label is None
