"""The tutorial leads where it says: each of its steps is done, in order, in an environment of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from installed_calls import Installed
from tutorial_page import Walk, difference, read_steps, replaced

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[1] / "docs" / "writing-a-plugin.md"
STEPS = read_steps(PAGE)
TITLES = [step.title for step in STEPS]


class Tutorial:
    """The page, walked as far as a test needs it."""

    def __init__(self, folder: Path) -> None:
        self.environment = Installed(folder / "environment")
        home = folder / "home"
        home.mkdir()
        self.walk = Walk(self.environment, home)
        self.done = 0
        self.failed = ""

    def up_to(self, title: str) -> None:
        """Take the steps that were not taken yet, up to this one; none after one that failed."""
        for step in STEPS[self.done : TITLES.index(title) + 1]:
            if self.failed:
                pytest.skip(f"a step before it failed: {self.failed}")
            self.failed = step.title
            self.walk.take(step)
            self.failed = ""
            self.done += 1

    def ask(self, command: str) -> dict:
        """What a command that prints JSON says."""
        printed = self.environment.sh(command, self.walk.folder).stdout
        return json.loads(printed)


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory):
    return Tutorial(tmp_path_factory.mktemp("tutorial"))


@pytest.mark.slow
@pytest.mark.parametrize("title", TITLES)
def test_the_step_does_what_it_says(tutorial, title):
    tutorial.up_to(title)


@pytest.mark.slow
def test_it_ends_with_an_installed_method(tutorial):
    tutorial.up_to(TITLES[-1])
    rows = {row["name"]: row for row in tutorial.ask("prunekit methods list --json")["methods"]}
    assert (rows["taylor"]["state"], rows["taylor"]["distribution"]) == ("ok", "prunekit-taylor")


@pytest.mark.slow
def test_it_ends_with_a_row_in_a_comparison(tutorial):
    tutorial.up_to(TITLES[-1])
    rows = tutorial.ask("prunekit compare runs/compare-recipe --json")["rows"]
    assert {row["name"]: row["error"] for row in rows if row["method"] == "taylor"} == {
        "taylor": None,
        "taylor-abs": None,
    }


@pytest.mark.slow
def test_what_the_page_says_of_the_comparison_is_so(tutorial):
    tutorial.up_to(TITLES[-1])
    rows = tutorial.ask("prunekit compare runs/compare-recipe --json")["rows"]
    accuracy = {row["name"]: row["quality"]["accuracy"]["mean"] for row in rows}
    assert accuracy["taylor"] > accuracy["magnitude"] > accuracy["random"] > accuracy["taylor-abs"]


def test_every_block_of_the_page_is_one_that_is_run():
    kinds = {(block.language, bool(block.title)) for step in STEPS for block in step.blocks}
    assert kinds == {
        ("sh", False),
        ("sh", True),
        ("text", False),
        ("toml", False),
        ("python", True),
        ("yaml", True),
    }
    assert PAGE.read_text().count("\n```") == 2 * sum(len(step.blocks) for step in STEPS)


# What the tests above lean on


def test_shown_output_leaves_out_lines_ends_and_figures():
    shown = "...\ntaylor: 20 passed in 6 s\nkept  0.5 …\n...\n"
    assert difference(shown, "first\ntaylor: 21 passed in 12 s\nkept 0.25 of it\nmore\n") is None


@pytest.mark.parametrize(
    ("shown", "printed", "wrong"),
    [
        ("one\ntwo\n", "one\n2\n", "no line like 'two' at line 2"),
        ("...\ntwo\n", "one\n", "no line like 'two'"),
        ("one\n", "one\ntwo\n", "'two' was printed too"),
        ("20 passed\n", "20 failed\n", "no line like '20 passed' at line 1"),
    ],
)
def test_output_that_is_not_as_shown_is_told(shown, printed, wrong):
    assert difference(shown, printed) == wrong


def test_a_block_of_definitions_replaces_those_of_the_same_name():
    text = "import a\n\n\ndef f():\n    return 1\n\n\ndef g():\n    return 2\n"
    assert replaced(text, "def f():\n    return 3\n") == text.replace("return 1", "return 3")


def test_any_other_block_is_the_whole_file():
    assert replaced("a: 1\n", "b: 2\n") == "b: 2\n"
    assert replaced("import a\n", "import b\n") == "import b\n"
