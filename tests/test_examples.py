"""The examples for third parties, installed as their users install them, with a broken one among them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import typer
from installed_calls import Installed
from test_docs import commands

from prunekit.cli import app

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "docs" / "examples"
CI = (ROOT / ".ci" / "plugins").read_text()
RECIPE = """\
version: 1
model: embedded:bert-gloss
task: {name: gloss, max_length: 64}
budget: {sparsity: 0.4}
methods: {lp-norm: {}, l2: {method: lp-norm, p: 2}}
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    made = Installed(tmp_path_factory.mktemp("examples"))
    made.install(*(EXAMPLES / name for name in ("prunekit-magnitude", "prunekit-roberta", "broken")))
    return made


@pytest.fixture
def rows(environment, tmp_path):
    def of(kind):
        done = environment.sh(f"prunekit {kind} list --json", tmp_path)
        return {row["name"]: row for row in json.loads(done.stdout)[kind]}

    return of


@pytest.mark.parametrize(
    ("kind", "name", "distribution"),
    [("methods", "lp-norm", "prunekit-magnitude"), ("adapters", "roberta", "prunekit-roberta")],
)
def test_an_installed_example_is_listed_with_its_distribution(rows, kind, name, distribution):
    row = rows(kind)[name]
    assert (row["distribution"], row["version"], row["state"]) == (distribution, "0.1.0", "ok")


@pytest.mark.parametrize("kind", ["methods", "adapters", "tasks"])
def test_the_broken_example_is_listed_with_its_error(rows, kind):
    row = rows(kind)["broken"]
    assert (row["distribution"], row["state"]) == ("prunekit-broken", "broken")
    assert row["error"] == "ImportError: prunekit-broken always fails: no command may stop for it"


def test_a_recipe_takes_the_examples_method_and_its_key(environment, tmp_path):
    (tmp_path / "small.yaml").write_text(RECIPE)
    done = environment.sh("prunekit recipes validate small.yaml", tmp_path)
    assert (done.stdout, done.returncode) == ("small.yaml: valid\n", 0)


def test_the_examples_adapter_opens_a_model_that_the_examples_method_prunes(environment, tmp_path):
    script = (
        "from types import SimpleNamespace\n"
        "from prunekit.plugins import get_registry\n"
        "from prunekit.pruning.target import PrunableModel, find_adapter\n"
        "from prunekit.recipe import BudgetSpec\n"
        "from prunekit.testing import tiny_model\n"
        "registry = get_registry()\n"
        "model = tiny_model('roberta')\n"
        "target = PrunableModel(model, find_adapter(model, registry.adapters))\n"
        "method = registry.find('methods', 'lp-norm')\n"
        "plan = method(method.Config()).plan(\n"
        "    target, None, BudgetSpec(sparsity=0.5), SimpleNamespace(seed=0, progress=None)\n"
        ")\n"
        "before, after = model.num_parameters(), target.pruned(plan).model.num_parameters()\n"
        "print(target.adapter.name, after < before)\n"
    )
    (tmp_path / "script.py").write_text(script)
    assert environment.sh("python script.py", tmp_path).stdout == "roberta True\n"


@pytest.mark.parametrize("example", ["prunekit-magnitude", "prunekit-roberta"])
def test_the_examples_own_tests_pass(environment, tmp_path, example):
    command = f"python -m pytest -q -p no:cacheprovider {str(EXAMPLES / example / 'tests')!r}"
    done = environment.sh(command, tmp_path)
    assert done.returncode == 0, done.stdout


def test_the_method_is_about_sixty_lines():
    lines = (EXAMPLES / "prunekit-magnitude" / "prunekit_magnitude.py").read_text().splitlines()
    assert 50 < len([line for line in lines if line.strip()]) <= 65


def test_ci_runs_every_command_beside_the_broken_example():
    run = set(re.findall(r"^(?:run|quietly) (prunekit(?: [a-z]+)*)", CI, re.MULTILINE))
    groups = {"prunekit", "prunekit methods", "prunekit adapters", "prunekit tasks", "prunekit recipes"}
    wanted = set(commands(typer.main.get_command(app), "prunekit")) - groups
    # What follows a command's name may be one of its arguments.
    missing = {name for name in wanted if not any(f"{line} ".startswith(f"{name} ") for line in run)}
    assert missing == set()


def test_ci_installs_every_example():
    assert [path.name for path in EXAMPLES.iterdir() if f"docs/examples/{path.name}" not in CI] == []
