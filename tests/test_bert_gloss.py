"""The small BERT that ships: it loads, names its classes, and is as good as its card says."""

import re

import pytest
from transformers import pipeline

from prunekit.embedded.export import HERE
from prunekit.embedded.gloss import CLASSES, load_split
from prunekit.models import load_model, load_processor
from prunekit.tasks.gloss import GlossConfig, GlossTask

pytestmark = pytest.mark.slow

FOLDER = HERE / "bert-gloss"
LIMIT = 400


@pytest.fixture(scope="module")
def model():
    return load_model("embedded:bert-gloss")


def test_its_folder_stays_under_8_megabytes():
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 8_000_000


def test_its_labels_are_the_tasks_in_the_tasks_order(model):
    assert tuple(model.config.id2label[index] for index in range(26)) == CLASSES
    assert model.config.label2id == {label: index for index, label in enumerate(CLASSES)}


def test_a_pipeline_answers_with_a_class_name(model):
    answer = pipeline("text-classification", model=model, tokenizer=load_processor("embedded:bert-gloss"))
    assert answer("small tree with edible red fruit native to Asia")[0]["label"] == "noun.plant"


def test_it_is_as_accurate_as_its_card_says_within_noise(model):
    stated = re.search(
        r"accuracy ([\d.]+) % \(standard error", " ".join((FOLDER / "README.md").read_text().split())
    )
    task = GlossTask(GlossConfig(), load_processor("embedded:bert-gloss"))
    examples = task.examples("test")[:LIMIT]
    answers = task.predict(model, examples, batch_size=64)
    right = sum(answer == gloss.label for answer, gloss in zip(answers, load_split("test"), strict=False))
    noise = 100 * (0.25 / LIMIT) ** 0.5  # the largest standard error there can be
    assert abs(100 * right / LIMIT - float(stated[1])) < 3 * noise
