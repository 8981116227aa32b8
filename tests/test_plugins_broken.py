"""Beside broken plugins, installed as others are, every command does what it does without them."""

from __future__ import annotations

from functools import partial
from importlib.metadata import EntryPoint, entry_points

import pytest
import typer
from cli_calls import call_main

from prunekit import plugins
from prunekit.cli import app

pytestmark = pytest.mark.slow

RECIPE = """\
version: 1
model: embedded:bert-gloss
task: {name: gloss}
budget: {sparsity: 0.3}
methods: {magnitude: {}}
train: {max_steps: 1, batch_size: 2}
recover: {epochs: 0}
evaluate: {split: test, limit: 8}
speed: {batch_size: 1, rounds: 5}
"""
FAILING_HOOKS = """\
from prunekit.plugins import hookimpl

@hookimpl
def prunekit_register_methods():
    raise RuntimeError("no methods today")

@hookimpl
def prunekit_register_adapters():
    raise SystemExit(3)

@hookimpl
def prunekit_register_tasks():
    return [object]

@hookimpl
def prunekit_register_metrics():
    return None
"""

QUICK = {
    "methods list": [],
    "methods show": ["magnitude"],
    "methods check": ["magnitude", "--only", "info-complete"],
    "methods new": ["tidy-ones"],
    "adapters list": [],
    "adapters show": ["bert"],
    "adapters check": ["bert", "--only", "tiny-declared"],
    "tasks list": [],
    "tasks show": ["gloss"],
    "recipes list": [],
    "recipes copy": ["quickstart", "copied.yaml"],
    "recipes validate": ["recipe.yaml"],
    "recipes schema": [],
}
ON_A_RUN = {
    "show": ["run"],
    "verify": ["run"],
    "diff": ["embedded:bert-gloss", "run", "--task", "gloss", "--limit", "8"],
    "compare": ["run", "--out", "compared"],
    "evaluate": ["run", "--task", "gloss", "--limit", "8"],
    "speed": ["run", "--batch", "1", "--length", "8", "--rounds", "5"],
    "doctor": ["run", "--batch", "1", "--length", "8", "--rounds", "5"],
    "finetune": ["recipe.yaml", "--out", "tuned"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The current folder, with a recipe; two broken plugins are installed."""
    folder = tmp_path_factory.mktemp("broken")
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "failing_hooks.py").write_text(FAILING_HOOKS)
    broken = [
        EntryPoint("absent", "prunekit_absent", plugins.PROJECT),
        EntryPoint("failing", "failing_hooks", plugins.PROJECT),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(plugins.SELECT, raising=False)
        patch.syspath_prepend(folder)
        patch.chdir(folder)
        patch.setattr(plugins, "entry_points", lambda group: [*entry_points(group=group), *broken])
        plugins.get_registry.cache_clear()
        yield folder
    plugins.get_registry.cache_clear()


@pytest.fixture
def call(capsys, folder, module_on_one_thread):
    return partial(call_main, capsys)


def leaves(command, path=""):
    inner = getattr(command, "commands", None)
    if inner is None:
        return [path.strip()]
    return [leaf for name, each in inner.items() for leaf in leaves(each, f"{path} {name}")]


def test_every_command_is_tried_here():
    assert sorted([*QUICK, *ON_A_RUN, "prune"]) == sorted(leaves(typer.main.get_command(app)))


@pytest.mark.parametrize("command", QUICK)
def test_a_listing_or_check_works(call, command):
    result = call(*command.split(), *QUICK[command])
    assert result.code == 0, result.err


@pytest.mark.parametrize("kind", ["methods", "adapters", "tasks"])
def test_both_are_listed_as_broken(call, kind):
    rows = [line.split()[:2] for line in call(kind, "list").out.splitlines()]
    assert ["absent", "broken"] in rows
    assert ["failing", "broken"] in rows


@pytest.fixture(scope="module")
def run(folder, module_on_one_thread):
    """What ``prunekit prune`` wrote."""
    from prunekit.cli import main

    with pytest.raises(SystemExit) as ended:
        main(["prune", "recipe.yaml", "--out", "run"])
    assert ended.value.code == 0
    return folder / "run"


@pytest.mark.slow
def test_prune_works(run):
    assert (run / "report.json").is_file()


@pytest.mark.slow
@pytest.mark.usefixtures("run")
@pytest.mark.parametrize("command", ON_A_RUN)
def test_a_command_that_computes_works(call, command):
    result = call(command, *ON_A_RUN[command])
    assert result.code == 0, result.err
