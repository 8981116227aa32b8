"""Latency budgets from the method's plan to the report, timed by made-up stopwatches."""

import json
import re

import pytest
import torch
from latency_calls import FakeStopwatch, table_of
from oneshot_calls import plan_of
from pipeline_calls import REGISTRY, quick_recipe, run, saved_tiny
from prunekit_baselines.units import Magnitude, Random
from prunekit_fisher.method import Fisher
from prunekit_optin.method import Optin

from prunekit import pipeline
from prunekit.errors import BudgetError
from prunekit.latency import measured
from prunekit.pruning.cost import kept_units
from prunekit.pruning.verify import verify
from prunekit.scoring import oneshot
from prunekit.testing.tiny import tiny_inputs, tiny_model

pytestmark = pytest.mark.slow

METHODS = [
    (Magnitude, {}),
    (Random, {}),
    (Fisher, {}),
    (Optin, {"scoring": "exact"}),
    (Optin, {"scoring": "auto", "probes": 4}),
]


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def timed(prunable):
    """A tiny model whose whole takes more than the sum of its parts."""

    def make(name="bert", truth=lambda ratio: ratio + 0.2 * (1 - ratio)):
        target = prunable(tiny_model(name))
        target.stopwatch = FakeStopwatch(table_of(target, rest=15.0), target.structure, truth)
        return target

    return make


# Methods


@pytest.mark.parametrize(("method", "keys"), METHODS)
def test_one_shot_methods_meet_a_latency(timed, tmp_path, method, keys):
    target = timed()
    budget = {"metric": "latency", "ratio": 0.6}
    plan = plan_of(method, target, tmp_path, budget=budget, **keys)
    found = plan.achieved["latency"]
    assert (found["target"], found["within"]) == (0.6, True)
    assert abs(found["measured"] - 0.6) <= 0.03 * 0.6
    assert len(found["tries"]) > 1
    left = kept_units(target.structure, plan.keep)
    table = target.stopwatch.table()
    assert found["predicted"] == pytest.approx(table.predict(left) / table.total_ms)
    assert verify(target, target.pruned(plan), plan, tiny_inputs(target.model))


@pytest.mark.parametrize("method", [Magnitude, Fisher])
def test_what_is_out_of_scope_stays_under_a_latency(timed, tmp_path, method):
    target = timed("t5")
    budget = {"metric": "latency", "ratio": 0.8, "scope": ["encoder.*"], "round_to": 8}
    plan = plan_of(method, target, tmp_path, budget=budget)
    assert all(name.startswith("encoder.") for name in plan.keep)
    for name, kept in plan.keep.items():
        group = target.groups[name]
        if group.kind != "block":
            assert len(kept) * group.width % 8 == 0 or len(kept) == group.size
    assert plan.achieved["latency"]["within"] is True


def test_the_final_plan_is_rearranged_and_tuned_once(timed, tmp_path, monkeypatch):
    tuned = []
    tune = oneshot.tune
    monkeypatch.setattr(oneshot, "tune", lambda *given, **keys: tuned.append(1) or tune(*given, **keys))
    target = timed()
    budget = {"metric": "latency", "ratio": 0.6}
    plan = plan_of(Fisher, target, tmp_path, budget=budget, rearrange=True, tune=True)
    assert len(tuned) == 1
    assert len(target.stopwatch.plans) > 1
    sizes = [{name: len(kept) for name, kept in each.keep.items()} for each in target.stopwatch.plans]
    assert {name: len(kept) for name, kept in plan.keep.items()} in sizes


def test_without_a_stopwatch_a_latency_is_refused(prunable, tmp_path):
    text = (
        "budget.metric = latency: the model has no stopwatch to be timed with. `prunekit prune` gives it "
        "one; in Python pass PrunableModel(model, adapter, stopwatch=MeasuredStopwatch(...))."
    )
    with pytest.raises(BudgetError, match=f"^{re.escape(text)}$"):
        plan_of(Magnitude, prunable(tiny_model("bert")), tmp_path, budget={"metric": "latency", "ratio": 0.6})


def test_a_copy_has_the_stopwatch_and_a_pruned_model_has_none(timed):
    target = timed()
    assert target.copy().stopwatch is target.stopwatch
    assert target.pruned(plan=oneshot.PruningPlan()).stopwatch is None


# Whole runs


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    return saved_tiny(tmp_path_factory.mktemp("dense") / "bart", "bart")


@pytest.fixture
def timer(monkeypatch):
    """Time as a function of the parameters, in place of every measurement for a budget."""
    calls = []

    def measure(models, inputs, spec, **_):
        calls.append(list(models))
        ms = {name: (1000 + model.num_parameters()) ** 0.8 for name, model in models.items()}
        entries = {}
        for name, own in ms.items():
            speedup = ms["dense"] / own
            entries[name] = {
                "median_ms": own,
                "speedup": speedup,
                "speedup_low": speedup * 0.99,
                "speedup_high": speedup * 1.01,
            }
        return {"models": entries}

    monkeypatch.setattr(measured, "measure_speed", measure)
    return calls


def timed_recipe(dense, **keys):
    budget = {"metric": "latency", "ratio": 0.8, "round_to": 4}
    return quick_recipe(dense, **{"methods": {"magnitude": {}}, "budget": budget, **keys})


def test_a_run_meets_its_latency_and_reports_it(tmp_path, dense, timer):
    report = run(timed_recipe(dense), tmp_path / "run")
    found = report["achieved"]["latency"]
    assert abs(found["measured"] / 0.8 - 1) <= 0.03
    assert found["low"] < found["measured"] < found["high"]
    assert report["requested"] == {
        "metric": "latency",
        "ratio": 0.8,
        "scope": [],
        "round_to": 4,
        "macs": {"length": None, "target_length": None},
    }
    for row in report["structure"]:
        if row["group"].endswith(("heads", "neurons")):
            assert row["kept"] % (1 if row["group"].endswith("heads") else 4) == 0
    assert report["achieved"]["sparsity"] > 0
    stored = json.loads((tmp_path / "run" / "latency.json").read_text())
    assert stored["fingerprint"]["speed"]["input_tokens"] is not None
    assert timer.count(["dense", "pruned"]) == len(found["tries"])
    # Two roles of the encoder and three of the decoder, and the blocks of both.
    assert len([names for names in timer if names != ["dense", "pruned"]]) == 7


def test_a_second_label_takes_the_first_ones_table(tmp_path, dense, timer):
    run(timed_recipe(dense), tmp_path / "a")
    timer.clear()
    run(timed_recipe(dense, methods={"random": {}}), tmp_path / "b")
    assert timer
    assert all(names == ["dense", "pruned"] for names in timer)


def test_a_run_under_another_budget_measures_no_table(tmp_path, dense, timer):
    run(timed_recipe(dense, budget={"sparsity": 0.3}), tmp_path / "run")
    assert timer == []
    assert not (tmp_path / "run" / "latency.json").exists()


def test_a_ratio_out_of_reach_ends_the_run_with_the_smallest(tmp_path, dense, timer):
    recipe = timed_recipe(dense, budget={"metric": "latency", "ratio": 0.1})
    with pytest.raises(
        BudgetError, match=r"^a latency ratio of 0\.1 cannot be reached: .* predicts 0\.\d{4}"
    ):
        run(recipe, tmp_path / "run")


def test_a_dry_run_measures_nothing_and_says_so(dense, timer):
    found = pipeline.dry_run(timed_recipe(dense), None, registry=REGISTRY)
    assert timer == []
    assert found["latency"] == {"ratio": 0.8, "measured": "only by the run itself"}
    assert "to_remove" not in found["parameters"]
