"""Set-up files agree with each other: README, constraints, CI, hooks, import contracts."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CI = (ROOT / ".ci" / "run").read_text()


def setup_commands() -> list[str]:
    return [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("pip install ")]


def test_the_readme_has_one_command_to_prune_and_one_to_test():
    assert setup_commands() == [
        "pip install -c constraints.txt . && prunekit prune --method nash recipes/quickstart.yaml",
        "pip install -c constraints.txt -e '.[test]' && python -m pytest",
    ]


def test_ci_runs_the_readmes_test_command():
    assert "grep '^pip install ' README.md" in CI
    steps = re.findall(r'^run bash -c "\$(\w+)"$', CI, re.MULTILINE)
    assert steps == ["install", "tests"]


def test_pre_commit_runs_what_ci_runs_besides_the_tests():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    checks = [
        line for line in re.findall(r"^run (.+)$", CI, re.MULTILINE) if not re.match("python|pip|bash", line)
    ]
    assert [hook["entry"] for hook in hooks] == checks


def test_constraints_pin_every_dependency_to_a_version():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert [pin for pin in pins if not re.fullmatch(r"[a-z0-9-]+==[0-9][0-9.]*", pin)] == []
    project = PROJECT["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    names = {re.match(r"[\w-]+", requirement)[0].lower() for requirement in wanted}
    assert sorted(names - {pin.partition("==")[0] for pin in pins}) == []
    assert "torch==2.13.0" in pins


def test_every_plugin_is_packaged_typed_and_under_the_import_contracts():
    plugins = sorted(path.name for path in (ROOT / "plugins").iterdir() if (path / "__init__.py").is_file())
    tool = PROJECT["tool"]
    contracts = {contract["id"]: contract for contract in tool["importlinter"]["contracts"]}
    places = {
        "wheel": [Path(path).name for path in tool["hatch"]["build"]["targets"]["wheel"]["packages"][1:]],
        "mypy": tool["mypy"]["packages"][1:],
        "root_packages": tool["importlinter"]["root_packages"][1:],
        "core": contracts["core"]["forbidden_modules"],
        "plugins": contracts["plugins"]["modules"],
        "plugin-imports": contracts["plugin-imports"]["source_modules"],
    }
    assert {place: sorted(names) for place, names in places.items()} == dict.fromkeys(places, plugins)
