"""``methods check`` and ``adapters check``: what is tried, what is printed, how it ends."""

from __future__ import annotations

import json
import re
import sys
from functools import partial

import pytest
from cli_calls import call_main

MODULE = '''
from prunekit_baselines.config import UnitsConfig
from prunekit_baselines.units import Magnitude

class Small(Magnitude):
    """What it plans is not its own affair here."""

class Empty(Magnitude):
    """A budget, and nothing is cut."""
    def plan(self, target, task, budget, trainer):
        from prunekit.pruning.plan import PruningPlan
        return PruningPlan(keep={})

class Fails(Magnitude):
    def plan(self, target, task, budget, trainer):
        raise RuntimeError("[red]no such luck")
'''


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The current folder; it holds a module that is not installed."""
    monkeypatch.delitem(sys.modules, "small_methods", raising=False)
    (tmp_path / "small_methods.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def call(capsys, module_on_one_thread):
    return partial(call_main, capsys)


def check(call, name, *options):
    return call("methods", "check", name, "--model", "bert", *options)


def test_an_installed_method_is_checked_a_line_a_rule(call):
    result = check(call, "magnitude", "--only", "budget-met", "--only", "same-seed-same-plan")
    assert result.code == 0
    lines = result.out.splitlines()
    assert [line.split() for line in lines[:-1]] == [
        ["passed", "budget-met", "bert"],
        ["passed", "same-seed-same-plan", "bert"],
    ]
    assert re.fullmatch(r"magnitude: 2 passed in \d+ s", lines[-1])


def test_a_method_of_a_module_here_need_not_be_installed(call):
    result = check(call, "small_methods:Small", "--only", "budget-met")
    assert result.code == 0
    assert "small_methods:Small: 1 passed in" in result.out


def test_a_rule_that_fails_is_told_with_its_reason_and_ends_with_1(call):
    result = check(call, "small_methods:Empty", "--only", "budget-met", "--only", "plan-json-round-trip")
    assert result.code == 1
    failed, passed, summary = sorted(result.out.splitlines()[:-1]) + result.out.splitlines()[-1:]
    assert failed.split()[:3] == ["failed", "budget-met", "bert"]
    assert len(failed) > 60
    assert passed.split() == ["passed", "plan-json-round-trip", "bert"]
    assert summary.startswith("small_methods:Empty: 1 passed, 1 failed in")


def test_text_of_a_plugin_is_shown_as_it_is_and_its_traceback_with_debug(call):
    options = ("small_methods:Fails", "--only", "plan-runs")
    result = check(call, *options)
    assert "RuntimeError: [red]no such luck" in result.out
    assert "small_methods.py:" in result.out
    assert result.err == ""
    assert "Traceback" in check(call, *options, "--debug").err


def test_json_is_one_document_that_tells_all_outcomes(call):
    result = check(call, "small_methods:Empty", "--only", "budget-met", "--json")
    told = json.loads(result.out)
    assert result.code == 1
    assert (told["name"], told["device"]) == ("small_methods:Empty", "cpu")
    assert told["counts"] == {"passed": 0, "failed": 1, "expected": 0, "skipped": 0}
    [outcome] = told["outcomes"]
    assert (outcome["rule"], outcome["subject"], outcome["model"]) == ("budget-met", "magnitude", "bert")
    assert outcome["state"] == "failed"
    assert outcome["reason"]
    assert sorted(outcome) == ["model", "reason", "rule", "seconds", "state", "subject"]


def test_an_installed_adapter_is_checked_too(call):
    result = call("adapters", "check", "bert", "--only", "every-path-resolves")
    assert result.code == 0
    assert ["passed", "every-path-resolves", "bert"] in [line.split() for line in result.out.splitlines()]


def test_an_adapter_of_a_module_is_checked_by_its_name_there(call):
    result = call("adapters", "check", "prunekit.adapters.vit:VIT", "--only", "tiny-declared")
    assert result.code == 0
    assert "prunekit.adapters.vit:VIT: 1 passed" in result.out


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("magnitud", "no method 'magnitud' is installed; did you mean magnitude? (installed: "),
        ("nowhere:Small", "no module 'nowhere' is installed, nor is it in "),
        ("nowhere.inner:Small", "no module 'nowhere.inner' is installed, nor is it in "),
        (":Small", "no module '' is installed, nor is it in "),
        (
            "small_methods:Smal",
            "has no method class 'Smal'; did you mean Small? (there: Empty, ",
        ),
        ("small_methods:UnitsConfig", "small_methods:UnitsConfig is no method class: it has no 'info'."),
    ],
)
def test_a_name_that_is_none_is_answered_with_what_there_is(call, name, error):
    result = check(call, name)
    assert result.code == 1
    assert error in result.err
    assert result.out == ""


def test_a_module_that_fails_is_told_with_its_error(call, folder):
    (folder / "failing_method.py").write_text("import nothing_of_that_name\n")
    result = check(call, "failing_method:Any")
    assert result.code == 1
    assert result.err == (
        "PluginError: failing_method cannot be imported: ModuleNotFoundError: No module named "
        "'nothing_of_that_name'\n"
    )


def test_a_rule_that_does_not_exist_is_answered_with_the_nearest(call):
    result = check(call, "magnitude", "--only", "budget-mets")
    assert result.code == 1
    assert "there is no rule 'budget-mets'; did you mean budget-met?" in result.err


def test_it_is_an_error_if_nothing_was_checked(call):
    result = check(call, "magnitude", "--only", "config-defaults")
    assert result.code == 1
    assert result.err == (
        "PluginError: magnitude: none of the rules asked for applies to it, so nothing was checked.\n"
    )


def test_a_device_that_is_not_there_is_refused_at_once(call, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    result = check(call, "magnitude", "--device", "cuda")
    assert result.code == 1
    assert "no CUDA device" in result.err
    assert result.out == ""
