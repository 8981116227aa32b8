from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import pytest
from fake_plugins import Trim, TrimConfig, fake_registry, plugin, registry_of
from recipe_text import GOOD, changed, fault_in, load_text

import prunekit.shipped
from prunekit.errors import RecipeError
from prunekit.plugins import get_registry
from prunekit.recipe import NewModel, Recipe, dump_recipe, json_schema, load_recipe, resolve_method
from prunekit.shipped import shipped_recipes


@pytest.fixture
def registry():
    return fake_registry()


@pytest.fixture
def load(tmp_path):
    return partial(load_text, tmp_path)


@pytest.fixture
def fault(tmp_path):
    return partial(fault_in, tmp_path)


# Reading


def test_a_good_recipe_loads(load):
    recipe = load(GOOD)
    assert recipe.model == "embedded:tiny"
    assert recipe.task.name == "echo"
    assert recipe.task.options == {"words": 7}
    assert recipe.budget.scope == ["encoder.*"]
    assert recipe.methods["trim"].options == {"decoder_layers": 3}
    assert recipe.train.learning_rate == 3e-4
    assert recipe.speed.num_beams == 4


def test_an_entry_with_nothing_behind_it_takes_the_defaults(load):
    assert load(changed("trim: {decoder_layers: 3}", "trim:")).methods["trim"].options == {}


def test_a_new_model_is_a_mapping(load):
    recipe = load(changed("embedded:tiny", "{type: t5, processor: embedded:tiny, config: {d_model: 8}}"))
    assert recipe.model == NewModel(type="t5", processor="embedded:tiny", config={"d_model": 8})


def test_a_merge_key_is_read_as_yaml_means_it(load):
    recipe = load(changed("train: {", "train: &base {").replace("\nrecover: {", "\nrecover: {<<: *base, "))
    assert (recipe.recover.epochs, recipe.recover.batch_size) == (4, 8)


def test_a_dumped_recipe_loads_as_the_same_recipe(load):
    recipe = load(GOOD)
    assert load(dump_recipe(recipe)) == recipe


def test_a_dumped_recipe_states_the_defaults(load):
    assert "checkpoint_every: 500" in dump_recipe(load(GOOD))


# Files that are no recipe


def test_a_missing_file_is_told_with_where_recipes_are_listed(tmp_path, registry):
    path = tmp_path / "nothing.yaml"
    with pytest.raises(RecipeError, match=re.escape(f"{path}: no such file.")) as caught:
        load_recipe(path, registry=registry)
    assert "`prunekit recipes list`" in str(caught.value)


@pytest.fixture
def shipped(monkeypatch, tmp_path):
    """A package folder in which the one recipe ``nash/t5-g2p`` ships; the working directory is another."""
    (tmp_path / "site" / "prunekit" / "recipes" / "nash").mkdir(parents=True)
    file = tmp_path / "site" / "prunekit" / "recipes" / "nash" / "t5-g2p.yaml"
    file.write_text(GOOD)
    monkeypatch.setattr(prunekit.shipped, "__file__", str(tmp_path / "site" / "prunekit" / "shipped.py"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return file


def test_recipes_of_a_wheel_are_found_inside_the_package(shipped):
    assert shipped_recipes() == {"nash/t5-g2p": shipped}


@pytest.mark.parametrize("asked", ["nash/t5-g2p", "nash/t5-g2p.yaml", "recipes/nash/t5-g2p.yaml"])
@pytest.mark.usefixtures("shipped")
def test_the_name_of_a_shipped_recipe_is_answered_with_how_to_copy_it(registry, asked):
    with pytest.raises(RecipeError, match=r"no such file.*`prunekit recipes copy nash/t5-g2p`"):
        load_recipe(Path(asked), registry=registry)


@pytest.mark.usefixtures("shipped")
def test_a_misspelt_shipped_recipe_is_answered_with_the_nearest(registry):
    with pytest.raises(RecipeError, match=r"did you mean the shipped recipe nash/t5-g2p\?"):
        load_recipe(Path("recipes/nash/t5-gp2.yaml"), registry=registry)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty. A recipe is a mapping that starts with `version: 1`"),
        ("# nothing\n", "is empty."),
        ("- a\n- b\n", "holds a list, not a mapping."),
        ("just words\n", "holds a single value, not a mapping."),
        ("a: b: c\n", "is not valid YAML: line 1, column 5: mapping values are not allowed here"),
        ("a: [1\n", "is not valid YAML: line 2, column 1:"),
        (
            "a: !!python/name:os.system x\n",
            "is not valid YAML: line 1, column 4: could not determine a constructor",
        ),
        ("[a]: 1\n", "is not valid YAML: line 1, column 1: a key must be a single word"),
        ("a: {<<: 3}\n", "is not valid YAML: line 1, column 9: << takes a mapping"),
        (b"a: \x00", "is not valid YAML: unacceptable character"),
        (b"\xff\xfe\xfa", "is not text: byte 0 is not UTF-8."),
        ("a: &x {b: *x}\n", ", line 1: a.b contains itself through an alias."),
    ],
)
def test_a_file_that_is_no_recipe_says_why(fault, text, message):
    assert message in fault(text)


def test_a_folder_is_no_recipe(tmp_path, registry):
    with pytest.raises(RecipeError, match="cannot be read: Is a directory"):
        load_recipe(tmp_path, registry=registry)


# Choosing a method


def test_a_label_gives_its_method_with_the_merged_sections(load, registry):
    chosen = resolve_method(load(GOOD), "trim-2", registry)
    assert (chosen.label, chosen.method_class, chosen.is_default) == ("trim-2", Trim, False)
    assert (chosen.budget.metric, chosen.budget.sparsity, chosen.budget.scope) == ("macs", 0.6, ["encoder.*"])
    assert (chosen.train.epochs, chosen.recover.epochs, chosen.recover.batch_size) == (4, 0.5, 8)
    assert (chosen.recover.distill.logits, chosen.recover.distill.temperature) == (1, 2)


def test_lengths_of_macs_are_merged_key_by_key(load, registry):
    recipe = load(GOOD, "budget.macs.length=39", "methods.trim-2.budget.macs.target_length=12")
    chosen = resolve_method(recipe, "trim-2", registry)
    assert (chosen.budget.macs.length, chosen.budget.macs.target_length) == (39, 12)


def test_a_labels_own_keys_become_the_methods_config(load, registry):
    assert resolve_method(load(GOOD), "trim", registry).config == TrimConfig(decoder_layers=3)


def _with_methods(recipe: Recipe, *labels: str) -> Recipe:
    return recipe.model_copy(update={"methods": {label: recipe.methods[label] for label in labels}})


def test_the_only_label_need_not_be_given(load, registry):
    assert resolve_method(_with_methods(load(GOOD), "trim-2"), None, registry).label == "trim-2"


def test_one_of_several_labels_must_be_given(load, registry):
    with pytest.raises(RecipeError, match="has 3 methods; choose one with --method: trim, trim-2, default"):
        resolve_method(load(GOOD), None, registry)


def test_a_recipe_without_methods_lists_the_installed(load, registry):
    with pytest.raises(RecipeError, match=r"has no methods\..*\(installed: needy, trim\)"):
        resolve_method(_with_methods(load(GOOD)), None, registry)


def test_an_installed_method_that_is_no_label_runs_with_its_defaults(load, registry):
    chosen = resolve_method(_with_methods(load(GOOD), "trim-2"), "trim", registry)
    assert chosen.is_default
    assert chosen.config == TrimConfig()
    assert chosen.budget.sparsity == 0.3


def test_a_method_that_cannot_run_on_defaults_says_which_keys_it_needs(load, registry):
    with pytest.raises(RecipeError) as caught:
        resolve_method(load(GOOD), "needy", registry)
    assert "methods.needy.strength  is required (how hard to cut)" in str(caught.value)
    assert "Add `needy:` with these keys under `methods:`" in str(caught.value)


def test_a_name_that_is_neither_label_nor_method_is_answered_with_both(load, registry):
    with pytest.raises(RecipeError) as caught:
        resolve_method(load(GOOD), "trim-3", registry)
    assert str(caught.value) == (
        "--method trim-3: neither a label of the recipe nor an installed method; did you mean trim-2? "
        "(labels: trim, trim-2, default; installed: needy, trim)."
    )


def test_a_recipe_without_a_budget_cannot_prune(load, registry):
    recipe = load(GOOD).model_copy(update={"budget": None})
    with pytest.raises(
        RecipeError, match=r"^trim: the recipe does not say how much to remove; add a line such as `budget:"
    ):
        resolve_method(recipe, "trim", registry)


def test_a_new_model_cannot_be_pruned(load, registry):
    recipe = load(changed("embedded:tiny", "{type: t5, processor: embedded:tiny}"))
    with pytest.raises(RecipeError, match=r"new, untrained one\. Train it with `prunekit finetune`"):
        resolve_method(recipe, "trim", registry)


# JSON Schema


def test_the_schema_offers_the_keys_of_installed_methods_and_tasks(registry):
    schema = json_schema(registry)
    assert (
        schema["$defs"]["method-trim"]["properties"]["decoder_layers"]["description"] == "decoder blocks kept"
    )
    assert "budget" in schema["$defs"]["method-trim"]["properties"]
    assert set(schema["properties"]["methods"]["properties"]) == {"needy", "trim"}
    assert schema["properties"]["task"]["anyOf"][0]["properties"]["words"]["default"] == 5


def test_every_reference_in_the_schema_resolves(registry):
    schema = json_schema(registry)
    found = re.findall(r"'\$ref': '#/\$defs/([^']+)'", str(schema))
    assert found
    assert set(found) <= set(schema["$defs"])


def test_the_schema_without_plugins_still_describes_a_recipe():
    schema = json_schema(registry_of(empty=plugin()))
    assert schema["required"] == ["version", "model", "task"]


# What ships


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_every_shipped_recipe_is_valid(name):
    registry = get_registry()
    recipe = load_recipe(shipped_recipes()[name], registry=registry)
    assert recipe.description, "`prunekit recipes list` shows it"
    for label in recipe.methods:
        resolve_method(recipe, label, registry)
