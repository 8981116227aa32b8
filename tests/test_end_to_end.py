"""From a new model to a pruned one, and scores that cannot be had for nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pipeline_calls import REGISTRY, logits, quick_recipe, run, saved_tiny, snapshot
from toy_task import copy_task, letter_tokenizer

from prunekit import pipeline
from prunekit.errors import RunFolderError
from prunekit.models import load_model, load_processor
from prunekit.recipe import EvaluateSpec, Recipe, TaskSpec
from prunekit.testing.tiny import tiny_model

# Heads of 1,024 parameters among 114,688 in the encoder: one is 0.9 % of it.
TEACHER = {
    "vocab_size": 30,
    "d_model": 64,
    "d_kv": 4,
    "num_heads": 16,
    "d_ff": 320,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "dropout_rate": 0.0,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "decoder_start_token_id": 0,
}
TASK = {"name": "copy", "train_examples": 1000, "letters": 8}


pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("module_on_one_thread")]


def teacher_recipe(folder: Path, **train):
    """Trains a new T5 on the copy task; its tokenizer is put into ``folder``."""
    letter_tokenizer().save_pretrained(folder / "tokenizer")
    model = {"type": "t5", "processor": str(folder / "tokenizer"), "config": TEACHER}
    settings = {"epochs": 8, "batch_size": 32, "learning_rate": 3e-3, "warmup_ratio": 0.1, **train}
    return Recipe.model_validate({"version": 1, "model": model, "task": TASK, "train": settings})


# Training a new model


def test_finetune_trains_a_new_model_and_saves_it(tmp_path):
    recipe, out = teacher_recipe(tmp_path, max_steps=12, eval_every=4), tmp_path / "run"
    result = pipeline.finetune(recipe, out, registry=REGISTRY)
    assert sorted(path.name for path in out.iterdir()) == [
        "checkpoints",
        "finetune.json",
        "manifest.json",
        "model",
        "recipe.yaml",
        "train.jsonl",
    ]
    assert json.loads((out / "finetune.json").read_text()) == result
    assert (result["from_scratch"], result["steps"], result["quality"]["primary"]) == (True, 12, "per")
    model = load_model(str(out))
    assert result["parameters"] == model.num_parameters()
    assert len(load_processor(str(out))) == 30
    found = pipeline.evaluate(str(out), TaskSpec(**TASK), EvaluateSpec(), registry=REGISTRY)
    assert found["per"] == result["quality"]["per"]


def test_finetune_keeps_the_state_that_was_best_on_validation(tmp_path):
    result = pipeline.finetune(
        teacher_recipe(tmp_path, max_steps=6, eval_every=2), tmp_path / "run", registry=REGISTRY
    )
    rows = [json.loads(line) for line in (tmp_path / "run" / "train.jsonl").read_text().splitlines()]
    scores = {row["step"]: row["per"] for row in rows if "per" in row}
    assert list(scores) == [2, 4, 6]
    assert result["best_step"] == min(scores, key=scores.get)
    task, model = copy_task(train_examples=1000, letters=8), load_model(str(tmp_path / "run"))
    assert task.evaluate(model, "validation", batch_size=8).metrics["per"] == scores[result["best_step"]]


def test_finetune_again_does_no_work_and_another_recipe_is_refused(tmp_path):
    recipe, out = teacher_recipe(tmp_path, max_steps=2), tmp_path / "run"
    result = pipeline.finetune(recipe, out, registry=REGISTRY)
    before = snapshot(out)
    assert pipeline.finetune(recipe, out, registry=REGISTRY) == result
    with pytest.raises(RunFolderError, match="already holds a different run"):
        pipeline.finetune(teacher_recipe(tmp_path, max_steps=3), out, registry=REGISTRY)
    assert snapshot(out) == before


def test_finetune_goes_on_from_a_model_that_exists(tmp_path):
    dense = saved_tiny(tmp_path / "dense")
    recipe = quick_recipe(dense, methods={}, train={"epochs": 1, "batch_size": 8, "learning_rate": 1e-5})
    result = pipeline.finetune(recipe, tmp_path / "run", registry=REGISTRY)
    assert result["from_scratch"] is False
    batch = copy_task().collate(copy_task().examples("test"))
    before, after = (logits(load_model(str(folder)), batch) for folder in (dense, tmp_path / "run"))
    assert 0 < (after - before).abs().max() < 0.1


# Pruning


def test_bart_runs_straight_through(tmp_path):
    report = run(quick_recipe(saved_tiny(tmp_path / "bart", "bart")), tmp_path / "run")
    assert report["achieved"]["encoder_sparsity"] == pytest.approx(0.3, abs=0.01)
    assert report["verify"]["masked_vs_pruned_max_abs"] <= report["verify"]["tolerance"]
    assert len(load_model(str(tmp_path / "run")).model.decoder.layers) == 2


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["paper", "released"])
def test_a_trained_model_is_pruned_and_recovers(tmp_path, preset):
    taught = pipeline.finetune(teacher_recipe(tmp_path), tmp_path / "teacher", registry=REGISTRY)
    assert taught["quality"]["per"] < 1
    nash = {"decoder_layers": 1, "preset": preset, "validation_limit": 24}
    settings = {"batch_size": 32, "learning_rate": 1e-3}
    recipe = quick_recipe(
        tmp_path / "teacher",
        task=TASK,
        methods={"nash": nash},
        train={**settings, "epochs": 8, "mask_learning_rate": 0.1, "eval_every": 20},
        recover={**settings, "epochs": 4},
        evaluate={},
    )
    report = run(recipe, tmp_path / "run")
    assert report["quality"]["dense"]["per"] < 1
    assert report["quality"]["pruned"]["per"] < 5
    assert report["achieved"]["encoder_sparsity"] == pytest.approx(0.3, abs=0.01)
    assert report["achieved"]["decoder_sparsity"] == 0.5
    rows = [json.loads(line) for line in (tmp_path / "run" / "train.jsonl").read_text().splitlines()]
    learned = [row["sparsity"] for row in rows if "realised_sparsity" in row]
    assert learned[-1] == pytest.approx(0.3, abs=0.01)


# Scores that cannot be had for nothing


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param(lambda examples: [""] * len(examples), id="empty"),
        pytest.param(lambda examples: ["? !"] * len(examples), id="unknown symbols"),
        pytest.param(lambda examples: ["a b c"] * len(examples), id="one answer for all"),
        pytest.param(lambda examples: ["a b c d e " * 20] * len(examples), id="endless"),
        pytest.param(
            lambda examples: [example.references[0].replace(" ", "") for example in examples],
            id="run together",
        ),
    ],
)
def test_garbage_scores_badly(answers):
    task = copy_task()
    examples = task.examples("test")
    references = [example.references for example in examples]
    per, wer = (metric.function(answers(examples), references).value for metric in task.metrics)
    assert per >= 80
    assert wer == 100


def test_an_untrained_model_scores_badly():
    found = copy_task().evaluate(tiny_model("t5"), "test", batch_size=8).metrics
    assert found["per"] > 80
    assert found["wer"] == 100
