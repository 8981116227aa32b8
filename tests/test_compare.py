"""A whole comparison: runs, one clock, rows, and going on where it stopped."""

from __future__ import annotations

import json
import shutil
import time
from io import StringIO

import pytest
from compare_calls import cheap_recipe, compare, compare_finished, row_of
from pipeline_calls import REGISTRY, run, saved_tiny, snapshot
from rich.console import Console

from prunekit.comparison import runs as comparison_runs
from prunekit.comparison import timing
from prunekit.errors import BudgetError, ComparisonError, RecipeError, RunFolderError
from prunekit.progress import Progress
from prunekit.training.stage import Stage

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("module_on_one_thread")]


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    return saved_tiny(tmp_path_factory.mktemp("dense") / "t5")


@pytest.fixture(scope="module")
def compared(dense, tmp_path_factory):
    """A finished comparison's folder and what it found; tests leave them as they are."""
    out = tmp_path_factory.mktemp("compared") / "tiny"
    return out, compare(cheap_recipe(dense), out)


@pytest.fixture
def copied(compared, tmp_path):
    """A copy of the finished comparison, to go on with."""
    return shutil.copytree(compared[0], tmp_path / "tiny")


def refuse(*_, **__):
    raise AssertionError("computed again")


# What it leaves


def test_a_row_for_the_dense_model_and_one_a_method_in_the_recipes_order(compared):
    _, found = compared
    assert [row["name"] for row in found["rows"]] == ["dense", "half", "third"]
    assert [seed["seed"] for seed in row_of(found, "half")["seeds"]] == [0, 1]
    assert all(row["speed"]["speedup"] > 0 for row in found["rows"])


def test_the_files_for_people_are_there(compared):
    out, _ = compared
    for ending in ("json", "md", "tex", "csv", "html"):
        assert "third" in (out / f"comparison.{ending}").read_text(), ending


def test_the_dense_model_is_evaluated_once_for_all_runs(compared, monkeypatch, dense, tmp_path):
    out, _ = compared
    assert len(list((out / "evaluations").iterdir())) == 1
    answers = {path.read_text() for path in out.glob("*/answers-dense.jsonl")}
    assert len(list(out.glob("*/answers-dense.jsonl"))) == 4
    assert len(answers) == 1


def test_every_run_has_its_share_of_the_common_times(compared):
    out, found = compared
    for seed in row_of(found, "half")["seeds"]:
        report = json.loads((out / seed["run"] / "report.json").read_text())
        timed = found["speed"]["models"][seed["run"]]
        assert report["speed"]["pruned"]["samples_ms"] == timed["samples_ms"]
        assert report["speed"]["dense"] == found["speed"]["models"]["dense"]


def test_progress_says_how_each_run_went(dense, tmp_path):
    console = Console(file=StringIO(), width=200)
    compare(cheap_recipe(dense), tmp_path / "tiny", seeds=[0], progress=Progress(console))
    lines = console.file.getvalue().splitlines()
    assert lines[0] == "[1/2] half-s0: begun"
    assert lines[1].startswith("[1/2] half-s0: per ")
    assert " to go" in lines[1]


# Going on


def test_a_finished_comparison_given_again_computes_nothing(copied, dense, monkeypatch):
    before = snapshot(copied)
    monkeypatch.setattr(comparison_runs, "open_job", refuse)
    monkeypatch.setattr(timing, "measure_speed", refuse)
    compare(cheap_recipe(dense), copied)
    assert snapshot(copied) == before


def test_a_run_that_was_stopped_is_finished_and_the_others_stay(copied, dense, monkeypatch):
    (copied / "third-s1" / "quality.json").unlink()
    (copied / "third-s1" / "report.json").unlink()
    before = snapshot(copied / "half-s0")
    monkeypatch.setattr(timing, "measure_speed", refuse)  # the models are the same
    found = compare(cheap_recipe(dense), copied)
    assert row_of(found, "third")["error"] is None
    assert snapshot(copied / "half-s0") == before


def test_another_method_leaves_the_runs_and_times_all_anew(copied, dense, monkeypatch):
    plans = {path.parent.name: path.read_bytes() for path in copied.glob("*/plan.json")}
    recipe = cheap_recipe(dense)
    more = {**recipe.model_dump()["methods"], "most": {"method": "first", "share": 0.9}}
    found = compare(cheap_recipe(dense, methods=more), copied)
    assert [row["name"] for row in found["rows"]] == ["dense", "half", "third", "most"]
    assert {name: (copied / name / "plan.json").read_bytes() for name in plans} == plans
    assert set(found["speed"]["models"]) == {"dense", *(f"{each}-s{s}" for each in more for s in (0, 1))}


def test_a_recipe_that_says_other_things_now_is_refused(copied, dense):
    before = snapshot(copied / "half-s0")
    with pytest.raises(RunFolderError, match=r"half-s0 already holds a different run"):
        compare(cheap_recipe(dense, recover={"max_steps": 3}), copied)
    assert snapshot(copied / "half-s0") == before


# Rows that fail


@pytest.fixture
def failing(monkeypatch):
    """The method ``first`` fails where it is to keep three quarters."""
    plan = REGISTRY.methods["first"].plan

    def fail(self, target, task, budget, trainer):
        if self.config.share == 0.75 and trainer.seed in self.bad_seeds:
            raise self.error
        return plan(self, target, task, budget, trainer)

    monkeypatch.setattr(REGISTRY.methods["first"], "plan", fail)
    monkeypatch.setattr(REGISTRY.methods["first"], "bad_seeds", {0, 1}, raising=False)
    monkeypatch.setattr(REGISTRY.methods["first"], "error", BudgetError("no such budget"), raising=False)
    return REGISTRY.methods["first"]


def test_a_method_that_fails_is_a_row_with_its_error(tmp_path, dense, failing):
    found = compare(cheap_recipe(dense), tmp_path / "tiny")
    assert row_of(found, "third")["error"] == "no such budget"
    assert row_of(found, "half")["error"] is None
    assert "BudgetError: no such budget" in (tmp_path / "tiny" / "third-s0" / "error.txt").read_text()


def test_an_error_nobody_expected_loses_no_other_row(tmp_path, dense, failing, monkeypatch):
    monkeypatch.setattr(failing, "error", ZeroDivisionError("by zero"))
    found = compare(cheap_recipe(dense), tmp_path / "tiny")
    assert "ZeroDivisionError: by zero (see " in row_of(found, "third")["error"]
    assert row_of(found, "half")["speed"]["speedup"] > 0


def test_one_failed_seed_leaves_a_row_of_the_others(tmp_path, dense, failing, monkeypatch):
    monkeypatch.setattr(failing, "bad_seeds", {1})
    row = row_of(compare(cheap_recipe(dense), tmp_path / "tiny"), "third")
    assert row["error"] is None
    assert [seed["error"] for seed in row["seeds"]] == [None, "no such budget"]


def test_a_failed_run_is_tried_again(tmp_path, dense, failing, monkeypatch):
    compare(cheap_recipe(dense), tmp_path / "tiny")
    monkeypatch.setattr(failing, "bad_seeds", set())
    assert row_of(compare(cheap_recipe(dense), tmp_path / "tiny"), "third")["error"] is None
    assert not (tmp_path / "tiny" / "third-s0" / "error.txt").exists()


def test_ctrl_c_stops_the_whole_comparison(tmp_path, dense, failing, monkeypatch):
    monkeypatch.setattr(failing, "error", KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        compare(cheap_recipe(dense), tmp_path / "tiny")


def test_where_every_run_fails_there_is_still_a_table(tmp_path, dense, failing):
    recipe = cheap_recipe(dense, methods={"third": {"method": "first", "share": 0.75}})
    found = compare(recipe, tmp_path / "tiny")
    assert [row["error"] for row in found["rows"]] == [None, "no such budget"]
    assert found["speed"] is None
    assert "no such budget" in (tmp_path / "tiny" / "comparison.md").read_text()


# Sweeps and seeds


def test_a_sweep_makes_a_row_a_value_and_leaves_alone_what_it_does_not_touch(tmp_path, dense):
    methods = {"half": {"method": "first"}, "swept": {"method": "first", "share": 0.5}}

    def at(share):
        return cheap_recipe(dense, methods={**methods, "swept": {"method": "first", "share": share}})

    key = "methods.swept.share"
    points = [({key: share}, at(share)) for share in (0.5, 0.75)]
    found = compare(None, tmp_path / "tiny", seeds=[0], points=points)
    assert [row["name"] for row in found["rows"]] == ["dense", "half", "swept share=0.5", "swept share=0.75"]
    assert found["sweep"] == {"key": key, "values": [0.5, 0.75]}


def test_swept_values_make_folder_names_and_no_two_the_same(dense):
    key = "budget.scope"
    scopes = (["encoder.*"], ["encoder.*", "x/y"], ["encoder", "x", "y"])
    budgets = [{"sparsity": 0.3, "scope": scope} for scope in scopes]
    points = [({key: budget["scope"]}, cheap_recipe(dense, budget=budget)) for budget in budgets]
    cells = comparison_runs.wanted(points, [0], ["half"], REGISTRY)
    assert [cell.name for cell in cells] == [
        "half-scope-encoder.-s0",
        "half-scope-encoder.-x-y-s0",
        "half-scope-encoder-x-y-s0",
    ]
    again = comparison_runs.wanted([*points, *points[:1]], [0], ["half"], REGISTRY)
    assert len({cell.name for cell in again}) == 4


def test_a_sweep_of_what_all_rows_must_share_is_refused_before_anything_runs(tmp_path, dense):
    points = [({"evaluate.limit": limit}, cheap_recipe(dense, evaluate={"limit": limit})) for limit in (4, 8)]
    with pytest.raises(RecipeError, match=r"^--sweep evaluate\.limit: evaluate must be the same for all "):
        compare(None, tmp_path / "tiny", points=points)
    assert not (tmp_path / "tiny").exists()


def test_a_teacher_is_trained_once_for_all_seeds(tmp_path, dense):
    recipe = cheap_recipe(dense, teacher={"train": {"max_steps": 2}})
    found = compare(recipe, tmp_path / "tiny")
    assert len(list((tmp_path / "tiny" / "teachers").iterdir())) == 1
    assert row_of(found, "half")["error"] is None


def test_a_reference_that_is_no_row_is_refused_before_anything_runs(tmp_path, dense):
    said = r"^no row is called 'haf'; did you mean half\? To compare with: dense, half, third\.$"
    with pytest.raises(ComparisonError, match=said):
        compare(cheap_recipe(dense), tmp_path / "tiny", reference="haf")
    assert not (tmp_path / "tiny" / "half-s0").exists()


# Finished runs


@pytest.fixture(scope="module")
def two_runs(dense, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    recipe = cheap_recipe(dense)
    for label in recipe.methods:
        run(recipe, folder / label, label)
    return [folder / label for label in recipe.methods]


def test_finished_runs_are_compared_and_left_as_they_are(two_runs, tmp_path):
    before = [snapshot(folder) for folder in two_runs]
    found = compare_finished(two_runs, tmp_path / "both")
    assert [row["name"] for row in found["rows"]] == ["dense", "half", "third"]
    assert [snapshot(folder) for folder in two_runs] == before


def test_a_model_compared_with_itself_differs_in_nothing(two_runs, tmp_path):
    again = shutil.copytree(two_runs[0], tmp_path / "again")
    found = compare_finished([two_runs[0], again], tmp_path / "both", reference=f"half ({two_runs[0]})")
    row = row_of(found, f"half ({again})")
    assert {each["vs_reference"]["verdict"] for each in row["quality"].values()} == {"no difference"}
    assert row["speed"]["vs_reference"]["verdict"] == "no difference"


def test_runs_on_other_examples_are_refused_with_what_differs(two_runs, dense, tmp_path):
    other = tmp_path / "other"
    run(cheap_recipe(dense, evaluate={"limit": 4}), other, "half")
    with pytest.raises(ComparisonError, match=r"(?s)half and .*other differ:.*limit: 8 and 4"):
        compare_finished([two_runs[0], other], tmp_path / "both")


def test_a_folder_that_holds_no_run_is_named(two_runs, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ComparisonError, match=r"empty holds no report\.json, so it is no finished run\."):
        compare_finished([two_runs[0], tmp_path / "empty"], tmp_path / "both")


def test_another_comparison_in_the_folder_is_not_overwritten(two_runs, tmp_path):
    compare_finished(two_runs, tmp_path / "both")
    before = snapshot(tmp_path / "both")
    with pytest.raises(ComparisonError, match=r"both already holds the comparison of .*half, .*third\."):
        compare_finished(two_runs[:1], tmp_path / "both")
    assert snapshot(tmp_path / "both") == before


def test_seconds_before_an_interruption_count(tmp_path, dense, monkeypatch):
    update = Stage.update

    def stopped(stage, *arguments):
        if stage.done == 3:
            raise KeyboardInterrupt
        return update(stage, *arguments)

    recipe = cheap_recipe(dense, recover={"max_steps": 4, "checkpoint_every": 2})
    ticks = iter(range(0, 100_000, 10))
    with monkeypatch.context() as patch:
        patch.setattr(time, "perf_counter", lambda: next(ticks))
        patch.setattr(Stage, "update", stopped)
        with pytest.raises(KeyboardInterrupt):
            run(recipe, tmp_path / "run", "half")
    monkeypatch.setattr(time, "perf_counter", lambda: 0)
    assert run(recipe, tmp_path / "run", "half")["stages"]["recover_s"] >= 10


def test_runs_of_different_machines_are_compared_with_a_warning(two_runs, tmp_path):
    other = shutil.copytree(two_runs[1], tmp_path / "other")
    report = json.loads((other / "report.json").read_text())
    report["environment"]["cpu"] = "another"
    (other / "report.json").write_text(json.dumps(report))
    (other / "manifest.json").unlink()
    found = compare_finished([two_runs[0], other], tmp_path / "both")
    said = "runs were made on different machines or threads, so their times to prune do not compare"
    assert found["warnings"] == [said]


def test_runs_with_other_settings_of_speed_are_timed_with_the_first_ones_and_a_warning(
    two_runs, dense, tmp_path
):
    speed = {"batch_size": 3, "num_beams": 1, "new_tokens": 3, "rounds": 2, "warmup": 0, "threads": 1}
    run(cheap_recipe(dense, speed=speed), tmp_path / "other", "third")
    found = compare_finished([two_runs[0], tmp_path / "other"], tmp_path / "both")
    said = "runs ask for different settings of speed; all models were timed with the first run's"
    assert found["warnings"] == [said]
    assert (found["speed"]["batch_size"], found["speed"]["num_beams"]) == (2, 2)
