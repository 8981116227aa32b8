"""Runs on questions as SQuAD has them: a parquet file with nested answers, a BERT, every sort of method."""

from __future__ import annotations

import json

import pyarrow
import pytest
import torch
from own_calls import tiny_bert, word_tokenizer
from pyarrow import parquet
from qa_calls import COLUMNS, row, tiny_reader
from transformers import AutoModelForQuestionAnswering, BertForQuestionAnswering

from prunekit import pipeline
from prunekit.heads import load_to_train
from prunekit.models import load_model, save_model
from prunekit.plugins import get_registry
from prunekit.recipe import Recipe
from prunekit.tasks.base import make_task

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

WORDS = "abcdefgh"
QUICK_MASKS = {"sparsity_tolerance": 0.9, "validation_limit": 4}
METHODS = {
    "optin": {"method": "optin", "examples": 8, "batch_size": 4},
    "fisher": {"method": "fisher", "examples": 8, "batch_size": 4},
    "magnitude": {"method": "magnitude"},
    "cofi": {"method": "cofi", **QUICK_MASKS},
}


def questions(count):
    """The answer stands behind "good"; some contexts are longer than a window."""
    rows = []
    for number in range(count):
        words = [WORDS[(number + step) % 8] for step in range(4 + number % 12)]
        place = number % len(words)
        words[place:place] = ["good"]
        context = " ".join(words)
        start = context.index("good") + 5
        rows.append(row(context, context[start], question="fair of", starts=[start]))
    return rows


@pytest.fixture
def recipe(tmp_path):
    """A recipe on a trained tiny reader and its questions."""
    parquet.write_table(pyarrow.Table.from_pylist(questions(48)), tmp_path / "squad.parquet")
    save_model(tiny_reader(), word_tokenizer(), tmp_path / "bert")
    return Recipe.model_validate(
        {
            "version": 1,
            "model": str(tmp_path / "bert"),
            "task": {
                "name": "question-answering",
                "data": {"train": str(tmp_path / "squad.parquet")},
                **COLUMNS,
                "max_length": 16,
                "stride": 4,
            },
            "budget": {"sparsity": 0.3},
            "methods": METHODS,
            "train": {"epochs": 4, "batch_size": 16, "mask_learning_rate": 1.0, "eval_every": 4},
            "recover": {"max_steps": 2, "batch_size": 8, "distill": {"logits": 1.0}},
            "evaluate": {"limit": 4},
            "speed": {"batch_size": 2, "rounds": 2, "warmup": 0, "threads": 1},
        }
    )


@pytest.mark.parametrize("label", METHODS)
def test_every_sort_of_method_prunes_a_reader(recipe, label, tmp_path):
    report = pipeline.run(recipe, label, tmp_path / "run", registry=get_registry())
    assert report["auto_class"] == "AutoModelForQuestionAnswering"
    assert report["quality"]["primary"] == "exact-match"
    assert set(report["quality"]["pruned"]) == {
        "exact-match",
        "exact-match_stderr",
        "token-f1",
        "token-f1_stderr",
        "n",
    }
    assert report["quality"]["n"] == 4
    assert report["achieved"]["sparsity"] == pytest.approx(0.3, abs=0.1)
    assert report["recovery_steps"] == 2
    assert report["speed"]["mode"] == "forward"
    (line, _) = [json.loads(text) for text in _lines(tmp_path / "run") if '"recover"' in text]
    assert line["distill"] > 0
    again = pipeline.evaluate(str(tmp_path / "run"), recipe.task, recipe.evaluate, registry=get_registry())
    assert again["token-f1"] == report["quality"]["pruned"]["token-f1"]
    assert isinstance(
        AutoModelForQuestionAnswering.from_pretrained(tmp_path / "run" / "model"), BertForQuestionAnswering
    )


def _lines(folder):
    return (folder / "train.jsonl").read_text().splitlines()


def test_a_reader_learns_from_such_questions(recipe, tmp_path):
    steps = {"epochs": 40, "batch_size": 8, "learning_rate": 0.01}
    trained = recipe.model_copy(update={"train": recipe.train.model_copy(update=steps)})
    found = pipeline.finetune(trained, tmp_path / "teacher", registry=get_registry())
    assert found["quality"]["n"] == 4
    losses = [json.loads(line)["loss"] for line in _lines(tmp_path / "teacher")]
    assert sum(losses[-10:]) < sum(losses[:10]) / 2
    assert type(load_model(str(tmp_path / "teacher"))) is BertForQuestionAnswering


def test_a_classifier_gets_a_head_that_marks_answers(recipe, tmp_path):
    save_model(tiny_bert(["no", "yes", "maybe"]), word_tokenizer(), tmp_path / "classifier")
    task = make_task(recipe.task, word_tokenizer(), get_registry())
    model = load_to_train(str(tmp_path / "classifier"), task, seed=0)
    assert type(model) is BertForQuestionAnswering
    assert torch.isfinite(model(**task.collate(task.examples("train")[:4])).loss)
