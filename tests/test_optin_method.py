"""OPTIN from calibration examples to a plan: budgets, ways of scoring, reuse, and refusals."""

import logging
import math

import pytest
import torch
from oneshot_calls import Labelled, plan_of, same_state, state_of, unit_groups
from optin_calls import exact_scores, scorer_of
from prunekit_optin import auto, prunekit_register_methods
from prunekit_optin.auto import near_cut, refined
from prunekit_optin.config import OptinConfig
from prunekit_optin.method import Optin
from toy_task import copy_task

from prunekit.errors import BudgetError, DataError, PrunekitError, UnsupportedModelError
from prunekit.pruning.cost import SublayerCost, sparsity
from prunekit.recipe import BudgetSpec, TrainSpec
from prunekit.scoring.frozen import frozen
from prunekit.scoring.scores import Scores
from prunekit.testing.tiny import TINY_MODELS, tiny_model
from prunekit.training.loop import Trainer

pytestmark = pytest.mark.slow

QUICK = {"probes": 8}
NEURONS = "encoder.0.ffn.neurons"


def macs_of(name):
    if name in ("t5", "bart", "t5-gated", "t5-narrow"):
        return {"metric": "macs", "macs": {"length": 6, "target_length": 4}}
    return {"metric": "macs", "macs": {"length": 7}} if name == "bert" else {"metric": "macs"}


def calls_of(monkeypatch, name):
    """Which groups the scorer's method ``name`` is asked for, filled in while the test runs."""
    from prunekit_optin.scorer import Scorer

    real, found = getattr(Scorer, name), []

    def counted(self, groups):
        found.append({key: len(groups[key]) for key in groups} if name == "exact" else list(groups))
        return real(self, groups)

    monkeypatch.setattr(Scorer, name, counted)
    return found


def test_the_plugin_offers_one_method_that_needs_calibration_data_and_does_not_train():
    (method,) = prunekit_register_methods()
    assert (method, method.info.name) == (Optin, "optin")
    assert (method.info.trains, method.info.data) == (False, "calibration")


def test_the_defaults_are_the_papers_loss_scored_automatically():
    config = OptinConfig()
    assert (config.profile, config.scoring, config.probes, config.tokens) == ("paper", "auto", 64, 768)
    assert (config.kl_weight, config.temperature, config.soften) == (0.1, 4.0, True)


@pytest.mark.parametrize("name", TINY_MODELS)
def test_plans_land_just_under_a_budget_in_macs_on_every_architecture(name, prunable, tmp_path):
    target = prunable(tiny_model(name))
    budget = macs_of(name)
    plan = plan_of(Optin, target, tmp_path / "run", budget=budget, **QUICK)
    costs = target.costs(BudgetSpec(sparsity=0.4, **budget))
    unit = min(cost.unit for cost in costs.values()) / sum(cost.prunable for cost in costs.values())
    assert 0.4 - 1e-9 <= sparsity(costs, target.structure, plan.keep) < 0.4 + unit
    assert set(plan.keep) == set(unit_groups(target))
    target.pruned(plan)


@pytest.mark.parametrize("scoring", ["auto", "exact", "gauss-newton"])
def test_every_way_of_scoring_gives_a_plan_that_its_seed_repeats(scoring, prunable, tmp_path):
    target = prunable(tiny_model("bert"))
    first, second = (
        plan_of(Optin, target, tmp_path / str(run) / "run", scoring=scoring, **QUICK) for run in range(2)
    )
    assert first == second


def test_planning_leaves_the_model_as_it_was(prunable, tmp_path):
    target = prunable(tiny_model("t5").train())
    before = state_of(target.model)
    plan_of(Optin, target, tmp_path / "run", rearrange=True, **QUICK)
    assert same_state(before, state_of(target.model))


def test_exact_plans_keep_the_best_scored_units_of_each_kind(prunable, tmp_path):
    target = prunable(tiny_model("bert"))
    task = Labelled(target.model, examples=8)
    plan = plan_of(Optin, target, tmp_path / "run", task=task, batch_size=8, scoring="exact")
    values = exact_scores(target, [task.collate(task.examples("calibration"))])
    for kind in ("heads", "neurons"):
        kept, removed = [], []
        for name in unit_groups(target, kind):
            for unit, value in enumerate(values[name].tolist()):
                (kept if unit in plan.keep[name] else removed).append(value)
        assert removed
        assert min(kept) > max(removed)


def test_auto_scores_heads_exactly_and_neurons_by_probes(prunable, tmp_path, monkeypatch):
    target = prunable(tiny_model("bert"))
    exact, probed = calls_of(monkeypatch, "exact"), calls_of(monkeypatch, "probed")
    plan_of(Optin, target, tmp_path / "run", **QUICK)
    assert exact[0] == {name: 4 for name in unit_groups(target, "heads")}
    assert probed == [unit_groups(target, "neurons")]
    # What is near the cut is at most a fiftieth of 3 * 20 neurons.
    assert list(exact[1].values()) == [1]
    assert all(name.endswith("neurons") for name in exact[1])


def estimates(values, errors):
    return Scores({NEURONS: torch.tensor(values)}, {NEURONS: torch.tensor(errors)})


def neuron_costs(target):
    sub = target.structure.sublayers["encoder.0.ffn"]
    return {sub.name: SublayerCost(1.0, sub.units.size)}


def cut_scorer(prunable):
    target = prunable(tiny_model("bert"))
    return scorer_of(target, []), neuron_costs(target)


@pytest.fixture
def a_fifth(monkeypatch):
    """Lets as many of 20 units be near the cut as can be told apart."""
    monkeypatch.setattr(auto, "MOST", 0.2)


@pytest.mark.usefixtures("a_fifth")
def test_units_within_two_standard_errors_of_the_cut_are_near_it(prunable):
    scorer, costs = cut_scorer(prunable)
    # Half of 20 go; the cut lies between 10 and 11.
    values = [float(value) for value in range(1, 21)]
    errors = [0.01] * 20
    errors[5] = 2.3  # 6 is 4.5 from the cut: within 2 * 2.3
    errors[14] = 2.2  # 15 is 4.5 away: not within 2 * 2.2
    errors[9] = 0.3  # 10 is 0.5 away
    found = near_cut(scorer, estimates(values, errors), costs, BudgetSpec(sparsity=0.5), 0)
    assert {name: units.tolist() for name, units in found.items()} == {NEURONS: [5, 9]}


@pytest.mark.usefixtures("a_fifth")
def test_only_so_many_are_near_the_cut_and_the_most_doubtful_of_all(prunable):
    scorer, costs = cut_scorer(prunable)
    values = [float(value) for value in range(1, 21)]
    found = near_cut(scorer, estimates(values, [100.0] * 20), costs, BudgetSpec(sparsity=0.5), 0)
    assert {name: units.tolist() for name, units in found.items()} == {NEURONS: [8, 9, 10, 11]}


def test_what_has_no_standard_error_is_never_near_the_cut(prunable):
    scorer, costs = cut_scorer(prunable)
    assert near_cut(scorer, estimates([1.0] * 20, [0.0] * 20), costs, BudgetSpec(sparsity=0.5), 0) == {}
    values = [float(value) for value in range(1, 21)]
    assert near_cut(scorer, estimates(values, [0.0] * 20), costs, BudgetSpec(sparsity=0.5), 0) == {}


@pytest.mark.usefixtures("a_fifth")
def test_refined_scores_are_exact_near_the_cut_and_estimates_elsewhere(prunable):
    target = prunable(tiny_model("bert"))
    task = Labelled(target.model, examples=8)
    batch = task.collate(task.examples("calibration"))
    exact = exact_scores(target, [batch])[NEURONS]
    with frozen(target.model):
        scorer = scorer_of(target, [batch], probes=8)
        rough = scorer.probed([NEURONS])
        values, kept = refined(scorer, rough, neuron_costs(target), BudgetSpec(sparsity=0.5), 0)
    done = ~kept.exact[NEURONS].isnan()
    assert 1 <= done.sum() <= 4
    assert torch.allclose(values[NEURONS][done], exact[done], rtol=1e-5)
    assert torch.equal(values[NEURONS][~done], rough.values[NEURONS][~done])
    assert torch.equal(kept.values[NEURONS], rough.values[NEURONS])


def test_another_budget_reuses_the_scores_and_refines_only_what_is_new(prunable, tmp_path, monkeypatch):
    target = prunable(tiny_model("bert"))
    alone = plan_of(Optin, target, tmp_path / "elsewhere" / "run", sparsity=0.6, scoring="exact")
    first = plan_of(Optin, target, tmp_path / "runs" / "first", **QUICK)
    exact, probed = calls_of(monkeypatch, "exact"), calls_of(monkeypatch, "probed")
    assert plan_of(Optin, target, tmp_path / "runs" / "again", **QUICK) == first
    plan = plan_of(Optin, target, tmp_path / "runs" / "second", sparsity=0.6, **QUICK)
    assert plan.keep.keys() == alone.keep.keys()
    assert probed == [[], []]
    # No heads, and no more than a fiftieth of the neurons each time.
    assert all(sum(call.values()) <= 1 and not any("heads" in name for name in call) for call in exact)


@pytest.mark.usefixtures("a_fifth")
def test_under_auto_a_plan_does_not_depend_on_the_runs_beside_it(prunable, tmp_path):
    target = prunable(tiny_model("bert"))
    budgets = (0.3, 0.4, 0.5, 0.6, 0.7)
    alone = [plan_of(Optin, target, tmp_path / f"{b}" / "run", sparsity=b, **QUICK) for b in budgets]
    beside = [plan_of(Optin, target, tmp_path / "runs" / f"{b}", sparsity=b, **QUICK) for b in budgets]
    assert beside == alone


def test_a_wider_scope_scores_only_the_groups_that_are_new(prunable, tmp_path, monkeypatch):
    target = prunable(tiny_model("bert"))
    exact = calls_of(monkeypatch, "exact")
    keys = {"scoring": "exact"}
    plan_of(Optin, target, tmp_path / "first", budget={"scope": ["encoder.0.*"]}, **keys)
    plan = plan_of(Optin, target, tmp_path / "second", **keys)
    assert [name for call in exact for name in call if name.startswith("encoder.0.")] == list(exact[0])
    assert plan == plan_of(Optin, target, tmp_path / "elsewhere" / "run", **keys)


def test_other_weights_are_scored_anew_and_the_log_says_so(prunable, tmp_path, caplog):
    plan_of(Optin, prunable(tiny_model("bert")), tmp_path / "first", **QUICK)
    caplog.clear()
    plan_of(Optin, prunable(tiny_model("bert", seed=1)), tmp_path / "second", **QUICK)
    stored = tmp_path / "first" / "scores.safetensors"
    assert caplog.messages == [f"scores of optin computed anew: weights differ from those in {stored}"]


@pytest.mark.parametrize("scoring", ["auto", "exact", "gauss-newton"])
def test_rearranging_and_tuning_work_on_its_scores(scoring, prunable, tmp_path):
    target = prunable(tiny_model("bert"))
    keys = {"scoring": scoring, "probes": 32}
    search, rearranged, tuned = (
        plan_of(Optin, target, tmp_path / str(steps) / "run", rearrange=steps > 0, tune=steps > 1, **keys)
        for steps in range(3)
    )
    assert search.keep != rearranged.keep
    counts = [{name: len(kept) for name, kept in plan.keep.items()} for plan in (search, rearranged)]
    assert counts[0] == counts[1]
    assert tuned.scale
    assert tuned.keep == rearranged.keep


def test_real_tasks_of_pairs_are_scored_without_their_references_as_labels(prunable, tmp_path):
    target = prunable(tiny_model("t5"))
    plan = plan_of(Optin, target, tmp_path / "run", task=copy_task(), **QUICK)
    assert 0.4 - 1e-9 <= sparsity(target.parameter_costs(), target.structure, plan.keep) < 0.45


def regression(problem_type):
    model = tiny_model("bert")
    model.classifier = torch.nn.Linear(16, 1)
    model.config.num_labels = 1
    model.num_labels = 1
    model.config.problem_type = problem_type
    return model


class Numbers(Labelled):
    family = "regression"

    def collate(self, examples):
        return {**super().collate(examples), "labels": torch.zeros(len(examples))}


def test_a_single_number_is_scored_by_the_distance_alone_and_the_log_says_so(prunable, tmp_path, caplog):
    target = prunable(regression("regression"))
    plan = plan_of(
        Optin, target, tmp_path / "a" / "run", task=Numbers(target.model), scoring="exact", kl_weight=5.0
    )
    assert caplog.messages == [
        "BertForSequenceClassification answers with a single number: the divergence of answers is always 0, "
        "and optin scores by the features' distance alone"
    ]
    alone = plan_of(
        Optin, target, tmp_path / "b" / "run", task=Numbers(target.model), scoring="exact", kl_weight=0
    )
    assert plan == alone


def test_one_class_is_refused(prunable, tmp_path):
    target = prunable(regression("single_label_classification"))
    with pytest.raises(PrunekitError) as caught:
        plan_of(Optin, target, tmp_path / "run", task=Numbers(target.model))
    assert str(caught.value) == (
        "BertForSequenceClassification has one class, so that every example has the same answer and nothing "
        "is left to preserve. Use a model with at least two classes."
    )


def test_a_task_without_calibration_data_is_refused(prunable, tmp_path):
    target = prunable(tiny_model("bert"))
    task = Labelled(target.model)
    task.splits = ("validation", "test")
    with pytest.raises(
        DataError, match=r"^Task labelled has no data to calibrate on: it has validation, test"
    ):
        plan_of(Optin, target, tmp_path / "run", task=task)


def test_a_model_with_nan_is_refused(prunable, tmp_path):
    target = prunable(tiny_model("bert"))
    with torch.no_grad():
        target.model.get_parameter("classifier.bias")[0] = math.nan
    with pytest.raises(PrunekitError, match=r"^the weights of classifier\.bias are NaN or infinite\."):
        plan_of(Optin, target, tmp_path / "run")


def test_activations_that_overflow_are_refused(prunable, tmp_path):
    target = prunable(tiny_model("vit"))
    with torch.no_grad():
        target.model.get_submodule("vit.layers.1.mlp.fc2").weight *= 1e38
    with pytest.raises(PrunekitError, match=r"scores of encoder\.\d\.\w+\.\w+ are NaN or infinite\."):
        plan_of(Optin, target, tmp_path / "run", scoring="exact")
    assert not (tmp_path / "run" / "scores.safetensors").exists()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_in_half_precision_is_refused(dtype, prunable, tmp_path):
    target = prunable(tiny_model("bert", dtype=dtype))
    with pytest.raises(PrunekitError, match=r"is in b?float16, in which the small differences .* are lost"):
        plan_of(Optin, target, tmp_path / "run")


def test_asking_for_bfloat16_is_refused_with_the_reason(prunable, tmp_path):
    target = prunable(tiny_model("bert"))
    trainer = Trainer(tmp_path / "run", TrainSpec(precision="bf16"))
    with pytest.raises(PrunekitError) as caught:
        Optin(OptinConfig()).plan(target, Labelled(target.model), BudgetSpec(sparsity=0.4), trainer)
    assert str(caught.value) == (
        "train.precision: bf16 asks for scoring in bfloat16, whose rounding alone is larger than what "
        "removing most units changes: their scores would be noise. Leave train.precision out; optin "
        "scores in float32."
    )


def test_a_budget_that_cannot_be_met_is_refused(prunable, tmp_path):
    target = prunable(tiny_model("bert"))
    with pytest.raises(BudgetError, match="each group keeps at least 4 units"):
        plan_of(Optin, target, tmp_path / "run", floor=4, sparsity=0.7, **QUICK)


def test_a_model_without_a_head_is_refused(prunable, tmp_path):
    from transformers import BertModel

    target = prunable(tiny_model("bert", model_class=BertModel))
    task = Labelled(tiny_model("bert"))
    with pytest.raises(UnsupportedModelError, match=r"^BertModel gives no logits to compare\."):
        plan_of(Optin, target, tmp_path / "run", task=task)


def test_fresh_scores_say_nothing(prunable, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    plan_of(Optin, prunable(tiny_model("bert")), tmp_path / "run", **QUICK)
    assert [record.message for record in caplog.records if record.name.startswith("prunekit")] == []
