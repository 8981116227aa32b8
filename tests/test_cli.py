from __future__ import annotations

import json
import logging
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from cli_calls import RECIPE, call_main
from fake_plugins import Trim, fake_registry

import prunekit
from prunekit.errors import BudgetError
from prunekit.interrupts import Interrupted
from prunekit.recipe_models import EvaluateSpec, TaskSpec


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    registry = fake_registry()
    monkeypatch.setattr("prunekit.plugins.get_registry", lambda: registry)
    return registry


class Pipeline(SimpleNamespace):
    """Stands in for ``prunekit.pipeline``: remembers the calls, returns ``answer`` or raises ``error``."""

    def __init__(self):
        super().__init__(calls=[], answer={"label": "trim"}, error=None)
        for name in ("run", "dry_run", "finetune", "evaluate", "speed"):
            setattr(self, name, self._recorder(name))

    def _recorder(self, name):
        def record(*positional, **named):
            self.calls.append((name, positional, named))
            if self.error is not None:
                raise self.error
            return self.answer

        return record


@pytest.fixture
def pipeline(monkeypatch):
    fake = Pipeline()
    monkeypatch.setitem(sys.modules, "prunekit.pipeline", fake)
    monkeypatch.setattr(prunekit, "pipeline", fake, raising=False)
    return fake


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(RECIPE)
    return "small.yaml"


@pytest.fixture
def call(capsys):
    return partial(call_main, capsys)


@pytest.fixture
def summaries(monkeypatch):
    """Replaces the report's text with one line."""
    monkeypatch.setattr(
        "prunekit.reports.run.print_summary", lambda report, console: console.print(f"[b]{report['label']}")
    )


# prune


@pytest.mark.usefixtures("summaries")
def test_prune_runs_the_recipes_only_method_and_prints_its_summary(call, pipeline, recipe):
    result = call("prune", recipe)
    assert result.code == 0
    [(name, (loaded, label, out), named)] = pipeline.calls
    assert (name, loaded.seed, label, out.as_posix()) == ("run", 0, "trim", "runs/small-trim")
    assert set(named) == {"registry", "progress"}
    assert result.out == "[b]trim\n"
    assert result.err == ""


def test_prune_passes_on_label_folder_seed_and_overrides(call, pipeline, recipe):
    call(
        "prune",
        recipe,
        "--method",
        "trim",
        "--out",
        "here",
        "--seed",
        "7",
        "--set",
        "train.epochs=2",
        "--json",
    )
    [(_, (loaded, label, out), _)] = pipeline.calls
    assert (loaded.seed, loaded.train.epochs, label, out.as_posix()) == (7, 2, "trim", "here")


def test_prune_json_prints_the_report_and_nothing_else(call, pipeline, recipe):
    pipeline.answer = {"label": "trim", "achieved": {"sparsity": 0.3}}
    result = call("prune", recipe, "--json")
    assert json.loads(result.out) == pipeline.answer
    assert result.err == ""


def test_prune_says_when_a_method_runs_with_its_defaults(call, pipeline, recipe, registry):
    registry.methods["trim-other"] = Trim
    result = call("prune", recipe, "--method", "trim-other", "--json")
    assert json.loads(result.out) == pipeline.answer
    assert result.err == "small.yaml has no label trim-other; running that method with its defaults.\n"


def test_a_dry_run_shows_figures_and_runs_nothing(call, pipeline, recipe):
    pipeline.answer = {
        "shapes": [{"group": "encoder.0.ffn.neurons", "kept": 3, "of": 4}],
        "parameters": {"dense": 2800000, "share": 0.123456},
        "samples": [1.0, 2.0],
    }
    result = call("prune", recipe, "--dry-run")
    assert [name for name, _, _ in pipeline.calls] == ["dry_run"]
    assert result.out.splitlines() == [
        "shapes",
        "group                  kept  of",
        "encoder.0.ffn.neurons  3     4",
        "parameters",
        "  dense  2800000",
        "  share  0.1235",
        "samples     2 values",
    ]


def test_a_dry_run_can_print_json(call, pipeline, recipe):
    assert json.loads(call("prune", recipe, "--dry-run", "--json").out) == pipeline.answer


# Errors


@pytest.mark.usefixtures("pipeline")
def test_an_unknown_method_is_told_with_the_nearest(call, recipe):
    result = call("prune", recipe, "--method", "trym")
    assert result.code == 2
    assert result.err == (
        "RecipeError: --method trym: neither a label of the recipe nor an installed method; "
        "did you mean trim? (labels: trim; installed: needy, trim).\n"
    )
    assert result.out == ""


def test_a_missing_file_is_told(call):
    result = call("prune", "nowhere.yaml")
    assert result.code == 2
    assert result.err.startswith("RecipeError: nowhere.yaml: no such file.")


def test_a_file_that_is_not_yaml_is_told(call, tmp_path):
    (tmp_path / "bad.yaml").write_text("a: b: c")
    result = call("prune", str(tmp_path / "bad.yaml"))
    assert result.code == 2
    assert "bad.yaml is not valid YAML: line 1, column 5" in result.err


def test_all_faults_of_a_recipe_are_told_at_once(call, recipe, tmp_path):
    (tmp_path / recipe).write_text(
        RECIPE.replace("0.3", "60").replace("decoder_layers", "decoder_layer").replace("echo", "ecco")
    )
    result = call("prune", recipe)
    assert result.code == 2
    lines = result.err.splitlines()
    assert lines[0] == "RecipeError: small.yaml has 3 problems"
    assert "no task 'ecco' is installed; did you mean echo?" in lines[1]
    assert "budget.sparsity = 60" in lines[2]
    assert lines[2].endswith("did you mean 0.6?")
    assert "methods.trim.decoder_layer " in lines[3]
    assert "unknown key; did you mean decoder_layers? (trim takes:" in lines[3]


def test_what_prunekit_logs_is_told_on_standard_error(call, pipeline, recipe, monkeypatch):
    def run(*positional, **named):
        logging.getLogger("prunekit.scoring.cache").info("scores of %s reused", "trim")
        logging.getLogger("some_plugin").info("a detail")
        logging.getLogger("some_plugin").warning("a doubt")
        return {"label": "trim"}

    monkeypatch.setattr(pipeline, "run", run)
    result = call("prune", recipe, "--json")
    assert result.err == "scores of trim reused\na doubt\n"
    assert json.loads(result.out) == {"label": "trim"}


def test_what_is_logged_twice_is_told_once(call, pipeline, recipe, monkeypatch):
    def run(*positional, **named):
        for text in ("9 texts were cut off", "scores reused", "9 texts were cut off"):
            logging.getLogger("prunekit.tasks").info(text)
        return {"label": "trim"}

    monkeypatch.setattr(pipeline, "run", run)
    assert call("prune", recipe, "--json").err == "9 texts were cut off\nscores reused\n"


def test_an_error_of_prunekits_own_is_told_without_traceback(call, pipeline, recipe):
    pipeline.error = BudgetError("cannot keep [0] heads; the nearest is 1")
    result = call("prune", recipe)
    assert result.code == 1
    assert result.err == "BudgetError: cannot keep [0] heads; the nearest is 1\n"


@pytest.mark.parametrize(
    "arguments", [("--debug", "prune", "small.yaml"), ("prune", "small.yaml", "--debug")]
)
@pytest.mark.usefixtures("recipe")
def test_debug_shows_the_traceback_wherever_it_stands(call, pipeline, arguments):
    pipeline.error = BudgetError("cannot")
    result = call(*arguments)
    assert result.code == 1
    assert result.err.startswith("Traceback (most recent call last):\n")
    assert result.err.endswith("prunekit.errors.BudgetError: cannot\n")


def test_an_unexpected_error_is_one_line_and_the_way_to_see_more(call, pipeline, recipe):
    pipeline.error = ZeroDivisionError("oh\n  no")
    result = call("prune", recipe)
    assert result.code == 1
    assert result.err == (
        "ZeroDivisionError: oh no\n"
        "This is not a fault prunekit knows; add --debug to the command to see where it happened.\n"
    )


def test_an_interrupt_ends_with_the_shells_code(call, pipeline, recipe):
    pipeline.error = KeyboardInterrupt()
    result = call("prune", recipe)
    assert (result.code, result.err) == (130, f"{Interrupted()}\n")


def test_a_misspelt_command_is_a_usage_error(call):
    result = call("prne")
    assert result.code == 2
    assert "No such command 'prne'" in result.err


# finetune, evaluate


def test_finetune_trains_into_a_folder_of_the_recipes_name(call, pipeline, recipe):
    pipeline.answer = {"quality": {"per": 0.25}}
    result = call("finetune", recipe, "--seed", "2")
    [(name, (loaded, out), named)] = pipeline.calls
    assert (name, loaded.seed, out.as_posix(), set(named)) == (
        "finetune",
        2,
        "runs/small",
        {"registry", "progress"},
    )
    assert result.out == "quality\n  per  0.25\nWritten to runs/small\n"


@pytest.mark.parametrize("wanted", [True, False])
def test_finetune_uses_deterministic_kernels_where_they_are_asked_for(
    call, pipeline, recipe, monkeypatch, wanted
):
    seen = []
    monkeypatch.setattr(
        pipeline,
        "finetune",
        lambda *_, **__: seen.append(torch.are_deterministic_algorithms_enabled()) or {},
    )
    call("finetune", recipe, *(["--deterministic"] if wanted else []))
    assert seen == [wanted]


def test_evaluate_passes_on_its_options_and_leaves_the_rest_at_the_recipes_defaults(call, pipeline):
    call("evaluate", "embedded:tiny", "--task", "echo", "--limit", "5", "--num-beams", "2")
    [(name, positional, named)] = pipeline.calls
    assert name == "evaluate"
    assert positional == ("embedded:tiny", TaskSpec(name="echo"), EvaluateSpec(limit=5, num_beams=2))
    assert set(named) == {"registry", "progress"}


def test_evaluate_takes_task_and_settings_from_a_recipe_and_the_rest_from_its_options(call, pipeline, recipe):
    text = RECIPE.replace("task: {name: echo}", "task: {name: echo, words: 3}")
    Path(recipe).write_text(text + "evaluate: {limit: 7, num_beams: 4}\n")
    call("evaluate", "embedded:tiny", "--recipe", recipe, "--num-beams", "2")
    [(_, positional, _)] = pipeline.calls
    assert positional[1].options == {"words": 3}
    assert positional[2] == EvaluateSpec(limit=7, num_beams=2)


@pytest.mark.usefixtures("pipeline")
@pytest.mark.parametrize("options", [[], ["--task", "echo", "--recipe", "small.yaml"]])
def test_evaluate_wants_a_task_or_a_recipe(call, recipe, options):
    result = call("evaluate", "m", *options)
    assert result.code == 2
    assert result.err == "RecipeError: give either --task NAME or --recipe FILE.\n"


def test_evaluate_json_prints_the_result_and_nothing_else(call, pipeline):
    assert json.loads(call("evaluate", "m", "--task", "echo", "--json").out) == pipeline.answer


@pytest.mark.usefixtures("pipeline")
def test_evaluate_answers_an_unknown_task_with_the_nearest(call):
    result = call("evaluate", "m", "--task", "ecco")
    assert result.code == 1
    assert result.err == "PluginError: no task 'ecco' is installed; did you mean echo? (installed: echo).\n"


def test_the_version_is_printed(call):
    result = call("--version")
    assert (result.code, result.out.split()[0]) == (0, "prunekit")
