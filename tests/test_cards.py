"""Cards of the models that ship: written from a run's facts, and agreeing with what is in their folders."""

import re

import pytest
import yaml

from prunekit.embedded.export import HERE, TASKS, card
from prunekit.models import embedded_names
from prunekit.plugins import get_registry

FACTS = {
    "task": {"name": "gloss"},
    "parameters": 3876314,
    "steps": 100,
    "best_step": 80,
    "train_s": 1860.0,
    "environment": {"cpu": "Some CPU", "threads": 1, "torch": "2.13.0"},
}
RECIPE = {
    "model": {
        "type": "bert",
        "config": {"hidden_size": 192, "pad_token_id": 0, "id2label": {0: "noun.Tops"}},
    },
    "train": {"epochs": 8.0, "batch_size": 64},
    "seed": 0,
}


def front_matter(text):
    return yaml.safe_load(text.split("---\n")[1])


def written(quality, **facts):
    return card("some-model", {**FACTS, **facts}, RECIPE, {"n": 4118, **quality})


def joined(text):
    """A card without its line breaks."""
    return " ".join(text.split())


def test_a_classifiers_card_states_accuracy_and_the_commands():
    text = joined(written({"accuracy": 75.126, "accuracy_stderr": 0.674}))
    assert "Result on 4,118 definitions of the `test` part, on the stored weights: accuracy 75.13 %" in text
    assert "(standard error 0.67)" in text
    assert "`prunekit finetune recipes/embedded/some-model.yaml --out RUN`" in text
    assert "`prunekit evaluate embedded:some-model --task gloss`" in text


def test_a_card_says_what_the_run_was():
    text = joined(written({"accuracy": 75.0, "accuracy_stderr": 0.7}))
    assert "A small BERT that tells from a definition what kind of thing is defined" in text
    assert "3,876,314 parameters (hidden_size 192), stored in float16" in text
    assert "8 epochs of batches of 64, 100 steps, best state at step 80 by validation" in text
    assert "31 minutes on Some CPU with 1 thread(s), torch 2.13.0, seed 0, from random weights" in text


def test_commands_stand_on_one_line_each_and_no_line_is_too_long():
    text = written({"accuracy": 75.0, "accuracy_stderr": 0.7})
    assert all(line.count("`") % 2 == 0 for line in text.splitlines())
    assert max(map(len, text.splitlines())) <= 110


def test_runs_of_an_hour_and_more_are_told_in_hours():
    assert "1.3 hours on Some CPU" in joined(written({}, train_s=4700.0))


def test_every_metric_there_is_has_its_figure():
    quality = {"per": 8.9, "per_stderr": 0.21, "wer": 34.94, "wer_stderr": 0.63}
    text = joined(written(quality, task={"name": "g2p"}))
    assert (
        "phone error rate 8.90 % (standard error 0.21), word error rate 34.94 % (standard error 0.63). "
        in text
    )
    assert front_matter(written(quality, task={"name": "g2p"}))["pipeline_tag"] == "text2text-generation"


def test_a_task_that_needs_a_folder_says_so_in_the_command():
    text = joined(written({}, task={"name": "fashion-mnist"}))
    assert "recipes/embedded/some-model.yaml --set task.folder=FOLDER --out RUN`" in text


def test_every_task_of_a_card_is_installed():
    assert set(TASKS) <= set(get_registry().tasks)


@pytest.mark.parametrize("name", embedded_names())
def test_a_shipped_models_card_has_its_task_and_its_command(name):
    text = (HERE / name / "README.md").read_text()
    found = front_matter(text)
    task = found["tags"][0]
    assert found["pipeline_tag"] == TASKS[task].pipeline_tag
    assert f"# embedded:{name}" in text
    assert f"--task {task}`" in text
    assert re.search(r"\d\.\d\d %", text)
