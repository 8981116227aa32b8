"""The recipes in recipes/papers: valid, complete in what they say, and all on the page about them."""

from __future__ import annotations

import runpy
from functools import cache
from pathlib import Path

import pytest
import yaml

from prunekit.plugins import get_registry
from prunekit.recipe import TeacherSpec, load_recipe, resolve_method
from prunekit.shipped import recipes_folder

ROOT = Path(__file__).parents[1]
PAPERS = recipes_folder() / "papers"
PAGE = (ROOT / "docs" / "reproducing.md").read_text(encoding="utf-8")
BESIDE = yaml.safe_load((ROOT / "docs" / "reproducing.yaml").read_text(encoding="utf-8"))
NAMES = sorted(file.relative_to(PAPERS).with_suffix("").as_posix() for file in PAPERS.rglob("*.yaml"))
# No metrics of the task: figures whose metric the paper does not name, distances read off plots, what is
# no quality, and what only an optional plugin measures.
UNMEASURED = {"unnamed", "change", "speedup", "parameters", "llm-judge"}


def file_of(name):
    return PAPERS / f"{name}.yaml"


@cache
def recipe_of(name):
    return load_recipe(file_of(name), registry=get_registry())


def published(name):
    return yaml.safe_load(file_of(name).read_text(encoding="utf-8"))["published"]


def hub_data(node):
    """Every `data` section with a hub id, however deep."""
    if isinstance(node, dict):
        if "hub" in node and "revision" in node:
            yield node
        for value in node.values():
            yield from hub_data(value)


@pytest.mark.parametrize("name", NAMES)
def test_each_validates_and_each_label_resolves(name):
    recipe = recipe_of(name)
    assert recipe.published is not None
    for label in recipe.methods:
        resolve_method(recipe, label, get_registry())


@pytest.mark.parametrize("name", NAMES)
def test_each_row_has_a_figure_or_a_remark_that_names_it(name):
    recipe = recipe_of(name)
    told = recipe.published
    remarked = " ".join(told.remarks)
    without = [label for label in recipe.methods if not told.methods.get(label) and label not in remarked]
    assert without == []
    assert recipe.methods or told.dense or remarked


@pytest.mark.parametrize("name", NAMES)
def test_each_figure_is_of_a_metric_that_the_task_has(name):
    recipe = recipe_of(name)
    config = get_registry().tasks[recipe.task.name].Config.model_validate(recipe.task.options)
    tasks = getattr(config, "tasks", None) or {"": {"name": recipe.task.name, **recipe.task.options}}
    known = {
        f"{label}/{metric}" if label else metric
        for label, keys in tasks.items()
        for metric in metrics_of(label, keys)
    }
    figures = [recipe.published.dense, *recipe.published.methods.values()]
    measured = {metric for row in figures for metric in row if metric.rsplit("/", 1)[-1] not in UNMEASURED}
    assert measured <= known


def metrics_of(label, keys):
    options = {key: value for key, value in keys.items() if key != "name"}
    task = get_registry().tasks[keys.get("name", label)]
    return task.Config.model_validate(options).metrics


@pytest.mark.parametrize("name", NAMES)
def test_each_trains_its_dense_model_itself_unless_it_comes_trained(name):
    recipe = recipe_of(name)
    is_trained = recipe.task.name == "imagenet-1k" or not recipe.methods
    assert isinstance(recipe.teacher, TeacherSpec) != is_trained


@pytest.mark.parametrize("name", NAMES)
def test_the_command_at_the_top_is_of_the_file_and_a_label_of_it(name):
    head = file_of(name).read_text(encoding="utf-8").partition("\nversion:")[0]
    recipe = recipe_of(name)
    path = f"recipes/papers/{name}.yaml"
    commands = [f"prunekit prune --method {label} {path}" for label in recipe.methods]
    assert any(f"{command} " in head for command in commands or [f"prunekit finetune {path}"])
    assert "has never been run" in head.replace("\n#", "")


def test_a_data_set_is_pinned_as_its_named_task_pins_it():
    from prunekit.tasks.named import FOLDER

    pinned = {
        data["hub"]: data["revision"]
        for file in FOLDER.glob("*.yaml")
        for data in hub_data(yaml.safe_load(file.read_text(encoding="utf-8")))
    }
    written = [data for name in NAMES for data in hub_data(recipe_of(name).task.options)]
    assert written
    assert all(pinned[data["hub"]] == data["revision"] for data in written)


# The page


@pytest.mark.parametrize("name", NAMES)
def test_each_is_on_the_page(name):
    assert f"](../recipes/papers/{name}.yaml)" in PAGE


def test_the_page_has_the_table_as_it_is_made():
    made = runpy.run_path(str(ROOT / "docs" / "reproducing.py"))["papers_table"]()
    assert f"<!-- generate: papers -->\n{made}\n<!-- /generate -->" in PAGE


def test_a_row_counts_as_run_only_with_its_command_machine_and_figures():
    for run in BESIDE["runs"]:
        assert set(run) == {"recipe", "label", "date", "command", "machine", "reached"}
        assert run["label"] in {"dense", *recipe_of(run["recipe"]).methods}
    assert BESIDE["runs"] or "None of the recipes on this page has been run." in PAGE


def test_each_result_without_a_recipe_says_why():
    for row in BESIDE["without_recipe"]:
        assert all(row[key] for key in ("paper", "place", "row", "published", "why"))


# Figures, read in the papers by hand


def test_nash_table_1():
    samsum = published("nash/table-1/samsum")
    assert samsum["dense"] == {"rougeL": 43.33, "speedup": 1.0}
    assert samsum["methods"]["nash-3"] == {"rougeL": 41.09, "speedup": 4.24}
    assert published("nash/table-1/tweetqa")["methods"]["nash-4"] == {"meteor": 55.08, "speedup": 2.52}
    assert published("nash/table-1/xsum")["methods"]["cofi"] == {"rougeL": 25.04, "speedup": 1.12}
    assert published("nash/table-1/cnn-dailymail-t5-small")["dense"] == {"rougeL": 35.59, "speedup": 2.11}


def test_nash_table_2():
    told = published("nash/table-2/dolly")
    assert told["methods"]["nash-4"]["vicuna/rougeL"] == 21.83
    assert told["methods"]["nash-2"]["self-instruct/llm-judge"] == 26.74
    assert told["dense"]["dolly/llm-judge"] == 61.32


def test_nash_tables_3_to_6():
    assert published("nash/table-3/cb")["methods"]["auto"] == {"accuracy": 92.86}
    assert published("nash/table-3/samsum")["methods"]["high"] == {"unnamed": 39.45}
    assert published("nash/table-4/rte")["methods"]["uniform-50"] == {"accuracy": 71.84, "speedup": 2.59}
    deepest = published("nash/table-5/t5-efficient-small-nl24")["methods"]
    assert deepest["nash-2"] == {"rougeL": 35.29, "speedup": 5.9}
    bart = published("nash/table-6/bart-base")["methods"]["nash-3"]
    assert bart == {"rougeL": 41.14, "speedup": 2.1, "parameters": 89_800_000}


def test_nash_tables_10_and_11():
    assert published("nash/table-10/samsum")["methods"]["nash-8"] == {"rougeL": 42.51}
    assert published("nash/table-10/tweetqa-t5-efficient-base-dl2")["dense"] == {"meteor": 51.16}
    assert published("nash/table-11/stsb")["methods"] == {
        "nash-2": {"pearson-spearman": 90.39, "speedup": 2.9},
        "cofi": {"pearson-spearman": 86.49, "speedup": 1.9},
    }
    assert published("nash/table-11/copa-t5-small")["dense"] == {"accuracy": 55.0, "speedup": 2.0}


def test_the_readmes_of_cofi_and_optin():
    assert published("cofi/glue/mnli")["methods"]["cofi-95"] == {"accuracy": 80.6, "speedup": 12.1}
    assert published("cofi/squad/bert-base")["methods"]["cofi-93"] == {"token-f1": 82.6, "speedup": 8.7}
    assert published("optin/glue/qqp")["methods"]["optin"] == {"accuracy": 90.06}


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("kwon/")])
def test_figures_from_memory_say_so(name):
    assert "from memory" in " ".join(published(name)["remarks"])


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("optin/")])
def test_figures_read_off_plots_say_so(name):
    told = published(name)
    if any("change" in row for row in told.get("methods", {}).values()):
        assert "read off a plot" in " ".join(told["remarks"])


def test_settings_of_nash_are_those_of_its_tables_8_and_9():
    samsum, xsum, copa = (recipe_of(f"nash/table-{place}") for place in ("1/samsum", "1/xsum", "11/copa"))
    assert (samsum.train.epochs, xsum.train.epochs, copa.train.epochs) == (20, 3, 150)
    assert (samsum.train.batch_size, copa.train.batch_size) == (4, 32)
    assert (samsum.train.eval_every, copa.train.eval_every) == (1000, 20)
    assert samsum.train.learning_rate == samsum.recover.learning_rate == 3e-5
    assert samsum.train.mask_learning_rate == 0.01
    assert samsum.task.options["max_source_length"] == 512
