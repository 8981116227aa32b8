"""Task image-classification: image processors by name, and whole runs."""

from __future__ import annotations

import json

import pytest
import transformers
from cli_calls import call_main
from own_image_calls import (
    SETTINGS,
    saved_classifier,
    write_folder,
)

from prunekit.image_processor import ImageProcessor, takes_images
from prunekit.models import load_model
from prunekit.plugins import get_registry

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


# Image processors


def test_an_image_processor_of_the_hub_is_read_from_its_cache(tmp_path, monkeypatch):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(SETTINGS))
    asked = []

    def cached_file(name, file):
        asked.append((name, file))
        return str(tmp_path / file)

    monkeypatch.setattr("transformers.utils.hub.cached_file", cached_file)
    found = ImageProcessor.from_pretrained("google/vit")
    assert found.to_dict() == SETTINGS
    assert found.name_or_path == "google/vit"
    assert asked == [("google/vit", "preprocessor_config.json")]


def test_a_folder_without_settings_is_an_error(tmp_path):
    with pytest.raises(OSError, match=r"preprocessor_config\.json"):
        ImageProcessor.from_pretrained(tmp_path)


def test_what_a_model_takes_is_told_by_its_folder_or_its_type(tmp_path, monkeypatch):
    saved_classifier(tmp_path / "vit")
    (tmp_path / "bert").mkdir()
    assert takes_images(str(tmp_path / "vit"))
    assert not takes_images(str(tmp_path / "bert"))
    types = {"a/deit": transformers.DeiTConfig(), "a/t5": transformers.T5Config()}
    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", lambda name, **keys: types[name])
    assert takes_images("a/deit")
    assert not takes_images("a/t5")


# Whole runs

RECIPE = """\
version: 1
model: my-vit
task:
  name: image-classification
  data: {train: images/train, validation: images/val}
budget: {metric: macs, sparsity: 0.4}
evaluate: {split: validation}
recover: {epochs: 0}
speed: {rounds: 2, warmup: 0, threads: 1, batch_size: 2}
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a model whose labels are not in alphabetical order, and images."""
    monkeypatch.chdir(tmp_path)
    saved_classifier(tmp_path / "my-vit", ("cat", "ant", "bee"))
    write_folder(tmp_path / "images" / "train", 12)
    write_folder(tmp_path / "images" / "val", 3)
    (tmp_path / "my.yaml").write_text(RECIPE)
    return tmp_path


@pytest.mark.parametrize("method", ["magnitude", "optin"])
def test_a_local_vit_is_pruned_on_a_folder_of_images(method, here, capsys):
    done = call_main(
        capsys, "prune", "--method", method, "my.yaml", "--json", "--set", "methods.optin.examples=16"
    )
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert report["achieved"]["sparsity"] == pytest.approx(0.4, abs=0.1)
    assert report["quality"]["n"] == 9
    assert report["quality"]["primary"] == "accuracy"
    assert load_model(f"runs/my-{method}").config.id2label == {0: "cat", 1: "ant", 2: "bee"}


def test_a_pruned_vit_is_trained_on_its_images(here, capsys):
    keys = ("recover.max_steps=2", "recover.batch_size=8")
    settings = [each for key in keys for each in ("--set", key)]
    done = call_main(capsys, "prune", "--method", "magnitude", "my.yaml", "--json", *settings)
    assert done.code == 0, done.err
    assert json.loads(done.out)["recovery_steps"] == 2


def test_the_task_is_registered():
    assert get_registry().tasks["image-classification"].auto_class == "AutoModelForImageClassification"
