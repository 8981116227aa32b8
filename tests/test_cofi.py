"""CoFi's plans, and what it leaves in the model. Its loss, keys and matchings have tests of their own."""

from __future__ import annotations

import json
import re

import pytest
import torch
from nash_calls import QUICK, target_of
from oneshot_calls import Labelled
from prunekit_cofi.config import CofiConfig
from prunekit_cofi.method import Cofi
from toy_task import copy_task
from transformers import BertForSequenceClassification

from prunekit.errors import BudgetError, TrainingError, UnsupportedModelError
from prunekit.pruning.plan import PruningPlan
from prunekit.pruning.verify import verify
from prunekit.recipe import BudgetSpec, TrainSpec
from prunekit.tasks.base import Evaluation
from prunekit.testing.tiny import tiny_model
from prunekit.training.loop import Trainer

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

MODELS = ("t5", "t5-gated", "t5-narrow", "bart", "bert", "vit", "deit")
# Settles within the default tolerance.
SETTLED = {"max_steps": 400, "batch_size": 8, "mask_learning_rate": 0.1, "eval_every": 100}


class Trained(Labelled):
    """The labelled task with a split to train on and a score."""

    primary_metric, higher_is_better = "loss", False

    def examples(self, split):
        return self._examples

    def evaluate(self, model, split, *, batch_size, limit=None):
        with torch.no_grad():
            return Evaluation({"loss": float(model(**self.collate(self._examples)).loss)}, [], [], [], [], {})


def run(name, folder, *, target=None, seed=0, sparsity=0.5, budget=None, train=QUICK, **keys):
    """A target with the trained weights, and the plan that CoFi made of it."""
    target = target or target_of(name)
    loose = {"sparsity_tolerance": 0.9} if train is QUICK else {}
    config = CofiConfig(**{"validation_limit": 4, **loose, **keys})
    spec = BudgetSpec(**{"sparsity": sparsity, **(budget or {})})
    trainer = Trainer(folder, TrainSpec(**train), seed=seed)
    return target, Cofi(config).plan(target, Trained(target.model), spec, trainer)


def projections(target):
    """Weights and biases of attention and FFN projections, counted from the tensors."""
    paths = [p for sub in target.structure.sublayers.values() for p in (*sub.inputs, sub.output)]
    return sum(p.numel() for path in paths for p in target.model.get_submodule(path).parameters())


@pytest.mark.parametrize("name", MODELS)
def test_a_plan_removes_the_budget_to_within_one_unit(tmp_path, name):
    target, plan = run(name, tmp_path)
    before, after = projections(target), projections(target.pruned(plan))
    largest = 4 * 4 * 16 + 3 * 4 + 16  # a head at full width, with the bias of its output
    assert 0 <= before - after - 0.5 * before < largest


@pytest.mark.parametrize("final", ["soft", "binary"])
@pytest.mark.parametrize("name", MODELS)
def test_the_pruned_model_is_the_masked_one(tmp_path, name, final):
    target, plan = run(name, tmp_path, final_mask=final)
    assert bool(plan.scale) is (final == "soft")
    task = Trained(target.model)
    batch = task.collate(task.examples("train")[:3])
    target.model.double()
    verify(
        target, target.pruned(plan), plan, {k: t for k, t in batch.items() if k != "labels"} | _labels(batch)
    )


def _labels(batch):
    return {"labels": batch["labels"]} if "labels" in batch else {}


@pytest.mark.parametrize("kinds", [("head", "neuron"), ("sublayer",), ("hidden",), ("neuron", "hidden")])
def test_a_plan_names_the_kinds_that_were_asked_for(tmp_path, kinds):
    target, plan = run("t5", tmp_path, kinds=kinds, sparsity=0.4)
    assert {target.groups[name].kind for name in plan.keep} == set(kinds)


@pytest.mark.slow
@pytest.mark.parametrize("sparsity", [0.6, 0.9])
@pytest.mark.parametrize("name", ["t5", "bart", "bert"])
def test_the_masks_learn_the_target(tmp_path, name, sparsity):
    run(name, tmp_path, sparsity=sparsity, train=SETTLED, layer_weight=0.001)
    rows = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert rows[-1]["sparsity"] == pytest.approx(sparsity, abs=0.01)


def test_a_budget_in_macs_is_met_in_macs(tmp_path):
    lengths = {"length": 9, "target_length": 5}
    target, plan = run("t5", tmp_path, budget={"metric": "macs", "macs": lengths})
    spec = BudgetSpec(sparsity=0.5, metric="macs", macs=lengths)
    costs = target.costs(spec)
    pruned = target.pruned(plan)
    left = sum(c.prunable for c in pruned.costs(spec).values())
    total = sum(c.prunable for c in costs.values())
    assert 0.5 - 0.05 < left / total <= 0.5


def test_a_latency_budget_is_refused_before_training(tmp_path):
    budget = {"metric": "latency", "ratio": 0.6}
    with pytest.raises(BudgetError) as caught:
        run("t5", tmp_path, sparsity=None, budget=budget)
    assert str(caught.value) == (
        "cofi counts its budget in params or macs, not latency: its masks learn a share, not a time. Write "
        "budget.metric: params or macs, and a sparsity in place of the ratio."
    )
    assert not list(tmp_path.iterdir())


def test_one_seed_gives_one_plan_and_one_set_of_weights(tmp_path):
    first, plan = run("bert", tmp_path / "1")
    second, again = run("bert", tmp_path / "2")
    assert plan == again
    weights, others = first.model.state_dict(), second.model.state_dict()
    assert all(torch.equal(weights[name], others[name]) for name in weights)


def test_the_trained_weights_are_left_in_the_target_and_all_can_be_trained_again(tmp_path):
    target, _ = run("bart", tmp_path, freeze_embeddings=True)
    before = tiny_model("bart").state_dict()
    after = target.model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert "model.encoder.layers.0.fc1.weight" in changed
    assert "model.shared.weight" not in changed
    assert all(parameter.requires_grad for parameter in target.model.parameters())
    assert not any(parameter.grad is not None for parameter in target.model.parameters())


def test_a_scope_is_for_units_alone(tmp_path):
    _, plan = run("t5", tmp_path, budget={"scope": ["encoder.*"]}, kinds=("head", "neuron"))
    assert all(name.startswith("encoder.") for name in plan.keep)
    with pytest.raises(
        BudgetError,
        match=re.escape(
            "cofi: the budget's scope leaves out decoder.0.self_attn and 8 more sublayers, but masks on "
            "sublayer and hidden units span the whole model. Leave budget.scope empty, or write "
            "kinds: [head, neuron]."
        ),
    ):
        run("t5", tmp_path / "other", budget={"scope": ["encoder.*"]})


class WithAnotherHead(BertForSequenceClassification):
    def __init__(self, config):
        super().__init__(config)
        self.ranker = torch.nn.Linear(config.hidden_size, 1)


def test_a_model_without_hidden_units_is_refused_with_the_kinds_that_work(tmp_path):
    target = target_of(WithAnotherHead(tiny_model("bert").config))
    with pytest.raises(
        UnsupportedModelError,
        match=r"cofi: hidden units of WithAnotherHead cannot be pruned: ranker\.weight .*\. Write kinds: "
        r"\[head, neuron, sublayer\]\.",
    ):
        run("bert", tmp_path, target=target)


def test_settings_that_cannot_reach_the_target_are_refused_before_training(tmp_path):
    with pytest.raises(BudgetError, match=r"cofi: 5 training steps .* the sparsity of the model to 0\.9"):
        run(
            "t5", tmp_path, sparsity=0.9, train={**QUICK, "mask_learning_rate": 0.01}, sparsity_tolerance=0.01
        )
    assert not (tmp_path / "train.jsonl").exists()


def test_a_target_that_was_missed_is_an_error_with_what_was_reached(tmp_path):
    keys = {"initial_lambda_2": 0.0, "label_weight": 1e6, "sparsity_tolerance": 0.01}
    train = {"max_steps": 240, "batch_size": 8, "mask_learning_rate": 0.2}
    with pytest.raises(TrainingError, match=r"cofi: the model's sparsity ended at 0\.\d+, 0\.\d+ below") as e:
        run("t5", tmp_path, sparsity=0.6, train=train, **keys)
    assert "outweigh the task's loss with a larger initial_lambda_2 (now 0)" in str(e.value)


def test_it_works_on_text_too(tmp_path):
    target = target_of("t5")
    config = CofiConfig(validation_limit=4, sparsity_tolerance=0.9)
    trainer = Trainer(tmp_path, TrainSpec(**QUICK), seed=0)
    plan = Cofi(config).plan(target, copy_task(), BudgetSpec(sparsity=0.5), trainer)
    assert isinstance(plan, PruningPlan)
    rows = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert {"per", "realised_sparsity"} <= rows[-1].keys()
