"""One command trains the teacher first, keeps it for later runs, and prunes it."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from own_calls import tiny_bert, word_tokenizer, write_csv
from pipeline_calls import quick_recipe, run, saved_tiny
from toy_task import toy_registry
from transformers import BertModel

from prunekit import pipeline
from prunekit.errors import DataError, RunFolderError, TrainingError
from prunekit.finetune import finetune
from prunekit.models import load_model, save_model
from prunekit.plugins import get_registry
from prunekit.progress import Progress
from prunekit.recipe import Recipe
from prunekit.teacher import dense_model

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

TEACHER = {"train": {"max_steps": 6, "batch_size": 8, "checkpoint_every": 2}}
NO_RECOVERY = {"epochs": 0}


def recipe(folder, **keys):
    model = folder / "t5"
    if not model.exists():
        saved_tiny(model)
    first = {"first": {}}
    return quick_recipe(model, **{"teacher": TEACHER, "methods": first, "recover": NO_RECOVERY, **keys})


def teacher_of(made, folder):
    return dense_model(made, folder, registry=toy_registry(), progress=Progress(quiet=True))


def teachers(folder):
    return sorted((folder / "runs" / "teachers").iterdir())


def test_the_teacher_is_trained_and_then_pruned(tmp_path):
    report = run(recipe(tmp_path), tmp_path / "runs" / "one")
    (teacher,) = teachers(tmp_path)
    assert teacher.name.startswith("t5-copy-")
    assert report["model"] == str(teacher)
    assert json.loads((teacher / "finetune.json").read_text())["steps"] == 6
    pruned, trained, start = (
        load_model(str(folder)).lm_head.weight
        for folder in (tmp_path / "runs" / "one", teacher, tmp_path / "t5")
    )
    assert torch.equal(pruned, trained)
    assert not torch.equal(trained, start)


def test_another_run_takes_the_same_teacher(tmp_path, caplog):
    run(recipe(tmp_path), tmp_path / "runs" / "one")
    (teacher,) = teachers(tmp_path)
    before = (teacher / "model" / "model.safetensors").stat().st_mtime_ns
    with caplog.at_level(logging.INFO):
        # Another method, another beam, another budget: the teacher is the same.
        run(
            recipe(tmp_path, evaluate={"limit": 4, "num_beams": 2}, budget={"sparsity": 0.1}),
            tmp_path / "runs" / "two",
        )
    assert teachers(tmp_path) == [teacher]
    assert (teacher / "model" / "model.safetensors").stat().st_mtime_ns == before
    assert f"The teacher is there already: {teacher}" in caplog.text


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1},
        {"task": {"name": "copy", "train_examples": 31}},
        {"teacher": {"train": {**TEACHER["train"], "learning_rate": 0.01}}},
    ],
)
def test_what_changes_the_weights_makes_another_teacher(tmp_path, other):
    for keys in ({}, other):
        made = recipe(tmp_path, **keys)
        teacher_of(made, tmp_path / "runs" / "teachers")
    assert len(teachers(tmp_path)) == 2


def test_other_weights_under_the_same_name_make_another_teacher(tmp_path):
    made = recipe(tmp_path)
    teacher_of(made, tmp_path / "runs" / "teachers")
    torch.manual_seed(5)
    model = load_model(str(tmp_path / "t5"))
    with torch.no_grad():
        model.shared.weight.add_(0.1)
    model.save_pretrained(tmp_path / "t5")
    teacher_of(made, tmp_path / "runs" / "teachers")
    assert len(teachers(tmp_path)) == 2


def test_training_that_was_stopped_goes_on(tmp_path, monkeypatch):
    whole = teacher_of(recipe(tmp_path), tmp_path / "whole")
    evaluate = toy_registry().tasks["copy"].evaluate

    def stop(*arguments, **named):
        raise TrainingError("stopped")

    monkeypatch.setattr("prunekit.tasks.text2text.Text2TextTask.evaluate", stop)
    with pytest.raises(TrainingError, match="stopped"):
        teacher_of(recipe(tmp_path), tmp_path / "stopped")
    monkeypatch.setattr("prunekit.tasks.text2text.Text2TextTask.evaluate", evaluate)
    resumed = teacher_of(recipe(tmp_path), tmp_path / "stopped")
    steps = [json.loads(line)["step"] for line in (Path(resumed) / "train.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps))
    weights = [load_model(each).state_dict() for each in (whole, resumed)]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_a_path_is_the_teacher(tmp_path):
    fine = saved_tiny(tmp_path / "fine-tuned")
    report = run(recipe(tmp_path, teacher=str(fine)), tmp_path / "runs" / "one")
    assert report["model"] == str(fine)
    assert not (tmp_path / "runs" / "teachers").exists()


def test_a_dry_run_counts_the_teachers_steps_and_trains_nothing(tmp_path):
    found = pipeline.dry_run(recipe(tmp_path), None, registry=toy_registry())
    assert found["steps"] == {"teacher": 6, "train": 0, "recover": 0}
    assert not (tmp_path / "runs").exists()


def test_finetune_alone_trains_as_the_teacher_would_be(tmp_path):
    found = finetune(recipe(tmp_path), tmp_path / "alone", registry=toy_registry())
    assert found["steps"] == 6


def test_a_split_that_is_not_there_is_told_before_anything_is_trained(tmp_path):
    for call in (
        lambda made: run(made, tmp_path / "runs" / "one"),
        lambda made: pipeline.dry_run(made, None, registry=toy_registry()),
        lambda made: finetune(made, tmp_path / "alone", registry=toy_registry()),
    ):
        with pytest.raises(
            DataError, match="Task copy has no split 'dev'; use one of: train, validation, test"
        ):
            call(recipe(tmp_path, teacher=None, evaluate={"split": "dev"}))
    assert not list(tmp_path.rglob("train.jsonl"))


# One's own data


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [(f"{word} {letter}", word) for word in ("good", "bad", "fair") for letter in "abcdefgh"] * 4
    write_csv(tmp_path / "rows.csv", rows)
    torch.manual_seed(0)
    save_model(BertModel(tiny_bert().config), word_tokenizer(), tmp_path / "pretrained")
    return tmp_path


def own_recipe(**keys):
    data = {"train": "rows.csv"}
    task = {"name": "text-classification", "data": data, "text": "text", "label": "label", "max_length": 8}
    base = {
        "version": 1,
        "model": "pretrained",
        "task": task,
        "teacher": {"train": {"max_steps": 200, "batch_size": 16, "learning_rate": 0.01}},
        "budget": {"sparsity": 0.3},
        "methods": {"magnitude": {}},
        "recover": {"epochs": 0},
        "speed": {"batch_size": 2, "rounds": 2, "warmup": 0, "threads": 1},
    }
    return Recipe.model_validate({**base, **keys})


def test_a_pretrained_bert_learns_ones_own_labels_and_is_pruned_in_one_command(here):
    report = pipeline.run(own_recipe(), None, here / "runs" / "one", registry=get_registry())
    assert report["quality"]["dense"]["accuracy"] > 90
    assert load_model("runs/one").config.id2label == {0: "bad", 1: "fair", 2: "good"}
    assert report["data"].keys() == {"rows.csv"}


def test_changed_rows_make_another_teacher_and_refuse_the_old_run(here):
    pipeline.run(own_recipe(), None, Path("runs/one"), registry=get_registry())
    with (here / "rows.csv").open("a") as file:
        file.write("good good,good\n")
    with pytest.raises(RunFolderError) as caught:
        pipeline.run(own_recipe(), None, Path("runs/one"), registry=get_registry())
    assert str(caught.value) == (
        "runs/one was begun with other data: rows.csv changed since. Give another folder with --out, or "
        "bring back what was there."
    )
    assert len(teachers(here)) == 2
