"""Latency and rounding in a recipe's budget: which keys go together, and how a method's own override them."""

import json

import pytest
from fake_plugins import fake_registry
from pydantic import ValidationError
from recipe_text import GOOD, changed, fault_in, load_text

from prunekit.errors import BudgetError
from prunekit.recipe import BudgetSpec, dump_recipe, resolve_method

WHOLE = '{metric: macs, sparsity: 0.3, scope: ["encoder.*"]}'
OWN = "budget: {sparsity: 0.6}"
TIMED = changed(WHOLE, "{metric: latency, ratio: 0.7, round_to: 8}")


def budget_of(folder, text, label):
    return resolve_method(load_text(folder, text), label, fake_registry()).budget


def test_a_latency_budget_has_a_ratio_and_no_sparsity(tmp_path):
    budget = budget_of(tmp_path, TIMED.replace(OWN, "budget: {round_to: 16}"), "trim")
    assert (budget.metric, budget.ratio, budget.sparsity, budget.round_to) == ("latency", 0.7, None, 8)
    assert "sparsity" not in budget.model_dump()


def test_other_budgets_say_nothing_of_ratios(tmp_path):
    dumped = budget_of(tmp_path, GOOD, "trim").model_dump()
    assert list(dumped) == ["metric", "sparsity", "scope", "macs"]
    assert json.loads(BudgetSpec(sparsity=0.1, round_to=8).model_dump_json())["round_to"] == 8


@pytest.mark.parametrize(
    ("budget", "text"),
    [
        ("{metric: latency}", "budget.ratio is required (measured time of the pruned model over the dense"),
        (
            "{metric: latency, sparsity: 0.3, ratio: 0.5}",
            "budget.sparsity = 0.3 a latency budget takes a ratio of times, such as ratio: 0.6, and no",
        ),
        (
            "{metric: macs, sparsity: 0.3, ratio: 0.5}",
            "budget.ratio = 0.5 a budget in macs takes a sparsity; a ratio of times needs metric: latency",
        ),
        ("{ratio: 0.5}", "budget.sparsity is required (removed share of what is prunable in scope"),
        ("{metric: latency, ratio: 0}", "budget.ratio = 0 must be greater than 0"),
        ("{metric: latency, ratio: 60}", "budget.ratio = 60 must be a fraction between 0 and 1"),
        ("{sparsity: 0.3, round_to: 0}", "budget.round_to = 0 must be greater than or equal to 1"),
    ],
)
def test_keys_that_do_not_go_together_are_told(tmp_path, budget, text):
    assert text in fault_in(tmp_path, changed(WHOLE, budget).replace(OWN, ""))


def test_an_entrys_ratio_takes_the_place_of_the_recipes_sparsity(tmp_path):
    text = changed(OWN, "budget: {metric: latency, ratio: 0.6}")
    budget = budget_of(tmp_path, text, "trim-2")
    assert (budget.ratio, budget.sparsity, budget.scope) == (0.6, None, ["encoder.*"])
    assert budget_of(tmp_path, text, "trim").sparsity == 0.3


def test_an_entrys_sparsity_takes_the_place_of_the_recipes_ratio(tmp_path):
    text = TIMED.replace(OWN, "budget: {metric: params, sparsity: 0.6}")
    budget = budget_of(tmp_path, text, "trim-2")
    assert (budget.ratio, budget.sparsity, budget.round_to) == (None, 0.6, 8)


def test_an_entry_that_changes_the_metric_alone_is_told_what_is_missing(tmp_path):
    text = fault_in(tmp_path, changed(OWN, "budget: {metric: latency}"))
    assert " methods.trim-2.budget.ratio is required" in text
    text = fault_in(tmp_path, TIMED.replace(OWN, "budget: {metric: params}"))
    assert " methods.trim-2.budget.sparsity is required" in text


def test_a_latency_recipe_reads_the_same_from_its_dump(tmp_path):
    recipe = load_text(tmp_path, TIMED.replace(OWN, ""))
    assert load_text(tmp_path, dump_recipe(recipe)) == recipe


def test_a_latency_has_no_share():
    assert BudgetSpec(sparsity=0.3).share == 0.3
    with pytest.raises(BudgetError, match="latency asks for a ratio of times, not for a removed share"):
        _ = BudgetSpec(metric="latency", ratio=0.6).share


@pytest.mark.parametrize("keys", [{}, {"ratio": 0.5}, {"metric": "latency", "sparsity": 0.5}])
def test_python_callers_are_told_too(keys):
    with pytest.raises(ValidationError):
        BudgetSpec(**keys)
