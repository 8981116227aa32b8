"""``prunekit verify`` on the command line: its lines, its JSON, its exit code."""

from __future__ import annotations

import json

import pytest
from cli_calls import call_main

from prunekit.verify_run import Check


@pytest.fixture
def checks(monkeypatch):
    """What the checks will be said to have found; also the call's arguments, once made."""
    found = {"runs/a": [Check("pickles", "ok", "none"), Check("tied weights", "skipped", "none tied")]}
    monkeypatch.setattr("prunekit.plugins.get_registry", dict)
    monkeypatch.setattr("prunekit.verify_run.verify_runs", lambda run, registry: found)
    return found


def test_each_check_is_a_line(checks, capsys):
    result = call_main(capsys, "verify", "runs/a")
    assert result.code == 0
    assert result.out.splitlines() == [
        "runs/a",
        "  ok       pickles                          none",
        "  skipped  tied weights                     none tied",
        "All well: 2 checks.",
    ]


def test_a_failed_check_is_exit_code_1(checks, capsys):
    checks["runs/a"].append(Check("recipe", "failed", "another"))
    result = call_main(capsys, "verify", "runs/a")
    assert result.code == 1
    assert result.out.splitlines()[-1] == "1 of 3 checks failed."


def test_json_has_every_check(checks, capsys):
    checks["runs/a"][1:] = [Check("recipe", "failed", "another")]
    result = call_main(capsys, "verify", "runs/a", "--json")
    assert result.code == 1
    assert json.loads(result.out) == {
        "ok": False,
        "failed": 1,
        "runs": [
            {
                "run": "runs/a",
                "checks": [
                    {"name": "pickles", "outcome": "ok", "found": "none"},
                    {"name": "recipe", "outcome": "failed", "found": "another"},
                ],
            }
        ],
    }


def test_text_of_a_run_does_not_steer_the_terminal(checks, capsys):
    checks["runs/a"] = [Check("recipe", "failed", "[red]\x1b[31m")]
    assert "\x1b" not in (out := call_main(capsys, "verify", "runs/a").out)
    assert "[red]" in out
