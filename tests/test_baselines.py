"""Magnitude, random, and the block rules."""

from __future__ import annotations

import math

import pytest
import torch
from oneshot_calls import plan_of, same_state, state_of, unit_groups
from prunekit_baselines import prunekit_register_methods
from prunekit_baselines.blocks import High, Low, Uniform
from prunekit_baselines.units import Magnitude, Random
from toy_task import copy_task
from transformers import BertConfig, BertForSequenceClassification

from prunekit.errors import BudgetError, PrunekitError, UnsupportedModelError
from prunekit.pruning.cost import sparsity
from prunekit.testing.tiny import TINY_MODELS, tiny_model

UNITS = [Magnitude, Random]
BLOCKS = [Uniform, Low, High]


def deep_bert(blocks):
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 12, "num_hidden_layers": blocks}
    return BertForSequenceClassification(BertConfig(vocab_size=40, **sizes)).eval()


def test_the_plugin_offers_five_methods_that_do_not_train():
    methods = prunekit_register_methods()
    assert methods == UNITS + BLOCKS
    assert [method.info.name for method in methods] == ["magnitude", "random", "uniform", "low", "high"]
    assert not any(method.info.trains for method in methods)


@pytest.mark.parametrize("method", UNITS)
@pytest.mark.parametrize("name", TINY_MODELS)
def test_unit_methods_meet_the_budget_on_every_model(prunable, tmp_path, method, name):
    target = prunable(tiny_model(name))
    before = state_of(target.model)
    plan = plan_of(method, target, tmp_path, task=copy_task())
    assert 0.4 - 1e-9 <= sparsity(target.parameter_costs(), target.structure, plan.keep) < 0.45
    assert plan.scale == {}
    assert same_state(before, state_of(target.model))
    target.pruned(plan)


def test_magnitude_removes_the_units_with_the_smallest_squares(prunable, tmp_path):
    target = prunable(tiny_model("bert").requires_grad_(False))
    plan = plan_of(Magnitude, target, tmp_path)
    layer = target.model.bert.encoder.layer
    for kind in ("heads", "neurons"):
        kept, removed = [], []
        for block in range(3):
            parts = layer[block].attention
            if kind == "heads":
                name = f"encoder.{block}.self_attn.heads"
                inputs = [parts.self.query, parts.self.key, parts.self.value]
                output = parts.output.dense
            else:
                name = f"encoder.{block}.ffn.neurons"
                inputs, output = [layer[block].intermediate.dense], layer[block].output.dense
            width = target.groups[name].width
            for unit in range(target.groups[name].size):
                own = slice(unit * width, (unit + 1) * width)
                squares = output.weight[:, own].square().sum() + sum(
                    module.weight[own].square().sum() + module.bias[own].square().sum() for module in inputs
                )
                (kept if unit in plan.keep[name] else removed).append(float(squares))
        assert removed
        assert min(kept) > max(removed)


def test_magnitude_does_not_depend_on_the_seed_and_random_does(prunable, tmp_path):
    target = prunable(tiny_model("bert"))
    plans = {m: [plan_of(m, target, tmp_path, seed=seed).keep for seed in (1, 1, 2)] for m in UNITS}
    assert plans[Magnitude][0] == plans[Magnitude][1] == plans[Magnitude][2]
    assert plans[Random][0] == plans[Random][1] != plans[Random][2]


def test_random_favours_neither_heads_nor_neurons(prunable, tmp_path):
    target = prunable(tiny_model("bert"))
    kept = {"heads": [], "neurons": []}
    for seed in range(30):
        keep = plan_of(Random, target, tmp_path, seed=seed, sparsity=0.5).keep
        for kind, shares in kept.items():
            names = unit_groups(target, kind)
            shares.append(sum(len(keep[name]) for name in names) / sum(target.groups[n].size for n in names))
    for shares in kept.values():
        assert sum(shares) / len(shares) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("method", UNITS)
def test_unit_methods_can_tune_and_then_need_examples(prunable, tmp_path, method):
    plan = plan_of(method, prunable(tiny_model("bert")), tmp_path, tune=True)
    assert plan.scale


@pytest.mark.parametrize("method", UNITS)
def test_unit_methods_cannot_rearrange(prunable, tmp_path, method):
    with pytest.raises(PrunekitError, match="rearrange: true needs signed gradient samples"):
        plan_of(method, prunable(tiny_model("bert")), tmp_path, rearrange=True)


@pytest.mark.parametrize("method", UNITS)
def test_a_floor_above_the_budget_is_refused(prunable, tmp_path, method):
    with pytest.raises(BudgetError, match="each group keeps at least 4 units"):
        plan_of(method, prunable(tiny_model("bert")), tmp_path, floor=4, sparsity=0.7)


@pytest.mark.parametrize("method", UNITS + BLOCKS)
def test_a_model_with_nan_is_refused(prunable, tmp_path, method):
    target = prunable(tiny_model("bert"))
    with torch.no_grad():
        target.model.get_parameter("classifier.bias")[0] = math.nan
    with pytest.raises(PrunekitError, match=r"^the weights of classifier\.bias are NaN or infinite\."):
        plan_of(method, target, tmp_path)


@pytest.mark.parametrize("method", BLOCKS)
def test_a_latency_budget_is_refused(prunable, tmp_path, method):
    budget = {"metric": "latency", "ratio": 0.5}
    with pytest.raises(BudgetError, match="units have costs in params and macs only"):
        plan_of(method, prunable(tiny_model("bert")), tmp_path, budget=budget)


@pytest.mark.parametrize("method", UNITS + BLOCKS)
def test_a_scope_that_names_nothing_is_refused(prunable, tmp_path, method):
    with pytest.raises(BudgetError, match=r"\['decoder\.\*'\] matches no heads or neurons"):
        plan_of(method, prunable(tiny_model("bert")), tmp_path, budget={"scope": ["decoder.*"]})


@pytest.mark.parametrize(
    ("method", "kept"), [(Uniform, (0, 3, 7, 11)), (Low, (0, 1, 2, 3)), (High, (8, 9, 10, 11))]
)
def test_block_rules_keep_the_number_asked_for(prunable, tmp_path, method, kept):
    plan = plan_of(method, prunable(deep_bert(12)), tmp_path, encoder_layers=4)
    assert plan.keep == {"encoder.blocks": kept}


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_either_stack_or_both_can_be_shortened(prunable, tmp_path, name):
    target = prunable(tiny_model(name))
    one = plan_of(Uniform, target, tmp_path, decoder_layers=2).keep
    both = plan_of(High, target, tmp_path, encoder_layers=1, decoder_layers=2).keep
    assert one == {"decoder.blocks": (0, 2)}
    assert both == {"encoder.blocks": (2,), "decoder.blocks": (1, 2)}


@pytest.mark.parametrize(
    ("asked", "kept"),
    [(0.0, None), (0.1, (0, 1, 2, 3, 4)), (0.5, (0, 2, 5)), (0.51, (0, 5)), (0.83, (0,))],
)
def test_without_a_number_the_budget_decides(prunable, tmp_path, asked, kept):
    target = prunable(deep_bert(6))
    before = state_of(target.model)
    plan = plan_of(Uniform, target, tmp_path, sparsity=asked)
    expected = {"encoder.blocks": kept if kept != (0, 1, 2, 3, 4) else (0, 1, 2, 3, 5)}
    assert plan.keep == ({} if kept is None else expected)
    assert sparsity(target.parameter_costs(), target.structure, plan.keep) >= asked - 1e-9
    assert same_state(before, state_of(target.model))


def test_the_budget_shortens_every_stack_in_scope_alike(prunable, tmp_path):
    target = prunable(tiny_model("t5"))
    both = plan_of(Low, target, tmp_path, sparsity=0.3, task=copy_task()).keep
    assert both == {"encoder.blocks": (0, 1), "decoder.blocks": (0, 1)}
    only = plan_of(Low, target, tmp_path, sparsity=0.6, budget={"scope": ["decoder.*"]}).keep
    assert only == {"decoder.blocks": (0,)}


def test_a_budget_in_macs_decides_too(prunable, tmp_path):
    macs = {"metric": "macs", "macs": {"length": 7}}
    assert plan_of(Low, prunable(deep_bert(6)), tmp_path, sparsity=0.5, budget=macs).keep == {
        "encoder.blocks": (0, 1, 2)
    }


def test_a_budget_below_one_block_is_refused(prunable, tmp_path):
    with pytest.raises(BudgetError) as caught:
        plan_of(Uniform, prunable(deep_bert(6)), tmp_path, sparsity=0.9)
    assert str(caught.value) == (
        "uniform: a sparsity of 0.9 cannot be reached: with one block left in encoder, 0.8333 is removed. "
        "Ask for at most 0.8333."
    )


def test_a_scope_of_part_of_a_stack_is_refused(prunable, tmp_path):
    with pytest.raises(BudgetError) as caught:
        plan_of(Low, prunable(tiny_model("t5")), tmp_path, budget={"scope": ["decoder.*.neurons"]})
    assert str(caught.value) == (
        "low removes whole blocks, but the budget's scope leaves out decoder.0.self_attn.heads and 5 more of "
        "the decoder. Write budget.scope: ['decoder.*']."
    )


def test_a_number_for_a_stack_that_is_not_there_is_refused(prunable, tmp_path):
    with pytest.raises(UnsupportedModelError) as caught:
        plan_of(High, prunable(tiny_model("bert")), tmp_path, decoder_layers=1)
    assert str(caught.value) == (
        "high: decoder_layers is given, but BertForSequenceClassification has only encoder blocks. Leave "
        "decoder_layers out."
    )


def test_more_blocks_than_there_are_is_refused(prunable, tmp_path):
    with pytest.raises(BudgetError) as caught:
        plan_of(Uniform, prunable(tiny_model("bert")), tmp_path, encoder_layers=4)
    assert str(caught.value) == "encoder_layers = 4, but the encoder has 3 blocks; choose between 1 and 3."
