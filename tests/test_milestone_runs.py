"""Whole runs with milestones: what is in the folder, what the report says, and what the option does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from cli_calls import call_main
from pipeline_calls import REGISTRY, quick_recipe, run, saved_tiny
from rich.console import Console
from transformers import AutoModelForSeq2SeqLM

import prunekit
from prunekit import manifest, milestones, pipeline
from prunekit.errors import CheckpointError, RecipeError
from prunekit.milestones import with_milestones
from prunekit.models import load_model
from prunekit.pruning.plan import PruningPlan
from prunekit.pruning.target import PrunableModel
from prunekit.recipe import dump_recipe, resolve_method
from prunekit.reports.run import print_summary, render_markdown

pytestmark = pytest.mark.usefixtures("module_on_one_thread")

QUICKSTART = str(Path(__file__).parents[1] / "recipes" / "quickstart.yaml")
NAMES = ["0.15", "0.20"]


def with_save_at(recipe, sparsities=(0.15, 0.2)):
    return with_milestones(recipe, resolve_method(recipe, None, REGISTRY), sparsities, registry=REGISTRY)


@pytest.fixture(scope="module")
def passed(tmp_path_factory, module_on_one_thread):
    """The folder and the report of a run with two milestones, beside the model that it pruned."""
    home = tmp_path_factory.mktemp("runs")
    recipe = with_save_at(quick_recipe(saved_tiny(home / "dense")))
    return home / "run", run(recipe, home / "run")


@pytest.mark.slow
def test_each_milestone_is_cut_to_itself_with_a_plan_and_a_model_that_loads_strictly(passed):
    folder, _ = passed
    assert sorted(path.name for path in (folder / milestones.FOLDER).iterdir()) == NAMES
    for name in NAMES:
        plan = PruningPlan.load(folder / milestones.FOLDER / name / "plan.json")
        assert plan.budget["sparsity"] == float(name)
        assert float(name) <= plan.achieved["sparsity"] < float(name) + 0.03
        assert (plan.method, plan.base_model) == ("nash", str(folder.parent / "dense"))
        path = folder / milestones.FOLDER / name / "model"
        model, info = AutoModelForSeq2SeqLM.from_pretrained(path, output_loading_info=True)
        assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        assert sum(p.numel() for p in model.parameters()) == plan.achieved["params"]["pruned"]


@pytest.mark.slow
def test_the_plan_of_a_milestone_cuts_the_dense_model_to_the_shapes_of_the_saved_one(passed):
    folder, _ = passed
    dense = PrunableModel.from_pretrained(folder.parent / "dense")
    cut = prunekit.apply_plan(dense, PruningPlan.load(folder / milestones.FOLDER / "0.20" / "plan.json"))
    saved = load_model(str(folder / milestones.FOLDER / "0.20" / "model"))
    assert {n: t.shape for n, t in cut.model.state_dict().items()} == {
        n: t.shape for n, t in saved.state_dict().items()
    }


@pytest.mark.slow
def test_milestones_are_scored_on_the_split_of_the_run(passed):
    folder, report = passed
    assert [row["sparsity"] for row in report["milestones"]] == [0.15, 0.2]
    for row in report["milestones"]:
        found = pipeline.evaluate(
            str(folder / row["folder"] / "model"),
            quick_recipe("").task,
            quick_recipe("").evaluate,
            registry=REGISTRY,
        )
        assert row["metrics"] == {name: found[name] for name in row["metrics"]}
        assert row["metrics"]["n"] == report["quality"]["n"]


@pytest.mark.slow
def test_reports_name_each_milestone_with_requested_achieved_step_and_quality(passed, capsys):
    folder, report = passed
    row = report["milestones"][1]
    achieved, quality = f"{100 * row['achieved']['sparsity']:.1f} %", f"{row['metrics']['per']:.4g}"
    text = render_markdown(report)
    assert text == (folder / "report.md").read_text()
    line = next(line for line in text.splitlines() if "milestones/0.20" in line)
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[:3] == ["20 %", achieved, str(row["step"])]
    assert cells[3].startswith(quality)
    assert "They are not recovered" in text
    assert "milestones/0.20" in (folder / "report.html").read_text()
    print_summary(report, Console(width=400))
    assert (
        f"Milestone 20 %: achieved {achieved} at step {row['step']}, per {quality}" in capsys.readouterr().out
    )


@pytest.mark.slow
def test_the_manifest_has_the_files_of_milestones(passed):
    folder, _ = passed
    entries = manifest.read(folder)
    for name in ("milestones.json", "milestones/0.15/plan.json", "milestones/0.20/model/model.safetensors"):
        assert entries[name]["stage"] == "milestones"
    assert manifest.check(folder) == []


@pytest.mark.slow
def test_a_run_with_milestones_has_the_plan_and_the_model_of_one_without(passed):
    folder, _ = passed
    alone = folder.parent / "alone"
    report = run(quick_recipe(folder.parent / "dense"), alone)
    plans = [PruningPlan.load(each / "plan.json") for each in (folder, alone)]
    assert plans[0].model_copy(update={"recipe_sha256": ""}) == plans[1].model_copy(
        update={"recipe_sha256": ""}
    )
    weights = [(each / "model" / "model.safetensors").read_bytes() for each in (folder, alone)]
    assert weights[0] == weights[1]
    assert "milestones" not in report
    assert not (alone / "milestones.json").exists()


@pytest.mark.slow
def test_a_crash_between_two_milestones_leaves_the_rest_of_the_run_and_gives_the_same(
    passed, tmp_path, monkeypatch
):
    folder, report = passed
    shutil.copytree(folder, tmp_path / "run", ignore=shutil.ignore_patterns("milestones*", "report*"))
    (tmp_path / "run" / "manifest.json").unlink()
    recipe = with_save_at(quick_recipe(folder.parent / "dense"))
    scored, calls = milestones._scored, []

    def crashing(job, model):
        calls.append(model)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return scored(job, model)

    monkeypatch.setattr(milestones, "_scored", crashing)
    with pytest.raises(KeyboardInterrupt):
        run(recipe, tmp_path / "run")
    assert not (tmp_path / "run" / "milestones.json").exists()
    again = run(recipe, tmp_path / "run")
    assert again["milestones"] == report["milestones"]
    for name in ("0.15/plan.json", "0.15/model/model.safetensors", "0.20/model/model.safetensors"):
        first, second = (each / "milestones" / name for each in (folder, tmp_path / "run"))
        assert first.read_bytes() == second.read_bytes()


@pytest.mark.slow
def test_a_lost_state_stops_the_milestones_and_nothing_before_them(passed, tmp_path):
    folder, _ = passed
    ignored = shutil.ignore_patterns("milestones*", "report*", "manifest.json", "prune-0.15.safetensors")
    shutil.copytree(folder, tmp_path / "run", ignore=ignored)
    with pytest.raises(CheckpointError, match=r"the state of the milestone 0\.15 is lost"):
        run(with_save_at(quick_recipe(folder.parent / "dense")), tmp_path / "run")
    assert json.loads((tmp_path / "run" / "quality.json").read_text())["n"] == 8


def test_the_option_changes_nothing_of_the_recipe_but_the_methods_key():
    recipe = quick_recipe("somewhere")
    changed = with_save_at(recipe)
    entry = recipe.methods["nash"].model_dump()
    assert changed.methods["nash"].model_dump() == {**entry, "save_at": [0.15, 0.2]}
    other = changed.model_copy(update={"methods": recipe.methods})
    assert dump_recipe(other) == dump_recipe(recipe)


def test_a_method_without_milestones_is_told_what_to_do_instead():
    recipe = quick_recipe("somewhere", methods={"m": {"method": "magnitude"}})
    with pytest.raises(RecipeError) as caught:
        with_save_at(recipe, (0.1, 0.2))
    said = str(caught.value)
    assert said.startswith(
        "--save-at: m (magnitude) passes no other sparsity on the way to its own, so there is nothing to "
        "save. Run it once for each, with `prunekit compare RECIPE --only m --sweep budget.sparsity=0.1,0.2`."
    )
    assert "Methods with milestones: cofi, nash" in said


def test_the_command_sets_the_milestones_of_the_chosen_label(monkeypatch, capsys, tmp_path):
    asked = []
    monkeypatch.setattr(pipeline, "run", lambda recipe, label, *_, **__: asked.append((recipe, label)) or {})
    arguments = ["prune", QUICKSTART, "--save-at", "0.15,0.2", "--out", str(tmp_path / "run"), "--json"]
    assert call_main(capsys, *arguments).code in (None, 0)
    [(recipe, label)] = asked
    assert label == "nash"
    assert recipe.methods["nash"].options["save_at"] == [0.15, 0.2]


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("0.1;0.2", "--save-at 0.1;0.2: write sparsities with commas between them, such as 0.3,0.5."),
        ("0.2,0.1", "each must be higher than the one before it"),
        ("1.5", "save_at"),
    ],
)
def test_values_that_are_no_milestones_are_refused(capsys, value, problem):
    told = call_main(capsys, "prune", QUICKSTART, "--save-at", value)
    assert told.code != 0
    assert problem in " ".join(told.err.replace("│", " ").split())
