"""``prunekit verify``: a good run passes every check, and each kind of damage fails the check made for it."""

from __future__ import annotations

import hashlib
import json
import shutil

import pytest
import torch
from pipeline_calls import REGISTRY, quick_recipe, run, saved_tiny
from safetensors.torch import load_file, save_file
from toy_task import copy_task

from prunekit import verify_model
from prunekit.errors import RunFolderError, VerificationError
from prunekit.models import model_fingerprint
from prunekit.pruning.plan import PruningPlan
from prunekit.testing.tiny import tiny_model
from prunekit.verify_run import verify_runs

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("module_on_one_thread")]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a finished run whose method trains nothing."""
    dense = saved_tiny(tmp_path_factory.mktemp("dense") / "t5")
    out = tmp_path_factory.mktemp("runs") / "first"
    run(quick_recipe(dense, methods={"first": {}}), out)
    return out


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the run, to be spoilt."""
    return shutil.copytree(finished, tmp_path / "run")


def found(folder):
    """The outcome and text of each check."""
    [checks] = verify_runs(folder, registry=REGISTRY).values()
    return {check.name: (check.outcome, check.found) for check in checks}


def failures(folder):
    return {name: text for name, (outcome, text) in found(folder).items() if outcome == "failed"}


def change(path, edit):
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


# A good run


def test_a_finished_run_passes_every_check(finished):
    outcomes = {name: outcome for name, (outcome, _) in found(finished).items()}
    assert set(outcomes.values()) == {"ok"}, found(finished)


def test_checks_state_the_figures_that_they_found(finished):
    report = json.loads((finished / "report.json").read_text())
    checks = found(finished)
    count = report["achieved"]["params"]["pruned"]
    assert checks["parameters"] == ("ok", f"{count} in model/, as reported")
    assert checks["masked against pruned"][1].startswith("largest difference ")
    assert checks["recipe"][1].startswith("sha256 ")


def test_the_report_has_the_fingerprint_of_model_recipe_and_data(finished):
    report = json.loads((finished / "report.json").read_text())
    model = model_fingerprint(report["model"])
    recipe = hashlib.sha256((finished / "recipe.yaml").read_bytes()).hexdigest()
    assert report["fingerprint"] == {"model": model, "recipe": recipe, "data": None}
    line = f"\nFingerprint: model {model[:12]}, recipe {recipe[:12]}, data shipped with prunekit, "
    assert line in (finished / "report.md").read_text()


def test_the_weights_of_a_method_that_trains_are_checked_in_the_dense_models_places(tmp_path):
    dense = saved_tiny(tmp_path / "t5")
    run(quick_recipe(dense), tmp_path / "nash")
    checks = found(tmp_path / "nash")
    assert checks["masked against pruned"][0] == "ok"
    assert checks["checkpoints/pruned against plan"] == (
        "skipped",
        "nash trains the weights before they are cut",
    )
    assert failures(tmp_path / "nash") == {}


def test_pruned_hidden_units_are_put_back_to_their_places(prunable):
    dense = prunable(tiny_model("bert"))
    size = dense.groups["hidden"].size
    plan = PruningPlan(keep={"hidden": tuple(range(0, size, 2)), "encoder.0.ffn.neurons": (0, 2)})
    batch = {"input_ids": torch.arange(8).view(2, 4), "attention_mask": torch.ones(2, 4, dtype=torch.long)}
    compared = verify_model.masked_equals(dense, dense.pruned(plan).model, plan, batch)
    assert compared["masked_vs_pruned_max_abs"] <= compared["tolerance"]


# Damage


def test_a_changed_recipe_is_found(copied):
    path = copied / "recipe.yaml"
    path.write_text(path.read_text().replace("seed: 0", "seed: 1"))
    assert "and plan.json was made by" in failures(copied)["recipe"]


def test_changed_weights_are_found_by_their_hash(copied):
    path = copied / "model" / "model.safetensors"
    tensors = load_file(path)
    tensors["shared.weight"][0, 0] += 1
    save_file(tensors, path, metadata={"format": "pt"})
    failed = failures(copied)
    assert set(failed) == {"files against manifest"}
    assert "model/model.safetensors" in failed["files against manifest"]


def test_weights_that_are_not_finite_are_named(copied):
    path = copied / "model" / "model.safetensors"
    tensors = load_file(path)
    tensors["shared.weight"][0, 0] = torch.nan
    save_file(tensors, path, metadata={"format": "pt"})
    assert failures(copied)["model/ reloads"].startswith("4 tensors are not finite: ")


def test_a_missing_tensor_fails_the_reload(copied):
    path = copied / "model" / "model.safetensors"
    tensors = load_file(path)
    del tensors["encoder.final_layer_norm.weight"]
    save_file(tensors, path, metadata={"format": "pt"})
    assert "encoder.final_layer_norm.weight" in failures(copied)["model/ reloads"]


def test_weights_that_the_plan_did_not_cut_are_found(copied):
    path = copied / "checkpoints" / "pruned" / "model.safetensors"
    tensors = load_file(path)
    name = "encoder.block.0.layer.1.DenseReluDense.wi.weight"
    tensors[name] = tensors[name].flip(0)
    save_file(tensors, path, metadata={"format": "pt"})
    text = failures(copied)["checkpoints/pruned against plan"]
    assert text.endswith(f"tensors are not what the plan cuts from the dense model: {name}")


def test_another_plan_fails_what_is_recounted_and_compared(copied):
    name = "encoder.0.ffn.neurons"
    change(copied / "plan.json", lambda plan: plan["keep"][name].pop())
    failed = failures(copied)
    assert "report.json says otherwise of" in failed["achieved recounted"]
    assert failed["masked against pruned"].endswith("layer.1.DenseReluDense.wo.weight")


def test_a_report_that_flatters_is_found(copied):
    change(copied / "report.json", lambda report: report["quality"]["pruned"].update(per=0.0))
    assert failures(copied)["report against quality.json"] == "report.json and quality.json differ in pruned"


def test_a_report_with_other_parameters_is_found(copied):
    change(copied / "report.json", lambda report: report["achieved"]["params"].update(pruned=1))
    failed = failures(copied)
    assert failed["parameters"].endswith("parameters, and the report says 1")
    assert failed["report against plan.json"] == "report.json and plan.json differ in achieved"


def test_a_missing_stage_is_named(copied):
    (copied / "quality.json").unlink()
    assert failures(copied)["report against quality.json"] == "quality.json is missing"


def test_a_damaged_stage_is_told_as_such(copied):
    (copied / "speed.json").write_text('{"device": ')
    text = failures(copied)["report against speed.json"]
    assert text.startswith(f"{copied / 'speed.json'} is damaged: not JSON: line 1, column 12: ")


def test_weights_that_were_cut_off_fail_the_reload(copied):
    path = copied / "model" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    assert failures(copied)["model/ reloads"].startswith(f"{path} is damaged: ")


def test_a_config_that_asks_for_a_kernel_fails_the_reload(copied):
    change(copied / "model" / "config.json", lambda config: config.update(attn_implementation="some/kernel"))
    assert "asks for a kernel, which is code from elsewhere" in failures(copied)["model/ reloads"]


@pytest.mark.parametrize(
    ("name", "content"),
    [("pytorch_model.bin", b""), ("notes.txt", b"\x80\x04\x95"), ("weights.dat", b"PK\x03\x04data")],
)
def test_pickles_are_found_by_name_and_by_content(copied, name, content):
    (copied / "model" / name).write_bytes(content)
    text = failures(copied)["pickles"]
    assert text.startswith(f"model/{name} of ")
    assert text.endswith("are pickles, which run code when they are loaded. No run writes any: delete them.")


# What cannot be told


def test_checks_that_need_the_dense_model_are_skipped_without_it(copied):
    for file in ("report.json", "plan.json"):
        change(
            copied / file,
            lambda content: (
                content.update({"model": "gone/dense/t5", "base_model": "gone"})
                if "model" in content
                else None
            ),
        )
    checks = found(copied)
    skipped = {name for name, (outcome, _) in checks.items() if outcome == "skipped"}
    assert skipped == {"checkpoints/pruned against plan", "masked against pruned", "achieved recounted"}
    assert checks["masked against pruned"][1] == "the dense model gone/dense/t5 cannot be had here"


def test_a_run_without_states_is_still_checked(copied):
    shutil.rmtree(copied / "checkpoints")
    assert found(copied)["checkpoints/pruned reloads"] == (
        "skipped",
        "checkpoints/pruned was deleted; model/ does not need it",
    )


def test_weights_that_should_be_tied_and_are_not_are_found():
    model = tiny_model("t5")
    model.encoder.embed_tokens.weight = torch.nn.Parameter(model.shared.weight.detach().clone())
    with pytest.raises(VerificationError, match=r"1 pairs of tied weights are two tensors: encoder\.embed"):
        verify_model.tied(model)


def test_generation_that_differs_without_the_cache_is_found(monkeypatch):
    tokens = {True: torch.tensor([[1, 2]]), False: torch.tensor([[1, 3]])}
    monkeypatch.setattr(verify_model, "forced_generation", lambda model, batch, use_cache: tokens[use_cache])
    batch = copy_task().collate(copy_task().examples("validation")[:1])
    with pytest.raises(VerificationError, match="1 of 2 tokens differ without the cache"):
        verify_model.cached_equals_uncached(tiny_model("t5"), batch)


def test_a_dense_model_of_other_weights_is_not_compared_with(copied):
    dense = json.loads((copied / "report.json").read_text())["model"]
    change(copied / "report.json", lambda report: report["fingerprint"].update(model="0" * 64))
    outcome = ("skipped", f"the dense model {dense} here has other weights than the one that was pruned")
    checks = found(copied)
    assert [checks[name] for name in ("masked against pruned", "achieved recounted")] == [outcome] * 2


# Which folders


def test_every_run_of_a_comparison_is_checked(finished, tmp_path):
    for name in ("a-s0", "b-s0"):
        shutil.copytree(finished, tmp_path / name)
    (tmp_path / "comparison.json").write_text("{}")
    assert list(verify_runs(tmp_path, registry=REGISTRY)) == [
        str(tmp_path / name) for name in ("a-s0", "b-s0")
    ]


def test_an_unfinished_run_is_refused(copied):
    (copied / "report.json").unlink()
    with pytest.raises(RunFolderError, match=r"holds no report\.json\. The run has not finished: give its"):
        verify_runs(copied, registry=REGISTRY)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(RunFolderError, match=r"no such folder\. Give the folder of a finished run"):
        verify_runs(tmp_path / "nowhere", registry=REGISTRY)
