from __future__ import annotations

import re
from functools import partial

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from recipe_text import GOOD, changed, fault_in, load_text

from prunekit.recipe_faults import Fault, faults_of


@pytest.fixture
def load(tmp_path):
    return partial(load_text, tmp_path)


@pytest.fixture
def fault(tmp_path):
    return partial(fault_in, tmp_path)


def test_a_percentage_is_answered_with_the_fraction(fault):
    text = fault(changed("sparsity: 0.3", "sparsity: 60"))
    assert "recipe.yaml has 1 problem\n" in text
    assert " line 5 budget.sparsity = 60 must be a fraction between 0 and 1 (removed share" in text
    assert text.endswith("; did you mean 0.6?")


def test_a_percent_sign_is_answered_with_the_fraction(fault):
    assert "budget.sparsity = 60% must be a fraction" in fault(changed("sparsity: 0.3", "sparsity: 60%"))


def test_removing_everything_is_not_a_sparsity(fault):
    assert "budget.sparsity = 1 must be less than 1" in fault(changed("sparsity: 0.3", "sparsity: 1"))


def test_a_training_section_needs_epochs_but_recovery_may_do_without(fault, load):
    text = fault(changed("epochs: 4", "epochs: 0"))
    assert " line 14 train.epochs = 0 must be greater than 0 (passes over the training data)" in text
    assert load(GOOD, "recover.epochs=0").recover.is_empty
    assert "recover.epochs = -1 must be greater than or equal to 0" in fault(GOOD, "recover.epochs=-1")


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("length=0", "budget.macs.length = 0 must be greater than or equal to 1 (input tokens;"),
        ("lenght=4", "budget.macs.lenght unknown key; did you mean length? (macs takes: length, target"),
    ],
)
def test_a_fault_in_the_lengths_of_macs_is_told(key, text, fault):
    assert text in fault(GOOD, f"budget.macs.{key}")


def test_an_unknown_section_is_answered_with_the_nearest_and_all(fault):
    text = fault(GOOD + "evalute: {split: test}\n")
    assert (
        " line 17 evalute unknown key; did you mean evaluate? (a recipe takes: version, description," in text
    )


def test_an_unknown_key_of_a_section_is_answered_with_the_nearest(fault):
    text = fault(changed("epochs: 4", "epoch: 4"))
    assert " line 14 train.epoch unknown key; did you mean epochs? (train takes: epochs, max_steps," in text


def test_an_unknown_key_of_a_method_names_the_method_and_its_keys(fault):
    text = fault(changed("decoder_layers", "decoder_layer"))
    assert (
        " line 7 methods.trim.decoder_layer unknown key; did you mean decoder_layers? "
        "(trim takes: decoder_layers, warmup_share, method, budget, train, recover)"
    ) in text


def test_a_config_that_forgets_to_forbid_unknown_keys_does_not_swallow_them(fault):
    text = fault(changed("trim: {decoder_layers: 3}", "needy: {strength: 1, strenght: 2}"))
    assert "methods.needy.strenght unknown key; did you mean strength?" in text


def test_a_value_that_the_method_refuses_is_told_with_its_line(fault):
    text = fault(changed("decoder_layers: 3", "decoder_layers: 0"))
    assert (
        " line 7 methods.trim.decoder_layers = 0 must be greater than or equal to 1 (decoder blocks kept)"
        in text
    )


def test_a_required_key_of_a_method_is_told(fault):
    text = fault(changed("trim: {decoder_layers: 3}", "needy:"))
    assert " line 7 methods.needy.strength is required (how hard to cut)" in text


def test_an_unknown_method_is_answered_with_the_nearest_and_the_installed(fault):
    text = fault(changed("trim: {decoder_layers: 3}", "trym:"))
    assert (
        " line 7 methods.trym no method 'trym' is installed; did you mean trim? (installed: needy, trim)"
        in text
    )


def test_an_unknown_method_behind_a_label_is_told_at_its_own_line(fault):
    text = fault(changed("    method: trim\n    budget", "    method: trym\n    budget"))
    assert " line 9 methods.trim-2.method = trym no method 'trym' is installed; did you mean trim?" in text


def test_an_unknown_task_is_answered_with_the_nearest_and_the_installed(fault):
    text = fault(changed("name: echo", "name: ecco"))
    assert (
        " line 4 task.name = ecco no task 'ecco' is installed; did you mean echo? (installed: echo)" in text
    )


def test_an_unknown_key_of_a_task_names_the_task(fault):
    text = fault(changed("words: 7", "word: 7"))
    assert " line 4 task.word unknown key; did you mean words? (echo takes: words, name)" in text


@pytest.mark.parametrize("number", [".inf", ".nan"])
def test_numbers_must_be_finite(fault, number):
    text = fault(changed("epochs: 4", f"epochs: {number}"))
    assert f"train.epochs = {number} must be a finite number" in text


def test_another_format_version_is_refused(fault):
    assert " line 1 version = 2 must be 1" in fault(changed("version: 1", "version: 2"))


def test_a_wrong_choice_is_answered_with_the_choices(fault):
    text = fault(changed("metric: macs", "metric: mac"))
    assert "budget.metric = mac must be 'params', 'macs' or 'latency'; did you mean macs?" in text


def test_a_value_where_a_section_belongs_lists_the_sections_keys(fault):
    text = fault(GOOD + "evaluate: test\n")
    assert (
        " line 17 evaluate = test must be a mapping with the keys split, batch_size, limit, num_beams" in text
    )


def test_missing_keys_are_told(fault):
    text = fault("version: 1\nmodel: m\n")
    assert "task is required" in text


def test_a_fault_inside_a_new_model_has_the_path_that_stands_in_the_file(fault):
    text = fault(changed("embedded:tiny", "{type: bat, processor: p}"))
    assert " line 3 model.type = bat must be 't5', 'bart', 'bert' or 'vit'; did you mean bart?" in text


def test_keys_of_a_new_model_are_told_without_the_name_of_the_model_class(fault):
    text = fault(changed("embedded:tiny", "{type: t5, procesor: p}"))
    assert " line 3 model.processor is required (folder or embedded:NAME" in text
    assert " line 3 model.procesor unknown key; did you mean processor? (model takes: type," in text


def test_an_entrys_override_is_checked_at_the_entrys_line(fault):
    text = fault(changed("sparsity: 0.6", "sparsity: 60, spare: 1"))
    assert " line 10 methods.trim-2.budget.sparsity = 60 must be a fraction" in text
    assert " line 10 methods.trim-2.budget.spare unknown key" in text
    assert "has 2 problems" in text


def test_an_entrys_budget_alone_must_be_whole(fault):
    text = fault(
        changed('{metric: macs, sparsity: 0.3, scope: ["encoder.*"]}', "").replace(
            "sparsity: 0.6", "scope: []"
        )
    )
    assert " line 10 methods.trim-2.budget.sparsity is required" in text


def test_a_method_without_any_budget_is_told(fault):
    text = fault(re.sub("^budget: .*$", "", GOOD, flags=re.MULTILINE))
    assert " line 7 methods.trim the recipe does not say how much to remove; add a line such as" in text


def test_a_key_that_stands_twice_is_told_with_both_lines(fault):
    text = fault(GOOD + "seed: 4\n")
    assert " line 17 seed this key stands here twice (first on line 16); keep one" in text


def test_a_key_that_yaml_reads_as_something_else_is_told(fault):
    text = fault(changed("train: {", "train: {no: 1, "))
    assert "keys must be text; put this one in quotes" in text


@pytest.mark.parametrize("label", ["a/b", "..", "with space"])
def test_a_label_must_make_a_folder_name(fault, label):
    text = fault(changed("default:", f"{label!r}:"))
    assert f"label {label!r} must be letters, digits, - and _" in text


class Rewriting(BaseModel):
    """Reads ``layers: {decoder: N}`` as ``decoder_layers: N``, as a method's config may."""

    model_config = ConfigDict(extra="forbid")

    decoder_layers: int

    @model_validator(mode="before")
    @classmethod
    def flatten(cls, data):
        return {f"{stack}_layers": count for stack, count in data["layers"].items()}


def test_faults_of_a_config_that_rewrites_its_keys_are_told_by_field():
    data = {"layers": {"decoder": "x", "x": 2}}
    with pytest.raises(ValidationError) as caught:
        Rewriting.model_validate(data)
    assert faults_of(caught.value, data, Rewriting, at=("methods", "m"), owner="m") == [
        Fault(("methods", "m", "decoder_layers"), "must be a valid integer", "x"),
        Fault(
            ("methods", "m", "x_layers"),
            "unknown key; did you mean decoder_layers? (m takes: decoder_layers)",
        ),
    ]


def test_all_faults_are_told_at_once_in_the_order_of_the_file(fault):
    text = fault(
        changed("sparsity: 0.3", "sparsity: 60")
        .replace("decoder_layers", "decoder_layer")
        .replace("method: trim\ntrain", "method: trym\ntrain")
        .replace("name: echo", "name: ecco")
        + "evalute: {}\n",
        "train.epoch=3",
    )
    lines = text.splitlines()
    assert lines[0].endswith("recipe.yaml has 6 problems")
    assert [re.match(r" (line \d+|--set) (\S+)", line).groups() for line in lines[1:]] == [
        ("line 4", "task.name"),
        ("line 5", "budget.sparsity"),
        ("line 7", "methods.trim.decoder_layer"),
        ("line 13", "methods.default.method"),
        ("line 17", "evalute"),
        ("--set", "train.epoch"),
    ]


# --set


def test_overrides_are_read_as_yaml(load):
    recipe = load(
        GOOD, "train.epochs=2", "budget.scope=[decoder.*]", "methods.trim.decoder_layers=null", "model=m"
    )
    assert recipe.train.epochs == 2
    assert recipe.train.learning_rate == 3e-4
    assert recipe.budget.scope == ["decoder.*"]
    assert recipe.methods["trim"].options == {"decoder_layers": None}
    assert recipe.model == "m"


def test_an_override_makes_the_section_it_needs(load):
    assert load(GOOD, "speed.rounds=3").speed.rounds == 3


def test_an_override_of_an_alias_changes_one_place_only(load):
    text = changed("train: {epochs: 4", "train: &base {epochs: 4")
    text = re.sub("^recover: .*$", "recover: *base", text, flags=re.MULTILINE)
    recipe = load(text, "recover.epochs=1")
    assert (recipe.train.epochs, recipe.recover.epochs) == (4, 1)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epoch=3", " --set train.epoch unknown key; did you mean epochs?"),
        ("trian.epochs=3", " --set trian unknown key; did you mean train?"),
        ("budget.sparsity=60", " --set budget.sparsity = 60 must be a fraction between 0 and 1"),
        ("budget={sparsity: 60}", " --set budget.sparsity = 60 must be a fraction between 0 and 1"),
        (
            "methods.trim.decoder_layer=2",
            " --set methods.trim.decoder_layer unknown key; did you mean decoder_layers?",
        ),
        ("model.size=2", " --set model.size model holds a value, so it has no keys to set"),
        ("seed", " --set seed must read key=value, such as --set train.epochs=2"),
        (".seed=1", " --set .seed must read key=value"),
        ("seed=[1", " --set seed the value is not valid YAML: line 1"),
    ],
)
def test_a_faulty_override_is_told_like_the_rest(fault, override, message):
    text = fault(GOOD, override)
    assert "has 1 problem\n" in text
    assert message in text
