"""``methods new``: what it writes works untouched, and it writes over nothing."""

from __future__ import annotations

import ast
import importlib
import shutil
import subprocess
import sys
import tomllib
from functools import partial

import pytest
from cli_calls import call_main

from prunekit.plugins import Registry, Source, get_registry, plugin_sources
from prunekit.recipe import load_recipe
from prunekit.scaffold import IMPORTED, TEMPLATES, rendered, write_method

pytestmark = pytest.mark.slow

NAME = "tidy-weights"
OTHER = "neat-weights"  # never imported, so that its module is not there


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A new method, its module importable."""
    folder = write_method(NAME, tmp_path_factory.mktemp("new") / "folder", registry=get_registry())
    sys.path[:0] = [str(folder), str(folder / "tests")]
    yield folder
    del sys.path[:2]
    for module in ("prunekit_tidy_weights", "test_tidy_weights"):
        sys.modules.pop(module, None)


def test_the_folder_is_a_whole_distribution(written):
    assert sorted(path.relative_to(written).as_posix() for path in written.rglob("*.*")) == [
        ".gitignore",
        "README.md",
        "prunekit_tidy_weights.py",
        "pyproject.toml",
        "recipe.yaml",
        "tests/test_tidy_weights.py",
    ]
    project = tomllib.loads((written / "pyproject.toml").read_text())
    assert project["project"]["name"] == "prunekit-tidy-weights"
    assert project["project"]["entry-points"] == {"prunekit": {NAME: "prunekit_tidy_weights"}}
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel == {"only-include": ["prunekit_tidy_weights.py"]}


@pytest.mark.usefixtures("module_on_one_thread")
def test_its_own_tests_pass_untouched(written):
    test = importlib.import_module("test_tidy_weights").test_it_keeps_the_rules_of_every_method
    [mark] = test.pytestmark
    cases = mark.args[1]
    assert len(cases) > 50
    for case in cases:
        assert not case.marks
        try:
            test(case.values[0])
        except pytest.skip.Exception:
            continue


@pytest.fixture(scope="module")
def registry(written):
    """What is installed, and the new method as if it were."""
    plugin = Source(NAME, "its-dist 0.1.0", lambda: importlib.import_module("prunekit_tidy_weights"))
    return Registry([*plugin_sources(), plugin])


def test_prunekit_finds_the_method_by_its_module(registry):
    assert registry.methods[NAME].__name__ == "TidyWeights"
    assert registry.broken == []


def test_its_recipe_is_valid_once_the_method_is_there(written, registry):
    recipe = load_recipe(written / "recipe.yaml", registry=registry)
    assert list(recipe.methods) == [NAME, "magnitude", "random"]


@pytest.mark.parametrize("name", ["x", OTHER, "a-method-whose-name-has-a-great-many-words-in-it"])
@pytest.mark.parametrize("arguments", [("check",), ("format", "--check")], ids=" ".join)
def test_ruff_has_nothing_to_say(tmp_path, name, arguments):
    folder = write_method(name, tmp_path / "new", registry=get_registry())
    done = subprocess.run(
        [shutil.which("ruff") or "ruff", *arguments, "--no-cache", "."],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_no_class_of_the_module_can_hide_what_it_imports():
    module = ast.parse(rendered("x")["prunekit_x.py"])
    imports = [node for node in ast.walk(module) if isinstance(node, ast.ImportFrom)]
    names = {alias.name for node in imports for alias in node.names}
    assert {name for name in names if name[0].isupper() and not name.isupper()} == set(IMPORTED)


def test_every_template_is_written():
    texts = rendered("x")
    assert len(texts) == len(list(TEMPLATES.glob("*.jinja")))
    assert [path for path, text in texts.items() if "{{" in text or not text.endswith("\n")] == []


# The command


@pytest.fixture
def call(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return partial(call_main, capsys, "methods", "new")


def test_the_command_writes_beside_and_tells_what_to_do_next(call, tmp_path):
    result = call(OTHER)
    assert (tmp_path / "prunekit-neat-weights" / "prunekit_neat_weights.py").is_file()
    assert result.out.splitlines() == [
        "Wrote prunekit-neat-weights. Next:",
        "  pip install -e 'prunekit-neat-weights[test]'",
        "  prunekit methods check neat-weights",
    ]


def test_out_names_the_folder_and_its_parents_are_made(call, tmp_path):
    assert "Wrote deep/mine." in call(OTHER, "--out", "deep/mine").out
    assert (tmp_path / "deep" / "mine" / "pyproject.toml").is_file()
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["mine"]


@pytest.mark.parametrize("what", ["folder", "file", "dangling"])
def test_nothing_is_overwritten(call, tmp_path, what):
    place = tmp_path / "prunekit-neat-weights"
    {"folder": place.mkdir, "file": place.touch, "dangling": lambda: place.symlink_to("nowhere")}[what]()
    result = call(OTHER)
    assert result.code == 1
    assert result.err == (
        "PluginError: prunekit-neat-weights is there already and was left alone. Choose another folder with "
        "--out, or remove it.\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["prunekit-neat-weights"]
    assert not (place.is_dir() and list(place.iterdir()))


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("TidyWeights", "'TidyWeights' cannot be a method's name; did you mean tidy-weights? Write words of"),
        ("tidy_weights", "did you mean tidy-weights?"),
        ("../tidy", "did you mean tidy?"),
        ("tidy--weights", "did you mean tidy-weights?"),
        ("8bit", "'8bit' cannot be a method's name. Write words of"),
        ("prunekit-tidy", "is what recipes say, without prunekit- before it. Write tidy;"),
        ("none", "a class of its module would be called None, which is something else there."),
        ("field", "called Field, which is something else there. Choose another name, such as field-score."),
        ("one-shot", "would be called OneShotConfig, which is something else there."),
        ("nash", "a method 'nash' is installed already, by prunekit "),
        ("baselines", "its module would be called prunekit_baselines, and one is installed already."),
    ],
)
def test_a_name_that_will_not_do_is_refused_and_nothing_written(call, tmp_path, name, error):
    result = call(name)
    assert result.code == 1
    assert error in result.err
    assert list(tmp_path.iterdir()) == []
