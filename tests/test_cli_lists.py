from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from cli_calls import RECIPE, call_main
from fake_plugins import ADAPTER, Info, Trim, fake_registry, plugin, registry_of


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    registry = fake_registry()
    monkeypatch.setattr("prunekit.plugins.get_registry", lambda: registry)
    return registry


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(RECIPE)
    return "small.yaml"


@pytest.fixture
def call(capsys):
    return partial(call_main, capsys)


# methods, adapters


def test_methods_list_shows_names_summaries_and_distributions_as_they_are(call):
    lines = call("methods", "list").out.splitlines()
    assert lines[0].split() == ["name", "state", "prunes", "models", "trains", "summary", "distribution"]
    assert lines[2] == "trim   ok     head, neuron  t5      no      cuts [what] is not needed  fake-dist 1.0"


def test_methods_list_can_print_json(call):
    listed = json.loads(call("methods", "list", "--json").out)
    assert [method["name"] for method in listed["methods"]] == ["needy", "trim"]
    assert listed["methods"][1] == {
        "name": "trim",
        "version": "1.0",
        "distribution": "fake-dist",
        "state": "ok",
        "error": None,
        "summary": "cuts [what] is not needed",
        "paper": "Nobody 2020",
        "kinds": ["head", "neuron"],
        "model_types": ["t5"],
        "trains": False,
        "data": "none",
        "deterministic": True,
    }


def fail():
    raise ImportError("nothing [here]\nat all")


@pytest.fixture
def with_broken(monkeypatch):
    registry = registry_of(
        good=plugin(methods=[Trim], adapters=[ADAPTER]), bad=plugin(methods=fail, adapters=fail)
    )
    monkeypatch.setattr("prunekit.plugins.get_registry", lambda: registry)


@pytest.mark.usefixtures("with_broken")
@pytest.mark.parametrize("kind", ["methods", "adapters"])
def test_a_broken_plugin_is_a_row_with_its_error_in_one_line(call, kind):
    result = call(kind, "list")
    assert result.code == 0
    row = result.out.splitlines()[-1]
    assert row.split()[:2] == ["bad", "broken"]
    assert "ImportError: nothing [here] at all" in row
    assert row.endswith("bad-dist 1.0")
    assert result.err == (
        "Broken: bad-dist 1.0. Everything else works without; mend or uninstall what is broken.\n"
    )


@pytest.mark.usefixtures("with_broken")
@pytest.mark.parametrize("kind", ["methods", "adapters"])
def test_a_broken_plugin_is_a_row_of_the_json_too(call, kind):
    assert json.loads(call(kind, "list", "--json").out)[kind][-1] == {
        "name": "bad",
        "version": "1.0",
        "distribution": "bad-dist",
        "state": "broken",
        "error": "ImportError: nothing [here]\nat all",
    }


@pytest.mark.parametrize(
    "info", [SimpleNamespace(name="odd"), Info("odd", kinds=object())], ids=["incomplete", "no-json"]
)
def test_a_method_that_cannot_say_what_it_is_is_broken_alone(call, monkeypatch, info):
    odd = type("Odd", (Trim,), {"info": info})
    registry = registry_of(one=plugin(methods=[Trim, odd]))
    monkeypatch.setattr("prunekit.plugins.get_registry", lambda: registry)
    rows = json.loads(call("methods", "list", "--json").out)["methods"]
    assert [(row["name"], row["state"]) for row in rows] == [("odd", "broken"), ("trim", "ok")]


def test_methods_show_lists_the_keys_of_the_recipe_entry(call):
    out = call("methods", "show", "trim").out
    assert "kinds          head, neuron" in out
    assert "deterministic  yes" in out
    assert "Keys under methods.trim in a recipe:" in out
    assert "decoder_layers  int | None  null     decoder blocks kept" in out
    assert "warmup_share    float       0.1      share of the steps" in out


def test_methods_show_marks_required_keys(call):
    assert "strength  float  required  how hard to cut" in call("methods", "show", "needy").out


def test_methods_show_can_print_json(call):
    shown = json.loads(call("methods", "show", "trim", "--json").out)
    assert shown["config"]["properties"]["decoder_layers"]["description"] == "decoder blocks kept"


def test_methods_show_answers_an_unknown_name_with_the_nearest(call):
    result = call("methods", "show", "trm")
    assert result.code == 1
    assert result.err == (
        "PluginError: no method 'trm' is installed; did you mean trim? (installed: needy, trim).\n"
    )


def test_adapters_list_can_print_text_and_json(call):
    assert "t5    ok     t5          T5       fake-dist 1.0" in call("adapters", "list").out
    assert json.loads(call("adapters", "list", "--json").out)["adapters"][0]["model_type"] == "t5"


def test_adapters_show_prints_the_table_of_groups(call):
    out = call("adapters", "show", "t5").out
    assert "encoder.*.ffn.neurons  neuron  wi, wo [gated]" in out
    shown = json.loads(call("adapters", "show", "t5", "--json").out)
    assert shown["groups"][0]["kind"] == "neuron"


# recipes


@pytest.fixture
def shipped(monkeypatch, tmp_path):
    folder = tmp_path / "site" / "prunekit" / "recipes" / "nash"
    folder.mkdir(parents=True)
    (folder / "t5-g2p.yaml").write_text(RECIPE.replace("version: 1", "version: 1\ndescription: trims [T5]"))
    monkeypatch.setattr("prunekit.shipped.__file__", str(tmp_path / "site" / "prunekit" / "shipped.py"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return folder / "t5-g2p.yaml"


@pytest.mark.usefixtures("shipped")
def test_recipes_list_shows_names_methods_and_descriptions(call):
    lines = call("recipes", "list").out.splitlines()
    assert lines[1] == "nash/t5-g2p  trim     trims [T5]"


def test_recipes_list_counts_those_of_papers_and_shows_them_on_request(call, shipped):
    folder = shipped.parents[1] / "papers" / "one"
    folder.mkdir(parents=True)
    (folder / "row.yaml").write_bytes(shipped.read_bytes())
    whole = call("recipes", "list").out.splitlines()
    assert [line.split()[0] for line in whole[1:-1]] == ["nash/t5-g2p"]
    assert whole[-1] == "1 more of published results: prunekit recipes list papers"
    assert [line.split()[0] for line in call("recipes", "list", "papers").out.splitlines()[1:]] == [
        "papers/one/row"
    ]


@pytest.mark.usefixtures("shipped")
def test_recipes_list_answers_a_folder_that_is_not_there_with_those_that_are(call):
    result = call("recipes", "list", "cofi")
    assert result.code == 2
    assert result.err == "RecipeError: no recipe ships in a folder 'cofi' (folders: nash).\n"


@pytest.mark.usefixtures("shipped")
def test_recipes_list_can_print_json(call):
    [listed] = json.loads(call("recipes", "list", "--json").out)["recipes"]
    assert listed == {
        "name": "nash/t5-g2p",
        "description": "trims [T5]",
        "model": "embedded:tiny",
        "task": "echo",
        "methods": ["trim"],
    }


def test_recipes_copy_copies_into_this_folder(call, shipped, tmp_path):
    assert call("recipes", "copy", "nash/t5-g2p").out == "Copied to t5-g2p.yaml\n"
    assert (tmp_path / "here" / "t5-g2p.yaml").read_bytes() == shipped.read_bytes()


def test_recipes_copy_makes_the_folders_of_its_destination(call, shipped, tmp_path):
    call("recipes", "copy", "nash/t5-g2p", "mine/first.yaml")
    assert (tmp_path / "here" / "mine" / "first.yaml").read_bytes() == shipped.read_bytes()


@pytest.mark.usefixtures("shipped")
def test_recipes_copy_never_overwrites(call, tmp_path):
    (tmp_path / "here" / "t5-g2p.yaml").write_text("mine")
    result = call("recipes", "copy", "nash/t5-g2p")
    assert result.code == 2
    assert "t5-g2p.yaml is there already and was left alone" in result.err
    assert (tmp_path / "here" / "t5-g2p.yaml").read_text() == "mine"


@pytest.mark.usefixtures("shipped")
def test_recipes_copy_answers_an_unknown_name_with_the_nearest(call):
    result = call("recipes", "copy", "nash/t5-gp2")
    assert result.code == 2
    assert "no recipe 'nash/t5-gp2' ships with prunekit; did you mean nash/t5-g2p?" in result.err


@pytest.mark.usefixtures("shipped")
def test_prune_answers_the_name_of_a_shipped_recipe_with_how_to_copy_it(call):
    result = call("prune", "nash/t5-g2p")
    assert result.code == 2
    assert (
        "nash/t5-g2p ships with prunekit; get your copy with `prunekit recipes copy nash/t5-g2p`"
        in result.err
    )


def test_recipes_validate_takes_folders(call, recipe, tmp_path):
    (tmp_path / "all" / "below").mkdir(parents=True)
    for name in ("all/one.yaml", "all/below/two.yaml"):
        (tmp_path / name).write_bytes(Path(recipe).read_bytes())
    result = call("recipes", "validate", "all")
    assert result.code == 0
    assert result.out == "all/below/two.yaml: valid\nall/one.yaml: valid\n"


def test_recipes_validate_refuses_a_folder_without_recipes(call, recipe, tmp_path):
    (tmp_path / "none").mkdir()
    result = call("recipes", "validate", "none")
    assert result.code == 2
    assert result.err == (
        "RecipeError: none holds no .yaml file, in no folder below it either. Name a recipe.\n"
    )


def test_recipes_validate_tells_the_faults_of_every_file(call, recipe, tmp_path):
    (tmp_path / "one.yaml").write_text(RECIPE.replace("0.3", "30"))
    (tmp_path / "two.yaml").write_text(RECIPE.replace("budget: {sparsity: 0.3}\n", ""))
    result = call("recipes", "validate", "one.yaml", recipe, "two.yaml")
    assert result.code == 2
    assert result.out == "small.yaml: valid\n"
    assert "did you mean 0.3?" in result.err
    assert (
        "two.yaml has 1 problem\n  line 5  methods.trim  the recipe does not say how much to remove"
        in result.err
    )


def test_recipes_schema_prints_json(call):
    assert json.loads(call("recipes", "schema").out)["title"] == "prunekit recipe"
