"""Fisher scores against finite differences, and the method from scores to plan."""

from __future__ import annotations

import math

import pytest
import torch
from oneshot_calls import Labelled, make_twin, plan_of, same_state, state_of, unit_groups
from prunekit_fisher import prunekit_register_methods
from prunekit_fisher.config import FisherConfig
from prunekit_fisher.gradients import fisher_scores
from prunekit_fisher.method import Fisher
from torch.nn.functional import cross_entropy
from toy_task import copy_task
from transformers import BertModel

from prunekit.errors import BudgetError, DataError, PrunekitError
from prunekit.pruning.cost import sparsity
from prunekit.recipe import BudgetSpec
from prunekit.testing.tiny import TINY_MODELS, tiny_inputs, tiny_model

pytestmark = pytest.mark.slow

SEARCH = {"rearrange": False, "tune": False}
BERT_MACS = {"metric": "macs", "macs": {"length": 7}}


def batches_of(target, size=4, count=8):
    task = Labelled(target.model, examples=count)
    examples = task.examples("calibration")
    return [task.collate(examples[i : i + size]) for i in range(0, count, size)]


def loss_of(model, batch):
    found = model(**batch)
    return found.loss if "loss" in found else cross_entropy(found.logits, batch["labels"])


def slope(target, group, unit, batch, step=1e-5):
    """Central difference of a batch's loss in one unit's mask."""
    losses = []
    for value in (1 + step, 1 - step):
        mask = torch.ones(target.groups[group].size, dtype=torch.float64)
        mask[unit] = value
        with torch.no_grad(), target.masked({group: mask}):
            losses.append(float(loss_of(target.model, batch)))
    return (losses[0] - losses[1]) / (2 * step)


@pytest.mark.parametrize("name", TINY_MODELS)
def test_scores_are_squared_slopes_of_the_batch_losses_summed_over_batches(prunable, exact_norm, name):
    target = prunable(tiny_model(name, dtype=torch.float64))
    batches = batches_of(target)
    groups = unit_groups(target)
    scores = fisher_scores(target, groups, batches)
    for group in groups:
        for unit in (0, target.groups[group].size - 1):
            slopes = [slope(target, group, unit, batch) for batch in batches]
            assert scores.gradients[group][:, unit].tolist() == pytest.approx(slopes, rel=1e-4, abs=1e-8)
            assert float(scores.values[group][unit]) == pytest.approx(
                sum(s * s for s in slopes), rel=1e-3, abs=1e-12
            )


def test_scores_are_float64_on_the_cpu_with_one_gradient_a_batch(prunable):
    target = prunable(tiny_model("bert"))
    scores = fisher_scores(target, unit_groups(target), batches_of(target))
    for name, values in scores.values.items():
        size = target.groups[name].size
        assert (values.shape, values.dtype, values.device.type) == ((size,), torch.float64, "cpu")
        assert scores.gradients[name].shape == (2, size)
    assert not scores.errors


@pytest.mark.parametrize("kind", ["heads", "neurons"])
def test_a_dead_unit_scores_exactly_zero_and_twins_score_the_same(prunable, kind):
    target = prunable(tiny_model("bert", dtype=torch.float64))
    name = unit_groups(target, kind)[1]
    group = target.groups[name]
    make_twin(target, group, 0, 2)
    make_twin(target, group, 1, 3, share=0.0)
    values = fisher_scores(target, [name], batches_of(target)).values[name]
    assert values[3] == 0
    assert float(values[2]) == pytest.approx(float(values[0]), rel=1e-12)
    assert values[:3].min() > 0


def test_relabelling_neurons_relabels_their_scores(prunable):
    target = prunable(tiny_model("vit", dtype=torch.float64))
    name = "encoder.1.ffn.neurons"
    group, batches = target.groups[name], batches_of(target)
    before = fisher_scores(target, [name], batches).values[name]
    order = torch.randperm(group.size, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        for part in group.slices:
            tensor = target.model.get_parameter(part.parameter)
            tensor.copy_(tensor.index_select(part.axis, order))
    after = fisher_scores(target, [name], batches).values[name]
    assert after.tolist() == pytest.approx(before[order].tolist(), rel=1e-9)


@pytest.mark.parametrize("name", ["bert", "vit", "t5", "bart"])
def test_scoring_leaves_the_model_as_it_was_and_repeats(prunable, name):
    target = prunable(tiny_model(name))
    target.model.train()
    before = state_of(target.model)
    first, second = (fisher_scores(target, unit_groups(target), batches_of(target)) for _ in range(2))
    assert same_state(before, state_of(target.model))
    assert all(torch.equal(first.values[group], second.values[group]) for group in first.values)


def test_the_plugin_offers_one_method_that_needs_calibration_data_and_does_not_train():
    (method,) = prunekit_register_methods()
    assert (method, method.info.name) == (Fisher, "fisher")
    assert (method.info.trains, method.info.data) == (False, "calibration")


def test_the_defaults_are_the_full_method_on_2048_examples():
    config = FisherConfig()
    assert (config.examples, config.batch_size, config.rearrange, config.tune) == (2048, 32, True, True)


@pytest.mark.parametrize("name", ["bert", "vit"])
def test_plans_meet_the_budget_in_macs(prunable, tmp_path, name):
    target = prunable(tiny_model(name))
    budget = BERT_MACS if name == "bert" else {"metric": "macs"}
    plan = plan_of(Fisher, target, tmp_path, budget=budget)
    costs = target.costs(BudgetSpec(sparsity=0.4, **budget))
    unit = min(cost.unit for cost in costs.values()) / sum(cost.prunable for cost in costs.values())
    assert 0.4 - 1e-9 <= sparsity(costs, target.structure, plan.keep) < 0.4 + unit
    assert set(plan.scale) <= set(plan.keep)
    assert plan.scale
    target.pruned(plan)


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_it_prunes_encoders_and_decoders_by_parameters(prunable, tmp_path, name):
    target = prunable(tiny_model(name))
    plan = plan_of(Fisher, target, tmp_path, task=copy_task())
    assert 0.4 - 1e-9 <= sparsity(target.parameter_costs(), target.structure, plan.keep) < 0.45
    assert set(plan.keep) == set(unit_groups(target))


def test_search_rearrangement_and_tuning_can_be_had_apart(prunable, tmp_path):
    target = prunable(tiny_model("bert"))
    plans = {
        steps: plan_of(Fisher, target, tmp_path, rearrange=steps > 0, tune=steps > 1) for steps in range(3)
    }
    assert not plans[0].scale
    assert not plans[1].scale
    assert plans[2].scale
    assert plans[0].keep != plans[1].keep
    assert plans[1].keep == plans[2].keep
    assert {g: len(k) for g, k in plans[0].keep.items()} == {g: len(k) for g, k in plans[1].keep.items()}


def test_the_search_keeps_the_best_scored_units_of_each_kind(prunable, tmp_path):
    target = prunable(tiny_model("bert"))
    task = Labelled(target.model, examples=8)
    plan = plan_of(Fisher, target, tmp_path, task=task, batch_size=8, **SEARCH)
    values = fisher_scores(target, unit_groups(target), [task.collate(task.examples("calibration"))]).values
    for kind in ("heads", "neurons"):
        kept, removed = [], []
        for name in unit_groups(target, kind):
            for unit, value in enumerate(values[name].tolist()):
                (kept if unit in plan.keep[name] else removed).append(value)
        assert removed
        assert min(kept) > max(removed)


def test_one_seed_gives_one_plan(prunable, tmp_path):
    target = prunable(tiny_model("bert"))
    # Folders that do not see each other's scores.
    plans = [
        plan_of(Fisher, target, tmp_path / str(run) / "run", seed=seed, examples=6)
        for run, seed in enumerate((1, 1, 2))
    ]
    assert plans[0] == plans[1]
    assert plans[0] != plans[2]


def test_a_run_beside_another_reuses_its_scores_for_any_budget_and_scope(prunable, tmp_path, monkeypatch):
    target = prunable(tiny_model("bert"))
    budget = {"scope": ["encoder.*.neurons"]}
    alone = plan_of(Fisher, target, tmp_path / "elsewhere" / "run", sparsity=0.6, budget=budget)
    plan_of(Fisher, target, tmp_path / "runs" / "first")
    monkeypatch.setattr("prunekit_fisher.gradients.fisher_scores", None)  # cannot be called again
    assert plan_of(Fisher, target, tmp_path / "runs" / "second", sparsity=0.6, budget=budget) == alone


def test_other_examples_or_weights_are_scored_anew(prunable, tmp_path):
    target = prunable(tiny_model("bert"))
    plan_of(Fisher, target, tmp_path / "first")
    changed = prunable(tiny_model("bert", seed=1))
    for number, (model, keys) in enumerate(
        [(target, {"batch_size": 2}), (target, {"seed": 1}), (changed, {})]
    ):
        fresh = plan_of(Fisher, model, tmp_path / "elsewhere" / str(number) / "run", **keys)
        assert plan_of(Fisher, model, tmp_path / f"run{number}", **keys) == fresh


def test_only_what_is_in_scope_is_scored(prunable, tmp_path):
    target = prunable(tiny_model("t5"))
    scope = ["encoder.*.ffn.neurons"]
    plan = plan_of(Fisher, target, tmp_path, task=copy_task(), budget={"scope": scope})
    assert set(plan.keep) == set(unit_groups(target, "encoder")) & set(unit_groups(target, "neurons"))


def test_a_task_without_labels_is_refused(prunable):
    target = prunable(tiny_model("bert"))
    with pytest.raises(DataError) as caught:
        fisher_scores(target, unit_groups(target), [tiny_inputs(target.model)])
    assert str(caught.value) == (
        "fisher needs the loss of labelled examples, and BertForSequenceClassification gives none for "
        "batches of attention_mask, input_ids. Use a task with labels and a model with a head for it, or a "
        "method that needs no labels (optin, magnitude)."
    )


def test_a_model_without_a_head_is_refused(prunable):
    target = prunable(tiny_model("bert", model_class=BertModel))
    with pytest.raises(
        DataError, match="fisher needs the loss of labelled examples, and BertModel gives none"
    ):
        fisher_scores(target, unit_groups(target), [tiny_inputs(target.model)])


def test_a_model_with_nan_is_refused(prunable, tmp_path):
    target = prunable(tiny_model("bert"))
    with torch.no_grad():
        target.model.get_parameter("classifier.bias")[0] = math.nan
    with pytest.raises(PrunekitError, match=r"^the weights of classifier\.bias are NaN or infinite\."):
        plan_of(Fisher, target, tmp_path)


def test_a_model_in_bfloat16_is_refused(prunable, tmp_path):
    target = prunable(tiny_model("bert", dtype=torch.bfloat16))
    with pytest.raises(PrunekitError, match="is in bfloat16, in which the small differences"):
        plan_of(Fisher, target, tmp_path)


def test_a_scope_that_names_nothing_is_refused(prunable, tmp_path):
    with pytest.raises(BudgetError, match=r"\['decoder\.\*'\] matches no heads or neurons"):
        plan_of(Fisher, prunable(tiny_model("bert")), tmp_path, budget={"scope": ["decoder.*"]})


def test_a_floor_that_costs_more_than_the_budget_is_refused(prunable, tmp_path):
    with pytest.raises(BudgetError, match="each group keeps at least 4 units"):
        plan_of(Fisher, prunable(tiny_model("bert")), tmp_path, floor=4, sparsity=0.7)


def test_too_little_calibration_data_is_refused(prunable, tmp_path):
    with pytest.raises(DataError, match="13 calibration examples were asked for"):
        plan_of(Fisher, prunable(tiny_model("bert")), tmp_path, examples=13)
