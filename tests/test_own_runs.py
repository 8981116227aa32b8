"""A new user's runs: a recipe of a few lines, files of their own, a local model, from the command line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import datasets
import pytest
import torch
import yaml
from cli_calls import call_main
from own_calls import word_tokenizer, write_csv, write_lines

from prunekit import pipeline
from prunekit.models import load_model, save_model
from prunekit.plugins import get_registry
from prunekit.pruning.plan import PruningPlan
from prunekit.recipe import load_recipe
from prunekit.tasks.data.source import DataSpec
from prunekit.testing.tiny import tiny_model

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

PAGE = Path(__file__).parents[1] / "docs" / "tasks.md"
BLOCKS = re.findall(r"^```yaml\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
RECIPE = BLOCKS[0]
QUICK = ["speed.rounds=2", "speed.warmup=0", "speed.threads=1", "speed.batch_size=2"]
# The tiny model has 32 positions.
SHORT = ["task.max_length=32", *QUICK]


def settings(*keys):
    return [argument for key in keys for argument in ("--set", key)]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a model whose labels are not in alphabetical order, and 240 sentences."""
    monkeypatch.chdir(tmp_path)
    model = tiny_model("bert")
    names = ["neutral", "good", "bad"]
    model.config.id2label = dict(enumerate(names))
    model.config.label2id = {name: index for index, name in enumerate(names)}
    save_model(model, word_tokenizer(), tmp_path / "my-bert")
    words = "abcdefgh"
    sentences = [f"{words[i % 8]} {words[i // 8 % 8]} {words[i % 3]}" for i in range(240)]
    rows = [(sentence, names[i % 3]) for i, sentence in enumerate(sentences)]
    write_csv(tmp_path / "reviews.csv", rows, header=("sentence", "label"))
    (tmp_path / "my.yaml").write_text(RECIPE)
    return tmp_path


def test_optin_prunes_a_local_bert_on_ones_own_csv(here, capsys):
    assert len(RECIPE.splitlines()) <= 10
    done = call_main(capsys, "prune", "--method", "optin", "my.yaml", "--json", *settings(*SHORT))
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert report["achieved"]["sparsity"] == pytest.approx(0.4, abs=0.05)
    assert report["quality"]["n"] == 24
    assert report["quality"]["primary"] == "accuracy"
    assert load_model("runs/my-optin").config.id2label == {0: "neutral", 1: "good", 2: "bad"}
    assert "48 of the 240 rows of train are held out (half for each), as in every run." in done.err


def test_methods_that_use_labels_get_them_in_the_models_order(here, capsys):
    # The same function with its outputs, and their names, in another order.
    twin = load_model("my-bert")
    order = [1, 2, 0]
    with torch.no_grad():
        for tensor in twin.classifier.parameters():
            tensor.copy_(tensor[order])
    names = load_model("my-bert").config.id2label
    twin.config.id2label = {index: names[old] for index, old in enumerate(order)}
    save_model(twin, word_tokenizer(), here / "twin")
    found = {}
    for model in ("my-bert", "twin"):
        keys = settings(*SHORT, f"model={model}", "methods.fisher.examples=64")
        out = f"runs/{model}"
        done = call_main(capsys, "prune", "--method", "fisher", "my.yaml", "--json", "--out", out, *keys)
        assert done.code == 0, done.err
        found[model] = (
            PruningPlan.load(here / "runs" / model / "plan.json").keep,
            json.loads(done.out)["quality"],
        )
    assert found["my-bert"] == found["twin"]


def test_training_after_pruning_and_evaluating_what_was_saved_agree(here, capsys):
    keys = ["recover.max_steps=2", "recover.batch_size=8", "methods.magnitude.examples=8"]
    done = call_main(capsys, "prune", "--method", "magnitude", "my.yaml", "--json", *settings(*SHORT, *keys))
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert report["recovery_steps"] == 2
    registry = get_registry()
    recipe = load_recipe(here / "my.yaml", SHORT, registry=registry)
    again = pipeline.evaluate("runs/my-magnitude", recipe.task, recipe.evaluate, registry=registry)
    assert again["accuracy"] == report["quality"]["pruned"]["accuracy"]


def test_a_run_on_streamed_data_is_the_run_on_data_in_memory(here, capsys, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(here / "cache"))
    keys = ["recover.max_steps=3", "recover.batch_size=8", "methods.fisher.examples=8"]
    found = {}
    for streaming in ("false", "true"):
        stream = [f"task.data.streaming={streaming}", "budget.sparsity=0.3"]
        out = f"runs/{streaming}"
        arguments = [
            "--method",
            "fisher",
            "my.yaml",
            "--json",
            "--out",
            out,
            *settings(*SHORT, *keys, *stream),
        ]
        done = call_main(capsys, "prune", *arguments)
        assert done.code == 0, done.err
        report = json.loads(done.out)
        found[streaming] = (
            report["quality"],
            report["achieved"],
            PruningPlan.load(here / out / "plan.json").keep,
        )
    assert found["true"] == found["false"]


def test_the_tasks_shown_are_valid():
    registry = get_registry()
    shown = [yaml.safe_load(block) for block in BLOCKS]
    tasks = [each["task"] for each in shown if "task" in each]
    assert {"text-classification", "text2text"} <= {task["name"] for task in tasks}
    for task in tasks:
        registry.tasks[task["name"]].Config(**{key: task[key] for key in task if key != "name"})
    data = [DataSpec(**each["data"]) for each in shown if "data" in each]
    assert [each.hub for each in data] == [None, None, "nyu-mll/glue"]


def test_faults_of_the_task_are_told_with_those_of_the_recipe(here, capsys):
    text = RECIPE.replace("  label: label", "  lable: label\n  metrics: [acuracy]")
    (here / "my.yaml").write_text(text.replace("{train: reviews.csv}", "{train: reviews.csv, dev: dev.csv}"))
    done = call_main(capsys, "prune", "--method", "optin", "my.yaml")
    assert done.code == 2
    assert "line 7  task.lable" in done.err
    assert "did you mean label?" in done.err
    assert "no metric 'acuracy' is installed; did you mean accuracy?" in done.err
    assert "task.data.dev" in done.err


def test_a_missing_file_is_one_message_with_the_path_that_was_tried(here, capsys):
    done = call_main(capsys, "prune", "--method", "optin", "my.yaml", "--set", "task.data.test=test.csv")
    assert done.code == 1
    assert f"task.data.test: test.csv: there is no file {here}/test.csv" in done.err
    assert "Traceback" not in done.err


def test_a_local_t5_loses_blocks_and_recovers_on_ones_own_json_lines(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model = tiny_model("t5")
    model.generation_config.pad_token_id = 0
    save_model(model, word_tokenizer(bert=False), tmp_path / "t5")
    rows = [{"dialogue": "a b c"[: 1 + 2 * (i % 3)], "summary": "abc"[i % 3]} for i in range(30)]
    write_lines(tmp_path / "talks.jsonl", rows)
    (tmp_path / "my.yaml").write_text(
        """\
version: 1
model: t5
task:
  name: text2text
  data: {train: talks.jsonl}
  source: "sum: {dialogue}"
  target: summary
  max_target_length: 4
  metrics: [rougeL, accuracy]
budget: {sparsity: 0.3, scope: ["encoder.*"]}
methods: {uniform: {decoder_layers: 2}}
recover: {max_steps: 1, batch_size: 8}
"""
    )
    done = call_main(
        capsys,
        "prune",
        "my.yaml",
        "--json",
        *settings(*QUICK, "speed.num_beams=2", "speed.new_tokens=3"),
        "--set",
        "speed.num_beams=2",
        "--set",
        "speed.new_tokens=3",
    )
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert report["quality"]["n"] == 3
    assert set(report["quality"]["pruned"]) == {"rougeL", "rougeL_stderr", "accuracy", "accuracy_stderr", "n"}
    assert report["recovery_steps"] == 1
    assert len(load_model("runs/my-uniform").decoder.block) == 2
