"""Task image-classification: labels by name, answers, metrics, models that do not fit."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from own_calls import warnings_in
from own_image_calls import (
    NAMES,
    classifier,
    images,
    path_of,
    picture,
    saved_classifier,
    scored,
    write_folder,
)
from pydantic import ValidationError

from prunekit.errors import DataError
from prunekit.models import load_model
from prunekit.tasks.own.images import ImageClassificationConfig

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def train(tmp_path):
    """Twelve pictures in three classes."""
    return write_folder(tmp_path / "train")


def by_file(task, split):
    """The label handed out for each file, as class and name."""
    examples = task.examples(split)
    labels = task.collate(examples)["labels"].tolist()
    return {"/".join(path_of(each).parts[-2:]): label for each, label in zip(examples, labels, strict=True)}


# Labels


def test_labels_are_the_sorted_names_of_the_folders(train):
    task = images({"train": train})
    assert task.labels == NAMES
    assert {label: index for index, label in enumerate(NAMES)} == {
        name.split("/")[0]: label for name, label in by_file(task, "train").items()
    }


def test_labels_are_handed_out_and_answers_read_in_the_models_order(train, tmp_path):
    names = ("cat", "ant", "bee")
    made = saved_classifier(tmp_path / "model", names)
    task = scored(train, made)
    assert task.labels == names
    assert {name.split("/")[0]: label for name, label in by_file(task, "test").items()} == {
        "cat": 0,
        "ant": 1,
        "bee": 2,
    }
    model = load_model(str(tmp_path / "model"))
    examples = task.examples("test")
    with torch.no_grad():
        best = model(**task.inputs(examples)).logits.argmax(-1).tolist()
    assert task.predict(model, examples, batch_size=5) == [names[index] for index in best]
    right = [names[index] == path_of(each).parts[-2] for index, each in zip(best, examples, strict=True)]
    found = task.evaluate(model, "test", batch_size=5).metrics
    assert found["accuracy"] == pytest.approx(100 * sum(right) / 12)
    assert found["n"] == 12


def test_a_model_may_have_more_labels_than_the_images(train, tmp_path):
    task = images({"test": train}, saved_classifier(tmp_path / "model", ("dog", "Cat", "ANT", "bee")))
    assert task.labels == ("dog", "cat", "ant", "bee")


def test_other_names_than_the_models_are_told_at_the_start_and_refused(train, tmp_path, caplog):
    task = scored(train, saved_classifier(tmp_path / "model", ("x", "y", "z")))
    assert warnings_in(caplog) == [
        f"Task image-classification: the labels are ant, bee, cat, but the model in {tmp_path}/model has "
        "x, y, z and will not be scored on them."
    ]
    with pytest.raises(
        DataError, match=r"the labels are ant, bee, cat; the model's are x, y, z\. Use a model"
    ):
        task.evaluate(load_model(str(tmp_path / "model")), "test", batch_size=4)


def test_batches_in_an_order_that_is_not_the_models_are_refused_afterwards(train):
    task = images({"train": train})
    model = classifier(("bee", "ant", "cat"))
    task.check_model(model)
    task.collate(task.examples("train")[:1])
    with pytest.raises(
        DataError, match=r"has learnt the wrong names\. Write task\.labels: \[bee, ant, cat\]\."
    ):
        task.check_model(model)


def test_by_position_the_names_of_the_model_do_not_matter(train, tmp_path, caplog):
    made = saved_classifier(tmp_path / "model", ("tench", "crane", "crane"))
    task = scored(train, made, by_position=True)
    assert task.labels == NAMES
    assert warnings_in(caplog) == []
    model = load_model(str(tmp_path / "model"))
    assert set(task.predict(model, task.examples("test"), batch_size=4)) <= set(NAMES)
    assert task.head_config() == {"num_labels": 3}
    with pytest.raises(DataError, match="the model's are 2 without names"):
        task.check_model(classifier(("a", "b")))


def test_a_new_head_takes_the_names_of_the_labels(train):
    assert images({"train": train}).head_config() == {
        "num_labels": 3,
        "id2label": {0: "ant", 1: "bee", 2: "cat"},
        "label2id": {"ant": 0, "bee": 1, "cat": 2},
    }


def test_a_class_that_train_has_not_is_an_error_with_its_file(train, tmp_path):
    other = write_folder(tmp_path / "test", 1, ("ant", "beee"))
    with pytest.raises(DataError) as caught:
        images({"train": train, "validation": other})
    assert str(caught.value) == (
        f"Task image-classification: {other}/beee/0.png: 'label' holds 'beee', which is none of the labels; "
        "did you mean bee? (ant, bee, cat). Correct the row, or list every label under task.labels."
    )


def test_of_many_labels_a_message_shows_the_first(tmp_path):
    names = [f"c{number:03}" for number in range(30)]
    task = images({"test": write_folder(tmp_path / "test", 1, names)}, labels=names)
    shown = ", ".join(names[:20])
    with pytest.raises(
        DataError, match=re.escape(f"the labels are {shown}, … (30 in all); the model's are a, b.")
    ):
        task.check_model(classifier(("a", "b")))


# Models and metrics


@pytest.mark.parametrize("kind", ["vit", "deit", "deit-distilled"])
def test_a_batch_gives_logits_and_answers(kind, train):
    task = scored(train)
    model = classifier(kind=kind)
    assert model(**task.inputs(task.examples("test"))).logits.shape == (12, 3)
    assert task.evaluate(model, "test", batch_size=5, limit=7).metrics["n"] == 7


def test_a_model_for_images_of_another_size_is_refused(train):
    with pytest.raises(DataError) as caught:
        scored(train).check_model(classifier(image_size=16))
    assert str(caught.value) == (
        "Task image-classification: the image processor makes images of shape (3, 8, 8) (channels, height, "
        "width), but the model takes (3, 16, 16). Use the image processor of the model, or set image_mean, "
        "image_std and size in its preprocessor_config.json."
    )


def test_top_5_counts_a_label_among_the_five_best(tmp_path):
    names = tuple("abcdefgh")
    task = scored(write_folder(tmp_path / "test", 2, names), labels=names, metrics=["top-1", "top-5"])
    model, examples = classifier(names), task.examples("test")
    with torch.no_grad():
        order = model(**task.inputs(examples)).logits.argsort(-1, descending=True).tolist()
    found = task.evaluate(model, "test", batch_size=4).metrics
    for count in (1, 5):
        right = [each.label in best[:count] for each, best in zip(examples, order, strict=True)]
        assert found[f"top-{count}"] == pytest.approx(100 * sum(right) / 16)
    assert 0 < found["top-1"] < found["top-5"] < 100
    assert (task.primary_metric, list(found)[-1]) == ("top-1", "n")


def test_with_fewer_classes_than_ranks_every_label_is_among_the_best(train):
    task = scored(train, metrics=["top-5"])
    assert task.evaluate(classifier(), "test", batch_size=4).metrics["top-5"] == 100


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"labels": ["a"]}, "at least 2 items"),
        ({"labels": ["a", "b", "a"]}, "labels names a label twice: a, b, a"),
        ({"metrics": ["acuracy"]}, "no metric 'acuracy' is installed; did you mean accuracy?"),
        ({"size": 8}, "Extra inputs are not permitted"),
    ],
)
def test_config_refuses_wrong_keys(keys, text):
    with pytest.raises(ValidationError, match=re.escape(text)):
        ImageClassificationConfig(data={"train": "images"}, **keys)


def test_the_data_decides_the_fingerprint(train):
    before = scored(train).fingerprint()
    assert list(before) == [train]
    picture(5, (30, 30)).save(Path(train) / "ant" / "new.png")
    assert scored(train).fingerprint() != before
