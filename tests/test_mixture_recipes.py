"""Mixtures in recipes: faults told where they stand, and runs from the command line."""

from __future__ import annotations

import json

import pytest
import yaml
from cli_calls import call_main
from mixture_calls import text2text
from own_calls import write_csv, write_lines
from pydantic import ValidationError
from writer_calls import tokenizer

from prunekit.errors import RecipeError
from prunekit.models import save_model
from prunekit.plugins import get_registry
from prunekit.recipe import load_recipe
from prunekit.tasks.base import make_task
from prunekit.tasks.mixture.task import MixtureConfig
from prunekit.testing.tiny import tiny_model

pytestmark = pytest.mark.slow

RECIPE = """\
version: 1
model: t5
task:
  name: mixture
  tasks:
    talks:
      name: text2text
      data: {train: talks.jsonl}
      source: "so {text}"
      target: label
      metrics: [rougeL]
      max_target_length: 4
    mood:
      name: text2text-classification
      data: {train: mood.jsonl}
      source: text
      label: label
      max_target_length: 3
budget: {sparsity: 0.3, scope: ["encoder.*"]}
methods: {magnitude: {examples: 8}}
recover: {max_steps: 2, batch_size: 8}
speed: {rounds: 2, warmup: 0, threads: 1, batch_size: 2, num_beams: 2, new_tokens: 3}
"""


def faults(folder, text):
    (folder / "my.yaml").write_text(text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(folder / "my.yaml", registry=get_registry())
    return [" ".join(line.split()) for line in str(caught.value).splitlines()[1:]]


def test_faults_of_the_tasks_are_told_where_they_stand_all_at_once(tmp_path):
    text = RECIPE.replace("max_target_length: 4", "max_target_lenght: 4").replace("      source: text\n", "")
    text = text.replace("[rougeL]", "[rougel]").replace("{train: mood.jsonl}", "{train: mood.xls}")
    metric, unknown, missing, data = faults(tmp_path, text)
    assert metric.startswith(
        "line 11 task.tasks.talks.metrics = [rougel] no metric 'rougel' is installed; did"
    )
    assert unknown.startswith(
        "line 12 task.tasks.talks.max_target_lenght = 4 unknown key; did you mean max_target_length? ("
    )
    assert missing.startswith("line 13 task.tasks.mood = {")
    assert missing.endswith(
        '… source is required (what the model reads: a column, or a template such as "summarize: {document}")'
    )
    assert data.startswith(
        "line 15 task.tasks.mood.data = {train: mood.xls} train: mood.xls must end in .csv"
    )


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        (
            "name: text2text\n",
            "name: text2txt\n",
            "line 7 task.tasks.talks.name = text2txt no task 'text2txt' is installed; did you mean text2text",
        ),
        (
            "      name: text2text\n",
            "",
            "no task 'talks' is installed (installed: ",
        ),
        (
            "name: text2text-classification",
            "name: text-classification",
            "text-classification is a task for AutoModelForSequenceClassification, but the tasks of a "
            "mixture are all for AutoModelForSeq2SeqLM; leave it out, or take its like that writes texts",
        ),
        ("name: mixture", "name: mixture\n  limit: 0", "task.limit = 0 must be greater than or equal to 1"),
    ],
)
def test_a_task_that_does_not_belong_is_told(tmp_path, old, new, fault):
    (found,) = faults(tmp_path, RECIPE.replace(old, new, 1))
    assert fault in found


def test_a_label_names_the_task_by_default():
    config = MixtureConfig(tasks={"g2p": {}})
    assert list(config.tasks) == ["g2p"]
    with pytest.raises(ValidationError, match="at least 1 item"):
        MixtureConfig(tasks={})


def test_a_mixture_is_pruned_trained_and_scored_from_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model = tiny_model("t5")
    model.generation_config.pad_token_id = 0
    save_model(model, tokenizer(), tmp_path / "t5")
    write_lines(tmp_path / "talks.jsonl", [{"text": "abc"[i % 3], "label": "nice"} for i in range(30)])
    labels = ["good", "bad"]
    write_lines(tmp_path / "mood.jsonl", [{"text": "abc"[i % 3], "label": labels[i % 2]} for i in range(20)])
    (tmp_path / "my.yaml").write_text(RECIPE)
    done = call_main(capsys, "prune", "my.yaml", "--json")
    assert done.code == 0, done.err
    quality = json.loads(done.out)["quality"]
    assert (quality["primary"], quality["n"]) == ("mean", 5)
    assert {name for name in quality["pruned"] if not name.endswith("_stderr")} == {
        "mean",
        "talks/rougeL",
        "talks/n",
        "mood/accuracy",
        "mood/unparsable",
        "mood/n",
        "n",
    }


def test_a_loaded_recipe_makes_the_mixture(tmp_path):
    path = write_csv(tmp_path / "few.csv", [("g", "good"), ("h", "bad")])
    recipe = {"name": "mixture", "tasks": {"one": text2text({"test": path})}}
    (tmp_path / "my.yaml").write_text(yaml.safe_dump({"version": 1, "model": "t5", "task": recipe}))
    loaded = load_recipe(tmp_path / "my.yaml", registry=get_registry())
    task = make_task(loaded.task, tokenizer(), get_registry())
    assert task.splits == ("test",)
