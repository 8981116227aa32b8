"""A recipe straight through: the files of a run, what they say, and going on after a crash."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import torch
from pipeline_calls import REGISTRY, logits, quick_recipe, run, saved_tiny, snapshot
from toy_task import copy_task

from prunekit import job, pipeline
from prunekit.errors import PrunekitError, RunFolderError, VerificationError
from prunekit.models import load_model
from prunekit.pruning.plan import PruningPlan
from prunekit.recipe import EvaluateSpec, SpeedSpec, TaskSpec, load_recipe

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("module_on_one_thread")]


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    return saved_tiny(tmp_path_factory.mktemp("dense") / "t5")


@pytest.fixture(scope="module")
def finished(dense, tmp_path_factory):
    """A finished run's folder and its report; tests leave them as they are."""
    out = tmp_path_factory.mktemp("runs") / "nash"
    return out, run(quick_recipe(dense), out)


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the finished run, to be spoilt."""
    return shutil.copytree(finished[0], tmp_path / "run")


# What a run leaves


def test_a_run_leaves_its_files(finished):
    out, report = finished
    assert sorted(path.name for path in out.iterdir()) == [
        "answers-dense.jsonl",
        "answers-pruned.jsonl",
        "checkpoints",
        "manifest.json",
        "model",
        "plan.json",
        "quality.json",
        "recipe.yaml",
        "recover.json",
        "report.html",
        "report.json",
        "report.md",
        "speed.json",
        "train.jsonl",
        "verify.json",
    ]
    assert json.loads((out / "report.json").read_text()) == report
    assert [path for path in out.rglob("*.partial")] == []
    assert {path.suffix for path in (out / "checkpoints").glob("*-*")} == {".safetensors"}


def test_the_report_has_the_keys_that_others_rely_on(finished):
    _, report = finished
    assert report.keys() >= {"format", "prunekit_version", "method", "label", "model", "task", "seed"}
    expected = {
        "requested": {"metric", "sparsity", "scope"},
        "achieved": {
            "params",
            "prunable_params",
            "sparsity",
            "encoder_sparsity",
            "decoder_sparsity",
            "macs",
        },
        "quality": {"primary", "higher_is_better", "dense", "pruned", "n"},
        "speed": {
            "device",
            "dtype",
            "batch_size",
            "dense",
            "pruned",
            "speedup",
            "speedup_low",
            "speedup_high",
        },
        "verify": {"masked_vs_pruned_max_abs", "tolerance", "reload_max_abs", "cached_equals_uncached"},
        "stages": {"plan_s", "recover_s", "evaluate_s", "speed_s"},
        "environment": {"python", "torch", "transformers", "cpu", "gpu", "threads"},
    }
    assert {key: wanted - report[key].keys() for key, wanted in expected.items()} == {
        key: set() for key in expected
    }
    wanted = {"dense", "pruned", "ratio", "length", "target_length", "prunable", "inputs"}
    assert report["achieved"]["macs"].keys() == wanted
    for side in ("dense", "pruned"):
        assert report["speed"][side].keys() >= {"median_ms", "p10_ms", "p90_ms", "peak_mib"}
        assert report["quality"][side].keys() == {"per", "per_stderr", "wer", "wer_stderr", "n"}
    assert (report["method"], report["label"], report["seed"]) == ("nash", "nash", 0)
    assert report["quality"]["n"] == 8
    assert report["warnings"] == []


def test_the_masked_and_the_pruned_model_were_found_equal(finished):
    verify = finished[1]["verify"]
    assert 0 <= verify["masked_vs_pruned_max_abs"] <= verify["tolerance"] < 1e-8
    assert verify["cached_equals_uncached"] is True
    assert verify["generation_equals_masked"] is True
    assert verify["reload_max_abs"] == 0


def test_what_is_reported_is_the_model_that_was_saved(finished, dense):
    out, report = finished
    model, whole = load_model(str(out)), load_model(str(dense))
    achieved = report["achieved"]
    assert achieved["params"] == {"dense": whole.num_parameters(), "pruned": model.num_parameters()}
    assert achieved["sparsity"] == achieved["encoder_sparsity"]
    assert 0.3 <= achieved["sparsity"] < 0.3 + 32 / 4992
    assert len(model.decoder.block) == 2
    assert achieved["decoder_sparsity"] == pytest.approx(1 / 3)
    assert achieved["macs"]["pruned"] < achieved["macs"]["dense"]
    again = pipeline.evaluate(str(out), TaskSpec(name="copy"), EvaluateSpec(limit=8), registry=REGISTRY)
    assert {key: again[key] for key in report["quality"]["pruned"]} == report["quality"]["pruned"]


def test_recovery_trained_the_cut_model(finished):
    out, _ = finished
    batch = copy_task().collate(copy_task().examples("train"))
    cut, recovered = load_model(str(out / "checkpoints" / "pruned")), load_model(str(out))
    loss = [model(**batch).loss.item() for model in (cut, recovered)]
    assert loss[1] < loss[0]
    stages = [json.loads(line)["stage"] for line in (out / "train.jsonl").read_text().splitlines()]
    assert stages == ["prune"] * 10 + ["recover"] * 4


def test_the_plan_says_where_it_comes_from(finished, dense):
    out, report = finished
    plan = PruningPlan.load(out / "plan.json")
    assert (plan.model_type, plan.base_model, plan.method) == ("t5", str(dense), "nash")
    assert plan.method_version.startswith("prunekit ")
    assert len(plan.base_config_sha256) == len(plan.recipe_sha256) == 64
    lengths = {"length": None, "target_length": None}
    assert plan.budget == {"metric": "params", "sparsity": 0.3, "scope": ["encoder.*"], "macs": lengths}
    assert plan.achieved == report["achieved"]


def test_the_kept_recipe_repeats_the_run(finished):
    out, report = finished
    before = snapshot(out)
    assert run(load_recipe(out / "recipe.yaml", registry=REGISTRY), out) == report
    assert snapshot(out) == before


def test_the_report_for_people_names_the_figures(finished):
    text = (finished[0] / "report.md").read_text()
    assert text.startswith("# nash on ")
    assert "30." in text
    assert "masked against pruned model, largest difference" in text


# The same folder again


def test_a_second_call_does_no_work(finished, dense):
    out, report = finished
    before = snapshot(out)
    assert run(quick_recipe(dense), out) == report
    assert snapshot(out) == before


def test_another_recipe_in_the_same_folder_is_refused_and_changes_nothing(finished, dense):
    out, _ = finished
    before = snapshot(out)
    text = (
        f"{out} already holds a different run (its recipe.yaml is not this run's). Give another folder with "
        "--out, or delete that one."
    )
    with pytest.raises(RunFolderError, match=f"^{re.escape(text)}$"):
        run(quick_recipe(dense, seed=1), out)
    assert snapshot(out) == before


def test_another_label_in_the_same_folder_is_refused(finished, dense):
    out, _ = finished
    nash = {"method": "nash", "decoder_layers": 1}
    before = snapshot(out)
    with pytest.raises(RunFolderError, match="already holds a different run"):
        run(quick_recipe(dense, methods={"nash-1": nash}), out, "nash-1")
    assert snapshot(out) == before


def test_a_folder_with_other_files_is_refused(tmp_path, dense):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunFolderError, match=r"is not empty and holds no run\. Give another folder with"):
        run(quick_recipe(dense), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_in_place_of_the_folder_is_refused(tmp_path, dense):
    (tmp_path / "out").write_text("")
    with pytest.raises(RunFolderError, match=r"out is a file\. Give another folder with --out\.$"):
        run(quick_recipe(dense), tmp_path / "out")


def test_a_run_goes_on_at_the_first_missing_file(copied, finished, dense):
    before = snapshot(copied)
    for name in ("quality.json", "report.json", "report.md", "report.html"):
        (copied / name).unlink()
    report = run(quick_recipe(dense), copied)
    after = snapshot(copied)
    assert {name for name in before if before[name] != after[name]} == {
        "quality.json",
        "report.json",
        "report.md",
        "report.html",
        "manifest.json",
        "model/README.md",  # its figures are the report's
    }
    assert report["quality"]["pruned"] == finished[1]["quality"]["pruned"]
    assert report["speed"] == finished[1]["speed"]


def test_a_crash_in_recovery_does_not_plan_again(tmp_path, finished, dense, monkeypatch):
    def crash(*_):
        raise KeyboardInterrupt

    out, recipe = tmp_path / "run", quick_recipe(dense)
    with monkeypatch.context() as patch:
        patch.setattr(job, "recover", crash)
        with pytest.raises(KeyboardInterrupt):
            run(recipe, out)
    assert not (out / "model").exists()
    planned = snapshot(out)["plan.json"]
    run(quick_recipe(dense), out)
    assert snapshot(out)["plan.json"] == planned
    batch = copy_task().collate(copy_task().examples("test")[:4])
    models = (load_model(str(folder)) for folder in (out, finished[0]))
    assert torch.equal(*(logits(model, batch) for model in models))


def test_a_crash_in_planning_goes_on_at_the_last_checkpoint(tmp_path, finished, dense, monkeypatch):
    task_class = REGISTRY.tasks["copy"]
    plain, left = task_class.collate, [7]

    def crash(self, examples):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return plain(self, examples)

    out, recipe = tmp_path / "run", quick_recipe(dense)
    with monkeypatch.context() as patch:
        patch.setattr(task_class, "collate", crash)
        with pytest.raises(KeyboardInterrupt):
            run(recipe, out)
    assert sorted(path.name for path in out.iterdir()) == ["checkpoints", "recipe.yaml", "train.jsonl"]
    run(quick_recipe(dense), out)
    kept = [json.loads((folder / "plan.json").read_text())["keep"] for folder in (out, finished[0])]
    assert kept[0] == kept[1]
    assert (out / "train.jsonl").read_text() == (finished[0] / "train.jsonl").read_text()


def test_a_cut_that_is_not_the_masked_model_is_not_saved(tmp_path, dense, monkeypatch):
    def spoilt(target, pruned, *rest):
        with torch.no_grad():
            pruned.model.decoder.final_layer_norm.weight += 1e-4
        return check(target, pruned, *rest)

    check = job.verify
    monkeypatch.setattr(job, "verify", spoilt)
    with pytest.raises(VerificationError, match=r"^the pruned model is not the masked model: "):
        run(quick_recipe(dense), tmp_path / "run")
    assert (tmp_path / "run" / "plan.json").is_file()
    assert not (tmp_path / "run" / "model").exists()
    assert not (tmp_path / "run" / "checkpoints" / "pruned").exists()


# Other ways in


def test_a_method_without_an_entry_runs_with_its_defaults_and_says_so(tmp_path, dense):
    report = run(quick_recipe(dense), tmp_path / "run", "first")
    assert report["warnings"] == ["the recipe has no label first: the method ran with its defaults"]
    assert report["achieved"]["encoder_sparsity"] == 0.5
    assert report["achieved"]["decoder_sparsity"] == 0


def test_a_method_that_trains_nothing_leaves_the_weights_to_recovery(tmp_path, dense):
    out = tmp_path / "run"
    run(quick_recipe(dense, methods={"a": {"method": "first", "share": 0.75}}), out)
    assert {json.loads(line)["stage"] for line in (out / "train.jsonl").read_text().splitlines()} == {
        "recover"
    }
    cut, whole = (load_model(str(folder)) for folder in (out / "checkpoints" / "pruned", dense))
    kept = cut.encoder.block[1].layer[1].DenseReluDense.wi.weight
    assert torch.equal(kept, whole.encoder.block[1].layer[1].DenseReluDense.wi.weight[:15])


def test_recovery_can_distil_from_the_dense_model(tmp_path, dense):
    out = tmp_path / "run"
    recover = {"epochs": 2, "batch_size": 16, "distill": {"logits": 2.0, "temperature": 3.0}}
    run(quick_recipe(dense, methods={"first": {}}, recover=recover), out)
    row = json.loads((out / "train.jsonl").read_text().splitlines()[0])
    assert row["loss"] == pytest.approx(row["task"] + 2 * row["distill"], rel=1e-5)
    assert row["distill"] > 0.01


def test_a_dry_run_writes_nothing(tmp_path, dense, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = snapshot(dense)
    found = pipeline.dry_run(quick_recipe(dense), None, registry=REGISTRY)
    assert list(tmp_path.iterdir()) == []
    assert snapshot(dense) == before
    assert found["steps"] == {"train": 10, "recover": 4}
    prunable = 3 * (4 * 16 * 16 + 2 * 16 * 20) + 3 * (8 * 16 * 16 + 2 * 16 * 20)
    assert found["parameters"] == {
        "all": load_model(str(dense)).num_parameters(),
        "prunable": prunable,
        "in_scope": 4992,
        "to_remove": 1498,
    }
    assert len(found["shapes"]) == 15
    assert found["shapes"][0] == {
        "group": "encoder.0.self_attn.heads",
        "kind": "head",
        "units": 4,
        "parameters_per_unit": 256,
        "in_scope": True,
    }
    assert found["macs"]["dense"] > 0


def test_speed_compares_models_with_the_first(finished, dense):
    spec = SpeedSpec(batch_size=2, num_beams=1, new_tokens=2, rounds=2, warmup=0, threads=1)
    [cell] = pipeline.speed([str(dense), str(finished[0])], spec, [2])["cells"]
    assert list(cell["models"]) == [str(dense), str(finished[0])]
    assert "speedup" in cell["models"][str(finished[0])]


def test_speed_refuses_a_model_named_twice(dense):
    text = rf"^speed: a model is named twice in {dense}, {dense}; name each once\.$"
    with pytest.raises(PrunekitError, match=text):
        pipeline.speed([str(dense), str(dense)], SpeedSpec(), [2])
