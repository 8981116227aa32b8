"""What is public stands in docs/api.md, exists, is documented, and is all that plugins use."""

from __future__ import annotations

import ast
import inspect
import re
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import pytest

import prunekit
import prunekit.errors
import prunekit.testing

ROOT = Path(__file__).parents[1]
DOCUMENTED = re.findall(r"^::: (\S+)$", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE)
PLUGINS = sorted((ROOT / "plugins").glob("*/__init__.py"))
EXAMPLES = sorted(path.parent for path in (ROOT / "docs" / "examples").glob("*/pyproject.toml"))
TEMPLATES = sorted((ROOT / "prunekit" / "scaffold").rglob("*.py.jinja"))


def resolved(name):
    """The object that a dotted name stands for."""
    module, _, attribute = name.rpartition(".")
    return getattr(import_module(module), attribute)


def home(name):
    """Where the object of that name is defined; constants do not know."""
    found = resolved(name)
    qualified = getattr(found, "__qualname__", None)
    return f"{found.__module__}.{qualified}" if qualified else name


def imported(source):
    """Dotted names that Python source imports from prunekit, under TYPE_CHECKING or not."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "prunekit":
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names if alias.name.split(".")[0] == "prunekit"}
    return names


def not_public(names):
    public = {*DOCUMENTED, *map(home, DOCUMENTED), "prunekit"}
    return sorted(names - public)


def docstring_of(name):
    """The docstring; of a constant, the text under its assignment."""
    found = resolved(name)
    if inspect.ismodule(found) or inspect.isclass(found) or inspect.isroutine(found):
        return inspect.getdoc(found)
    module, _, attribute = name.rpartition(".")
    body = ast.parse(Path(import_module(module).__file__).read_text()).body
    for node in body:
        if isinstance(node, ast.ImportFrom) and attribute in [alias.name for alias in node.names]:
            return docstring_of(f"{node.module}.{attribute}")
    for node, following in pairwise(body):
        targets = [target.id for target in getattr(node, "targets", []) if isinstance(target, ast.Name)]
        if attribute in targets and isinstance(following, ast.Expr):
            return ast.literal_eval(following.value)
    return None


@pytest.mark.parametrize("name", DOCUMENTED)
def test_a_documented_name_exists_and_has_a_docstring(name):
    assert docstring_of(name)


def test_no_name_is_documented_twice():
    homes = list(map(home, DOCUMENTED))
    assert sorted(name for name in homes if homes.count(name) > 1) == []


@pytest.mark.parametrize("module", [prunekit, prunekit.testing], ids=lambda module: module.__name__)
def test_every_name_that_a_package_offers_is_documented(module):
    assert [name for name in module.__all__ if f"{module.__name__}.{name}" not in DOCUMENTED] == []


def test_every_error_class_is_documented():
    classes = [name for name, item in vars(prunekit.errors).items() if inspect.isclass(item)]
    assert [name for name in classes if f"prunekit.errors.{name}" not in DOCUMENTED] == []


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda path: path.parent.name)
def test_a_first_party_plugin_imports_public_names_only(plugin):
    sources = [path.read_text() for path in plugin.parent.rglob("*.py")]
    assert not_public(set().union(*map(imported, sources))) == []


@pytest.mark.parametrize("folder", EXAMPLES, ids=lambda path: path.name)
def test_an_example_of_a_plugin_imports_public_names_only(folder):
    sources = [path.read_text() for path in folder.rglob("*.py")]
    assert not_public(set().union(*map(imported, sources))) == []


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_a_template_of_a_plugin_imports_public_names_only(template):
    lines = re.findall(r"^\s*(from prunekit\S* import .+)$", template.read_text(), re.MULTILINE)
    assert not_public(imported("\n".join(lines))) == []


def test_a_name_that_is_not_documented_is_noticed_under_type_checking_too():
    source = (
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n"
        "    from prunekit.job import Job\n"
        "def late():\n"
        "    import prunekit.pipeline\n"
        "from prunekit.pruning.plan import PruningPlan\n"
    )
    assert not_public(imported(source)) == ["prunekit.job.Job", "prunekit.pipeline"]


def test_every_package_says_that_it_is_typed():
    packages = [ROOT / "prunekit", *(path.parent for path in PLUGINS)]
    assert [path.name for path in packages if not (path / "py.typed").is_file()] == []
