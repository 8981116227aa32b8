from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import entry_points

import pytest

HEAVY = ("torch", "transformers", "datasets", "scipy")

PROGRAM = """
import sys
from prunekit.cli import main
try:
    main(sys.argv[1:])
except SystemExit as ended:
    code = ended.code
print("loaded:", *[name for name in {heavy!r} if name in sys.modules], file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["prune", "--help"],
        ["speed", "--help"],
        ["methods", "list"],
        ["methods", "show", "nash"],
        ["recipes", "list"],
        ["prune", "nowhere.yaml"],
    ],
    ids=" ".join,
)
def test_commands_that_need_no_model_load_nothing_heavy(arguments):
    done = run(*arguments)
    assert done.stderr.splitlines()[-1] == "loaded:"
    assert done.returncode == (2 if "nowhere.yaml" in arguments else 0)


def run(*arguments, **environment):
    """A command in a process of its own, with the plugins that ship; its last line tells what it loaded."""
    own = [point.name for point in entry_points(group="prunekit") if point.dist.name == "prunekit"]
    return subprocess.run(
        [sys.executable, "-c", PROGRAM.format(heavy=HEAVY), *arguments],
        env={**os.environ, "PRUNEKIT_PLUGINS": ",".join(own), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


LIGHT = """
import pathlib
from pydantic import BaseModel
from prunekit.method import MethodInfo
from prunekit.plugins import hookimpl

with open(pathlib.Path(__file__).with_name("imported"), "a") as log:
    log.write(__name__ + "\\n")

class Config(BaseModel):
    pass

class Method:
    info = MethodInfo("{name}", "does nothing", "-", ("head",), ("bert",), False, "none", True)
    Config = Config

@hookimpl
def prunekit_register_methods():
    return [Method]
"""
BROKEN = LIGHT + "raise RuntimeError('no licence for {name}')\n"


@pytest.fixture
def twenty(tmp_path):
    """Twenty installed plugins, each a distribution of its own; the odd ones fail when they are imported."""
    for number in range(20):
        name = f"fake-{number:02}"
        module = name.replace("-", "_")
        (tmp_path / f"{module}.py").write_text((BROKEN if number % 2 else LIGHT).format(name=name))
        facts = tmp_path / f"{module}-1.{number}.dist-info"
        facts.mkdir()
        (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: dist-{name}\nVersion: 1.{number}\n")
        (facts / "entry_points.txt").write_text(f"[prunekit]\n{name} = {module}\n")
    return tmp_path


def run_with(folder, *arguments):
    chosen = ",".join(f"fake-{number:02}" for number in range(20))
    return run(*arguments, PYTHONPATH=str(folder), PRUNEKIT_PLUGINS=chosen)


def test_help_imports_none_of_twenty_plugins(twenty):
    done = run_with(twenty, "--help")
    assert done.returncode == 0
    assert done.stderr == "loaded:\n"
    assert not (twenty / "imported").exists()


def test_twenty_plugins_are_listed_each_imported_once_and_nothing_heavy_with_them(twenty):
    done = run_with(twenty, "methods", "list", "--json")
    rows = {row["name"]: row for row in json.loads(done.stdout)["methods"]}
    assert len(rows) == 20
    assert rows["fake-04"]["state"] == "ok"
    assert rows["fake-05"] == {
        "name": "fake-05",
        "version": "1.5",
        "distribution": "dist-fake-05",
        "state": "broken",
        "error": "RuntimeError: no licence for fake-05",
    }
    assert sorted((twenty / "imported").read_text().split()) == sorted(
        name.replace("-", "_") for name in rows
    )
    assert done.stderr.splitlines()[-1] == "loaded:"
