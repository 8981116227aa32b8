"""Runs under MAC budgets, and runs that train nothing."""

from __future__ import annotations

import json

import pytest
import torch
from pipeline_calls import REGISTRY, quick_recipe, run, saved_tiny

from prunekit import pipeline
from prunekit.models import load_model

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("module_on_one_thread")]


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    return saved_tiny(tmp_path_factory.mktemp("dense") / "t5")


# Without training


@pytest.fixture
def untrainable(monkeypatch):
    """The copy task, without anything to train on."""
    task_class = REGISTRY.tasks["copy"]
    monkeypatch.setattr(task_class, "splits", ("validation", "test"))
    return {"methods": {"first": {}}, "recover": {"epochs": 0}}


def test_without_epochs_of_recovery_the_model_stays_as_it_was_cut(tmp_path, dense, untrainable):
    out = tmp_path / "run"
    report = run(quick_recipe(dense, **untrainable), out)
    cut, final = (load_model(str(folder)).state_dict() for folder in (out / "checkpoints" / "pruned", out))
    assert cut.keys() == final.keys()
    assert all(torch.equal(cut[name], final[name]) for name in cut)
    assert report["recovery_steps"] == json.loads((out / "recover.json").read_text())["steps"] == 0
    assert not (out / "train.jsonl").exists()
    assert "- steps of recovery: 0" in (out / "report.md").read_text()


def test_a_dry_run_without_training_needs_no_training_data(dense, untrainable):
    found = pipeline.dry_run(quick_recipe(dense, **untrainable), None, registry=REGISTRY)
    assert found["steps"] == {"train": 0, "recover": 0}


def test_steps_count_in_place_of_0_epochs(dense):
    recipe = quick_recipe(dense, recover={"epochs": 0, "max_steps": 3})
    assert pipeline.dry_run(recipe, None, registry=REGISTRY)["steps"]["recover"] == 3


# MAC budgets


def mac_recipe(dense, **lengths):
    budget = {"metric": "macs", "sparsity": 0.3, "scope": ["encoder.*"], "macs": lengths}
    return quick_recipe(dense, methods={"first": {}}, recover={"epochs": 0}, budget=budget)


def test_a_mac_budget_is_reported_in_macs(tmp_path, dense):
    out = tmp_path / "run"
    report = run(mac_recipe(dense, length=4, target_length=3), out)
    achieved = report["achieved"]
    # Half of 4 heads of width 4 and of 20 neurons in each of 3 blocks, at 4 tokens.
    whole = 3 * (4 * 4 * (4 * 4 * 16 + 2 * 4 * 4) + 20 * 4 * 16 * 2)
    assert achieved["macs"]["prunable"] == {"dense": whole, "pruned": whole // 2}
    assert achieved["macs"]["dense"] - achieved["macs"]["pruned"] == whole // 2
    assert achieved["macs"]["inputs"]["decoder_input_ids"] == [1, 3]
    assert achieved["sparsity"] == 0.5
    text = (out / "report.md").read_text()
    assert r"| removed from the MACs of encoder.\* | 30 % | 50.0 % |  |" in text.splitlines()
    assert "| prunable MACs in scope at 4 and 3 tokens | at most " in text


def test_a_dry_run_tells_macs_under_a_mac_budget(dense):
    found = pipeline.dry_run(mac_recipe(dense, length=4, target_length=3), None, registry=REGISTRY)
    in_scope = 3 * (4 * 4 * (4 * 4 * 16 + 2 * 4 * 4) + 20 * 4 * 16 * 2)
    assert found["macs"].items() >= {"length": 4, "target_length": 3, "in_scope": in_scope}.items()
    assert found["macs"]["to_remove"] == round(0.3 * in_scope)
    assert found["macs"]["dense"] > found["macs"]["prunable"] > in_scope
    assert found["parameters"]["in_scope"] == 4992
    assert "to_remove" not in found["parameters"]
