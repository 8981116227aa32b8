"""MAC budgets: the lengths counted for, the closed form against torch's counter, and what was achieved."""

import re
from types import SimpleNamespace

import pytest
import torch
from core_calls import irregular_plan
from toy_task import copy_task
from transformers import BertConfig, BertModel

from prunekit.achieved import achieved, example, macs
from prunekit.errors import BudgetError
from prunekit.flops import count_macs
from prunekit.pruning import cost
from prunekit.pruning.allocate import allocate
from prunekit.pruning.cost import Lengths
from prunekit.pruning.plan import PruningPlan
from prunekit.recipe import BudgetSpec, MacsSpec
from prunekit.testing.tiny import TINY_MODELS, tiny_model

SEQ2SEQ = ("t5", "t5-gated", "bart")


def task_of(**lengths):
    """A task whose examples are their own lengths, with a label row of half that length; splits by name."""

    def collate(examples):
        rows = torch.full((len(examples), max(examples)), -100)
        for row, length in zip(rows, examples, strict=True):
            row[: length // 2] = 3
        return {"labels": rows}

    return SimpleNamespace(splits=tuple(lengths), lengths=lengths.get, examples=lengths.get, collate=collate)


def lengths_of(name, prunable, task=None, **stated):
    return prunable(tiny_model(name)).lengths(MacsSpec(**stated), task)


def budget(sparsity=0.4, **keys):
    return BudgetSpec(metric="macs", sparsity=sparsity, **keys)


# The closed form


def rest(model, lengths):
    """MACs of all that is not prunable: task heads, poolers, patch embeddings."""
    config = model.config
    if config.is_encoder_decoder:
        return lengths.target * config.hidden_size * config.vocab_size
    if config.model_type.endswith("bert"):
        return config.hidden_size * (config.hidden_size + config.num_labels)
    patches = (config.image_size // config.patch_size) ** 2
    patch = config.num_channels * config.patch_size**2
    classifiers = 1 + hasattr(model, "distillation_classifier")
    return config.hidden_size * (patches * patch + classifiers * config.num_labels)


@pytest.mark.parametrize("cut", [False, True], ids=["dense", "pruned"])
@pytest.mark.parametrize("source", [5, 9])
@pytest.mark.parametrize("name", TINY_MODELS)
def test_counted_macs_are_the_sublayers_and_the_rest(name, source, cut, prunable):
    target = prunable(tiny_model(name))
    fixed = target.adapter.sequence_length(target.model)
    lengths = Lengths(fixed or source, 3 if "decoder" in target.structure.stacks else 0)
    plan = irregular_plan(target) if cut else PruningPlan()
    counted_on = target.pruned(plan) if cut else target
    costs = cost.mac_costs(target.model, target.structure, lengths)
    left = cost.kept_units(target.structure, plan.keep)
    closed = sum(c.kept(left[sublayer]) for sublayer, c in costs.items())
    counted = count_macs(counted_on.model, example(counted_on.model, lengths))
    assert counted == closed + rest(target.model, lengths)


def test_bert_base_at_32_by_128_has_the_published_flops(prunable):
    with torch.device("meta"):
        target = prunable(BertModel(BertConfig(), add_pooling_layer=False))
        inputs = {"input_ids": torch.zeros(32, 128, dtype=torch.long)}
    counted = count_macs(target.model, inputs)
    closed = sum(c.prunable for c in cost.mac_costs(target.model, target.structure, Lengths(128)).values())
    assert counted == 32 * closed
    assert 2 * counted / 1e9 == pytest.approx(715.11, abs=0.005)


def test_units_cost_what_the_published_arithmetic_says(prunable):
    with torch.device("meta"):
        target = prunable(BertModel(BertConfig(), add_pooling_layer=False))
    costs = target.costs(budget(macs={"length": 128}))
    assert costs["encoder.0.self_attn"].unit == 27_262_976
    assert costs["encoder.0.ffn"].unit == 196_608


# Lengths


@pytest.mark.parametrize(
    ("splits", "length", "target"),
    [
        ({"train": [1, 2], "calibration": [8, 10, 13], "validation": [2]}, 10, 5),
        ({"train": [4, 6], "validation": [30]}, 5, 2),
        ({"validation": [6, 8], "test": [30]}, 7, 4),
    ],
    ids=["calibration", "train", "validation"],
)
def test_lengths_are_means_of_the_calibration_data(splits, length, target, prunable):
    assert lengths_of("t5", prunable, task_of(**splits)) == Lengths(length, target)
    assert lengths_of("bert", prunable, task_of(**splits)) == Lengths(length)


def test_lengths_are_measured_on_the_first_thousand_examples(prunable):
    task = task_of(train=[4] * 1000 + [30] * 1000)
    assert lengths_of("t5", prunable, task) == Lengths(4, 2)


def test_lengths_of_a_real_task_leave_padding_out(prunable):
    task = copy_task()
    found = lengths_of("bart", prunable, task)
    rows = [task.collate([one])["labels"] for one in task.examples("train")]
    assert found.source == round(sum(task.lengths("train")) / len(rows))
    assert found.target == round(sum(row.numel() for row in rows) / len(rows))


def test_one_label_an_example_means_that_the_decoder_reads_the_input(prunable):
    task = task_of(train=[4, 6])
    task.collate = lambda examples: {"labels": torch.zeros(len(examples))}
    assert lengths_of("bart", prunable, task) == Lengths(5, 5)


def test_stated_lengths_win(prunable):
    task = task_of(train=[4, 6])
    assert lengths_of("t5", prunable, task, length=9) == Lengths(9, 2)
    assert lengths_of("t5", prunable, task, target_length=9) == Lengths(5, 9)
    assert lengths_of("t5", prunable, length=9, target_length=3) == Lengths(9, 3)


@pytest.mark.parametrize("stated", [{}, {"length": 5}])
def test_a_model_for_images_has_its_own_length(stated, prunable):
    # Four patches and the class token; what a task calls the length of an image does not matter.
    assert lengths_of("vit", prunable, task_of(train=[1]), **stated) == Lengths(5)


@pytest.mark.parametrize(
    ("name", "stated", "text"),
    [
        (
            "vit",
            {"length": 6},
            "budget.macs.length = 6: ViTForImageClassification always runs on 5 tokens. Leave it out.",
        ),
        (
            "bert",
            {"length": 4, "target_length": 6},
            "budget.macs.target_length = 6: BertForSequenceClassification has no decoder. Leave it out.",
        ),
        (
            "bert",
            {"length": 33},
            "budget.macs.length = 33: BertForSequenceClassification has 32 positions. Write at most 32.",
        ),
        (
            "bart",
            {"length": 4, "target_length": 40},
            "budget.macs.target_length = 40: BartForConditionalGeneration has 32 positions. Write at most "
            "32.",
        ),
    ],
)
def test_lengths_that_cannot_be_are_refused(name, stated, text, prunable):
    with pytest.raises(BudgetError, match=f"^{re.escape(text)}$"):
        lengths_of(name, prunable, **stated)


@pytest.mark.parametrize(
    ("name", "stated", "key"), [("bert", {}, "length"), ("t5", {"length": 4}, "target_length")]
)
@pytest.mark.parametrize("task", [None, task_of(test=[4])], ids=["no task", "no data"])
def test_without_data_lengths_must_be_stated(name, stated, key, task, prunable):
    text = (
        "MACs depend on how many tokens an example has, and there is no data to measure it on. Write "
        f"budget.macs.{key}."
    )
    with pytest.raises(BudgetError, match=f"^{re.escape(text)}$"):
        lengths_of(name, prunable, task, **stated)


# Costs by metric


def test_costs_are_in_the_metric_and_scope_of_the_budget(prunable):
    target = prunable(tiny_model("t5"))
    scope = ["encoder.*.ffn.neurons"]
    task = task_of(train=[4, 6])
    macs_of = target.costs(budget(scope=scope), task)
    parameters_of = target.costs(BudgetSpec(sparsity=0.4, scope=scope), task)
    assert list(macs_of) == list(parameters_of) == [f"encoder.{i}.ffn" for i in range(3)]
    assert macs_of["encoder.0.ffn"].unit == 5 * 16 * 2
    assert parameters_of["encoder.0.ffn"].unit == 16 * 2


def test_a_latency_budget_is_refused(prunable):
    text = (
        "budget.metric = latency: units have costs in params and macs only. Write one of these, or use a "
        "method that works with latency."
    )
    with pytest.raises(BudgetError, match=f"^{re.escape(text)}$"):
        prunable(tiny_model("bert")).costs(BudgetSpec(metric="latency", ratio=0.6))


@pytest.mark.parametrize("metric", ["params", "macs"])
def test_a_scope_without_units_is_refused(metric, prunable):
    spec = BudgetSpec(metric=metric, sparsity=0.4, scope=["encodr.*"], macs={"length": 4})
    with pytest.raises(
        BudgetError, match=r"^the budget's scope \['encodr\.\*'\] matches no heads or neurons"
    ):
        prunable(tiny_model("bert")).costs(spec)


# What was achieved


@pytest.mark.parametrize("scope", [[], ["encoder.*"]], ids=["all", "encoder"])
@pytest.mark.parametrize("name", [*SEQ2SEQ, "bert", "vit"])
def test_a_mac_budget_is_met_and_the_figures_say_so(name, scope, prunable):
    target, task = prunable(tiny_model(name)), task_of(train=[7, 9])
    spec = budget(0.4, scope=scope)
    costs = target.costs(spec, task)
    generator = torch.Generator().manual_seed(0)
    scores = {
        (units := target.structure.sublayers[sub].units).name: torch.rand(units.size, generator=generator)
        for sub in costs
    }
    plan = PruningPlan(keep=allocate(scores, costs, target.structure, spec.sparsity))
    found = achieved(target, plan, spec, task)
    counted = macs(target, target.pruned(plan), plan, spec, task)
    dense, pruned = counted["prunable"]["dense"], counted["prunable"]["pruned"]
    cheapest = min(c.unit for c in costs.values())
    assert 0.6 * dense - cheapest < pruned <= 0.6 * dense
    assert found["sparsity"] == pytest.approx(1 - pruned / dense)
    assert counted["dense"] - counted["pruned"] == dense - pruned
    assert counted["ratio"] == counted["pruned"] / counted["dense"]
    lengths = target.lengths(spec.macs, task)
    assert (counted["length"], counted["target_length"]) == (lengths.source, lengths.target or None)


def test_sparsity_of_a_stack_is_of_parameters_under_a_mac_budget_too(prunable):
    target, task = prunable(tiny_model("t5")), task_of(train=[7, 9])
    plan = PruningPlan(keep={"encoder.0.ffn.neurons": (0, 1), "encoder.1.self_attn.heads": (2,)})
    by_macs = achieved(target, plan, budget(), task)
    by_parameters = achieved(target, plan, BudgetSpec(sparsity=0.4), task)
    assert by_macs["encoder_sparsity"] == by_parameters["encoder_sparsity"]
    assert by_macs["sparsity"] != pytest.approx(by_parameters["sparsity"], rel=1e-3)


def test_a_latency_budget_reports_the_share_of_parameters(prunable):
    target = prunable(tiny_model("bert"))
    plan = PruningPlan(keep={"encoder.0.ffn.neurons": (0, 1)})
    budgets = (BudgetSpec(metric="latency", ratio=0.9), BudgetSpec(sparsity=0.1))
    shares = [achieved(target, plan, each)["sparsity"] for each in budgets]
    assert shares[0] == shares[1] > 0
