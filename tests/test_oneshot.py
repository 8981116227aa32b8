"""From scores to a plan: what every one-shot method shares."""

from __future__ import annotations

import pytest
import torch
from core_calls import compared
from oneshot_calls import Labelled, every_other, unit_groups

from prunekit.errors import BudgetError, DataError, PrunekitError
from prunekit.pruning.cost import sparsity
from prunekit.recipe import BudgetSpec
from prunekit.scoring.config import OneShotConfig
from prunekit.scoring.oneshot import calibration_batches, finish
from prunekit.scoring.rearrange import rearrange
from prunekit.scoring.scores import Scores
from prunekit.scoring.tune import tune
from prunekit.testing.tiny import tiny_model

BUDGET = BudgetSpec(metric="macs", sparsity=0.4, macs={"length": 7})


def scored(target, seed=0, samples=6):
    generator = torch.Generator().manual_seed(seed)
    gradients = {
        name: torch.randn(samples, target.groups[name].size, generator=generator)
        for name in unit_groups(target)
    }
    return Scores({n: g.double().square().sum(0) for n, g in gradients.items()}, gradients=gradients)


def finished(target, scores, batches=(), budget=BUDGET, **keys):
    return finish(target, scores, target.costs(budget), budget, OneShotConfig(**keys), batches)


def test_a_plan_lands_just_under_the_budget(prunable):
    target = prunable(tiny_model("bert"))
    plan = finished(target, scored(target))
    costs = target.costs(BUDGET)
    cheapest = min(cost.unit for cost in costs.values()) / sum(cost.prunable for cost in costs.values())
    assert 0.4 - 1e-9 <= sparsity(costs, target.structure, plan.keep) < 0.4 + cheapest
    assert plan.scale == {}


def test_every_sublayer_keeps_its_floor(prunable):
    target = prunable(tiny_model("bert"))
    scores = scored(target)
    scores.values["encoder.1.ffn.neurons"].zero_()
    assert len(finished(target, scores).keep["encoder.1.ffn.neurons"]) < 3
    assert len(finished(target, scores, floor=3).keep["encoder.1.ffn.neurons"]) == 3


def test_rearranging_exchanges_units_of_the_allocated_plan(prunable):
    target = prunable(tiny_model("bert"))
    scores = scored(target)
    allocated = finished(target, scores).keep
    plan = finished(target, scores, rearrange=True)
    assert plan.keep == rearrange(allocated, scores.gradients)
    assert plan.keep != allocated


def test_tuning_scales_the_units_of_the_final_plan(prunable):
    target = prunable(tiny_model("bert", dtype=torch.float64))
    batches = [Labelled(target.model).collate(Labelled(target.model).examples("calibration"))]
    plan = finished(target, scored(target), batches, rearrange=True, tune=True)
    assert plan.scale == tune(target, finished(target, scored(target), rearrange=True).keep, batches)
    same, moved = compared(target, plan.masks(target.groups))
    assert same < 1e-12
    assert moved > 1e-3


def test_rearranging_without_gradient_samples_is_refused(prunable):
    target = prunable(tiny_model("bert"))
    with pytest.raises(PrunekitError) as caught:
        finished(target, Scores(scored(target).values), rearrange=True)
    assert str(caught.value) == (
        "rearrange: true needs signed gradient samples, and these scores have none for "
        "encoder.0.self_attn.heads. Leave `rearrange` out, or use a method that samples gradients (fisher; "
        "optin with probes)."
    )


@pytest.mark.parametrize(("kind", "word"), [("values", "scores"), ("gradients", "gradient samples")])
def test_scores_that_are_not_finite_are_refused(prunable, kind, word):
    target = prunable(tiny_model("bert"))
    scores = scored(target)
    tensor = getattr(scores, kind)["encoder.2.ffn.neurons"]
    tensor.view(-1)[:2] = torch.tensor([torch.nan, torch.inf])
    with pytest.raises(PrunekitError) as caught:
        finished(target, scores)
    assert str(caught.value) == (
        f"2 of {tensor.numel()} {word} of encoder.2.ffn.neurons are NaN or infinite. Look for NaN in the "
        "model's weights, or for activations that overflow its number format."
    )


def test_a_floor_above_the_budget_is_refused(prunable):
    target = prunable(tiny_model("bert"))
    with pytest.raises(BudgetError, match="each group keeps at least 20 units"):
        finished(target, scored(target), floor=20)


def test_calibration_batches_hold_the_seeded_sample_in_order(prunable):
    task = Labelled(tiny_model("bert"))
    batches = calibration_batches(task, OneShotConfig(examples=10, batch_size=4), 3)
    assert [len(batch["labels"]) for batch in batches] == [4, 4, 2]
    again = calibration_batches(task, OneShotConfig(examples=10, batch_size=10), 3)[0]
    assert torch.equal(torch.cat([batch["input_ids"] for batch in batches]), again["input_ids"])
    other = calibration_batches(task, OneShotConfig(examples=10, batch_size=10), 4)[0]
    assert not torch.equal(other["input_ids"], again["input_ids"])


def test_more_calibration_examples_than_there_are(prunable):
    with pytest.raises(DataError) as caught:
        calibration_batches(Labelled(tiny_model("bert")), OneShotConfig(examples=13), 0)
    assert str(caught.value) == (
        "13 calibration examples were asked for, but the split 'calibration' of task labelled has 12; ask "
        "for at most that many."
    )


def test_groups_out_of_scope_stay_whole(prunable):
    target = prunable(tiny_model("t5"))
    budget = BudgetSpec(sparsity=0.4, scope=["encoder.*"])
    scores = Scores({n: v for n, v in scored(target).values.items() if n.startswith("encoder.")})
    plan = finished(target, scores, budget=budget)
    assert set(plan.keep) == set(every_other(target, "encoder."))
