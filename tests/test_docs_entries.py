"""What there is has a place in docs/: architectures, metrics, tasks, names, variables (and test_docs.py)."""

from __future__ import annotations

import importlib
import re

import pytest
from fences import ROOT, fences

import prunekit
import prunekit.testing
from prunekit.plugins import Registry, get_registry, plugin_sources
from prunekit.recipe import load_recipe

DOCS = ROOT / "docs"
DIRECTIVES = re.findall(r"^::: ([\w.]+)$", (DOCS / "api.md").read_text(), re.MULTILINE)


def shipped() -> Registry:
    """What this distribution registers; plugins that are installed beside it have pages of their own."""
    return Registry([source for source in plugin_sources() if source.distribution.split()[0] == "prunekit"])


def sections(page: str) -> dict[str, str]:
    """The text below each heading of the second level."""
    parts = re.split(r"^## (.+)$", (DOCS / page).read_text(), flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


@pytest.mark.parametrize("name", shipped().adapters)
def test_every_architecture_has_a_section_with_its_groups(name):
    section = next((text for text in sections("adapters.md").values() if f"`{name}`:" in text), "")
    groups = {row["group"] for row in shipped().adapters[name].describe()}
    assert sorted(group for group in groups if f"| `{group}` |" not in section) == []


def test_every_method_is_in_the_table_of_what_each_can_do():
    table = sections("methods/index.md")["What each can do"]
    assert re.findall(r"^\| \[([\w-]+)\]", table, re.MULTILINE) == list(shipped().methods)


def test_the_budgets_told_of_are_those_that_the_methods_take():
    # Who refuses what is tested with each method; here, that the page names the same ones.
    table = sections("methods/index.md")["Which budgets"]
    latency = re.search(r"^\| `latency` \| (.+) \|$", table, re.MULTILINE)[1]
    named = {name.lower() for name in re.findall(r"\w+", latency)}
    page = (DOCS / "latency.md").read_text()
    works = re.search(r"^(`optin`.+) work as below", page, re.MULTILINE)[1]
    assert named == {*re.findall(r"\w+", works.replace(" and ", " ")), "nash"}


def test_every_metric_has_a_row():
    rows = re.findall(r"^\| (`.+?) \|", (DOCS / "metrics.md").read_text(), re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([^`]+)`", row)}
    assert sorted(set(shipped().metrics) - named) == []


def test_every_task_has_a_row():
    text = "".join((DOCS / page).read_text() for page in ("tasks.md", "recipes.md"))
    assert [
        name for name in shipped().tasks if not re.search(rf"^(\||###) `{name}`", text, re.MULTILINE)
    ] == []


def test_every_everyday_name_has_its_documentation():
    wanted = [f"prunekit.{name}" for name in prunekit.__all__]
    wanted += [f"prunekit.testing.{name}" for name in prunekit.testing.__all__]
    assert [name for name in wanted if not any(same(name, found) for found in DIRECTIVES)] == []


def same(name: str, directive: str) -> bool:
    """Whether a directive is for that name, or for the same thing in the module that it comes from."""
    return directive == name or (
        directive.rpartition(".")[2] == name.rpartition(".")[2] and looked_up(directive) is looked_up(name)
    )


def looked_up(name: str) -> object:
    """What a dotted name stands for."""
    module, _, attribute = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError:
        return getattr(looked_up(module), attribute)


@pytest.mark.parametrize("name", DIRECTIVES)
def test_every_name_on_the_python_page_exists(name):
    assert looked_up(name) is not None


def test_every_name_on_the_python_page_stands_there_once():
    assert sorted(name for name in set(DIRECTIVES) if DIRECTIVES.count(name) > 1) == []


def test_every_environment_variable_is_explained():
    sources = [*(ROOT / "prunekit").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")]
    read = {name for source in sources for name in re.findall(r"PRUNEKIT_[A-Z_]+\b", source.read_text())}
    text = "".join(page.read_text() for page in DOCS.rglob("*.md"))
    assert sorted(name for name in read if name not in text) == []


def test_the_quickstart_page_shows_what_the_shipped_recipe_does(tmp_path):
    shown = next(one for one in fences(DOCS / "quickstart.md") if one.language == "yaml")
    file = tmp_path / "shown.yaml"
    file.write_text(shown.text)
    found, wanted = (
        load_recipe(path, registry=get_registry()) for path in (file, ROOT / "recipes" / "quickstart.yaml")
    )
    assert found == wanted.model_copy(update={"description": ""})


def test_questions_are_answered_in_a_few_words():
    text = (DOCS / "faq.md").read_text()
    parts = re.split(r"^### (.+)$", text, flags=re.MULTILINE)[1:]
    questions = dict(zip(parts[::2], parts[1::2], strict=True))
    assert len(questions) > 25
    assert [question for question, answer in questions.items() if not 5 < len(answer.split()) < 90] == []
