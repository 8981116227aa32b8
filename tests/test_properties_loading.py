"""What holds for every recipe, budget, structure, mask and plan: reading gives back what was written."""

import pytest
import torch
import yaml
from fake_plugins import fake_registry
from hypothesis import given
from hypothesis import strategies as st
from strategies import SETTINGS, budgets, masks, names, plans, recipes, structures

from prunekit.errors import PlanError, RecipeError
from prunekit.pruning.plan import PruningPlan
from prunekit.recipe import dump_recipe, load_recipe
from prunekit.recipe_models import BudgetSpec
from prunekit.recipe_tree import Tree
from prunekit.shown import harmless, visible

REGISTRY = fake_registry()
trees = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63) + 1, 2**63 - 1) | st.floats(allow_nan=False) | names,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=12,
)


@SETTINGS
@given(recipes())
def test_a_recipe_is_read_as_it_was_written(tmp_path_factory, recipe):
    path = tmp_path_factory.getbasetemp() / "property-recipe.yaml"
    taken = load_recipe(recipe, registry=REGISTRY)
    path.write_text(dump_recipe(taken), encoding="utf-8")
    assert load_recipe(path, registry=REGISTRY) == taken


@SETTINGS
@given(recipes(), st.data())
def test_a_recipe_with_any_value_in_any_place_is_taken_or_refused(recipe, data):
    place = recipe
    while True:
        key = data.draw(st.sampled_from(sorted(place)))
        if not isinstance(place[key], dict) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(trees)
    message = ""
    try:
        load_recipe(recipe, registry=REGISTRY)
    except RecipeError as error:
        message = str(error)
    assert harmless(message) == message


@SETTINGS
@given(trees)
def test_yaml_of_plain_data_is_read_as_yaml_itself_would(tree):
    text = yaml.safe_dump(tree, allow_unicode=True)
    assert Tree("the text").read(text) == yaml.safe_load(text)


@SETTINGS
@given(budgets())
def test_a_budget_is_read_as_it_was_written(budget):
    taken = BudgetSpec.model_validate(budget)
    assert BudgetSpec.model_validate(taken.model_dump()) == taken


@SETTINGS
@given(st.data())
def test_masks_and_plans_give_each_other_back(data):
    groups = data.draw(structures())
    drawn = data.draw(masks(groups))
    again = PruningPlan.from_masks(drawn, groups).masks(groups)
    for name, mask in drawn.items():
        assert torch.equal(again.get(name, torch.ones_like(mask)), mask)


@SETTINGS
@given(st.data())
def test_a_plan_is_read_as_it_was_written(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "property-plan.json"
    plan = data.draw(plans(data.draw(structures())))
    plan.save(path)
    assert PruningPlan.load(path) == plan


@SETTINGS
@given(st.data())
def test_a_plan_with_an_index_out_of_place_is_refused(data):
    groups = data.draw(structures())
    name = data.draw(st.sampled_from(sorted(groups)))
    size = groups[name].size
    outside = data.draw(st.integers(max_value=-1) | st.integers(min_value=size))
    with pytest.raises(PlanError, match=f"{name}: kept indices must "):
        PruningPlan(keep={name: (outside,)}).check(groups)


@SETTINGS
@given(st.text())
def test_no_text_is_more_than_characters_when_it_is_shown(text):
    assert visible(text).isprintable()
    assert all(character.isprintable() or character == "\n" for character in harmless(text))
