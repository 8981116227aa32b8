"""The surface of the Python API: its names, light and typed, and that the command line agrees."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest
from mypy import api as mypy

import prunekit
from prunekit import api
from prunekit.cli import compare, measure, prune
from prunekit.recipe import SpeedSpec

ROOT = Path(__file__).parents[1]
LIGHT = """
import sys, prunekit
dir(prunekit), prunekit.load_recipe, prunekit.PruningPlan
print(*[name for name in ("torch", "transformers", "datasets", "scipy") if name in sys.modules])
"""
PRINTED = {"as_json", "as_markdown", "as_latex", "as_csv", "sort", "frontier", "expected", "dry_run"}
"""Options that say what is printed: results in Python are data. (``--out FILE`` of ``speed`` likewise.)"""
OTHERWISE = {
    "recipe_file": "recipe",
    "overrides": "settings",
    "batch": "batch_size",
    "length": "input_tokens",
}


def test_names_that_need_no_model_load_nothing_heavy():
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


@pytest.mark.parametrize("name", prunekit.__all__)
def test_every_name_is_there(name):
    assert callable(getattr(prunekit, name))
    assert name in dir(prunekit)


def test_no_name_is_a_submodules():
    # The import of such a module would put it in the name's place.
    modules = {path.stem for path in (ROOT / "prunekit").iterdir()}
    assert modules & set(prunekit.__all__) == set()


def test_the_functions_are_those_of_the_api():
    assert [getattr(prunekit, name) for name in api.__all__] == [getattr(api, name) for name in api.__all__]


def test_a_misspelt_name_is_answered_with_the_nearest():
    with pytest.raises(
        AttributeError, match=r"module 'prunekit' has no attribute 'prun'; did you mean prune\?"
    ):
        _ = prunekit.prun


@pytest.mark.parametrize(
    ("command", "function", "left_out"),
    [
        (prune.prune, api.prune, set()),
        (compare.compare, api.compare, set()),
        (measure.evaluate, api.evaluate, set()),
        (measure.speed, api.measure_speed, {"out"}),
    ],
    ids=lambda item: getattr(item, "__name__", ""),
)
def test_a_function_takes_what_its_command_takes(command, function, left_out):
    options = set(inspect.signature(command).parameters) - PRINTED - left_out
    names = {{"compiled": "compile"}.get(name, OTHERWISE.get(name, name)) for name in options}
    assert names - set(inspect.signature(function).parameters) == set()


def test_speed_is_measured_as_a_recipe_does_by_default():
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(api.measure_speed).parameters.items()
        if name in SpeedSpec.model_fields
    }
    assert defaults == SpeedSpec().model_dump()


@pytest.mark.slow
def test_typed_programs_are_checked(monkeypatch):
    monkeypatch.chdir(ROOT)
    told, failed, code = mypy.run(["--strict", str(ROOT / "tests" / "typed_use.py")])
    assert (told.splitlines()[-1:], failed, code) == (["Success: no issues found in 1 source file"], "", 0), (
        told
    )
