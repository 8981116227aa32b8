"""Task image-classification: one's own images, from folders and tables, as batches."""

from __future__ import annotations

import io
from pathlib import Path

import datasets
import pytest
import torch
import transformers
from own_calls import warnings_in, write_lines
from own_image_calls import (
    NAMES,
    SETTINGS,
    images,
    path_of,
    picture,
    processor,
    scored,
    stored,
    write_folder,
)
from PIL import Image

from prunekit.errors import DataError
from prunekit.image_processor import ImageProcessor
from prunekit.tasks.image_transform import RESAMPLING

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def train(tmp_path):
    """Twelve pictures in three classes."""
    return write_folder(tmp_path / "train")


# Images


def hf_values(kind, settings, files):
    """What the image processor of transformers makes of files, as it is told to by its documentation."""
    made = getattr(transformers, kind)(**settings)
    colours = [Image.open(path).convert("RGB") for path in files]
    return made(colours, return_tensors="pt")["pixel_values"]


VIT = {"size": {"height": 24, "width": 24}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("ViTImageProcessorPil", {**VIT, "resample": 2}),
        *(("ViTImageProcessorPil", {**VIT, "resample": number}) for number in RESAMPLING if number != 2),
        ("ViTImageProcessorPil", {**VIT, "do_rescale": False, "size": {"height": 30, "width": 10}}),
        (
            "DeiTImageProcessorPil",
            {
                **IMAGENET,
                "size": {"height": 32, "width": 32},
                "crop_size": {"height": 28, "width": 28},
                "resample": 3,
                "do_center_crop": True,
            },
        ),
        # As DINOv2's.
        (
            "BitImageProcessorPil",
            {
                **IMAGENET,
                "size": {"shortest_edge": 33},
                "crop_size": {"height": 28, "width": 30},
                "resample": 3,
                "do_center_crop": True,
                "do_convert_rgb": True,
            },
        ),
    ],
)
def test_images_of_any_size_become_what_transformers_makes_of_them(kind, settings, train):
    made = ImageProcessor(getattr(transformers, kind)(**settings).to_dict())
    task = scored(train, made)
    examples = task.examples("test")
    found = task.inputs(examples)["pixel_values"]
    expected = hf_values(kind, settings, map(path_of, examples))
    assert found.dtype == torch.float32
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-5


def test_sizes_of_one_number_are_squares_as_for_the_first_vit_and_deit(train):
    # The hub's DeiT-small has such settings.
    old = {
        **IMAGENET,
        "size": 32,
        "crop_size": 28,
        "resample": 3,
        "do_center_crop": True,
        "do_resize": True,
        "do_normalize": True,
        "feature_extractor_type": "DeiTFeatureExtractor",
    }
    task = scored(train, ImageProcessor(old))
    examples = task.examples("test")
    expected = hf_values("DeiTImageProcessorPil", old, map(path_of, examples))
    assert (task.inputs(examples)["pixel_values"] - expected).abs().max() <= 1e-5


def test_a_deit_whose_settings_say_no_more_resizes_and_crops_as_transformers_does(train):
    settings = {**IMAGENET, "size": 256, "image_processor_type": "DeiTImageProcessor"}
    task = scored(train, ImageProcessor(settings))
    examples = task.examples("test")[:2]
    expected = hf_values("DeiTImageProcessorPil", settings, map(path_of, examples))
    assert (task.inputs(examples)["pixel_values"] - expected).abs().max() <= 1e-5


def test_a_model_for_grey_images_gets_grey_ones(train):
    task = scored(train, processor(image_mean=[0.5], image_std=[0.5]))
    examples = task.examples("test")
    expected = [Image.open(path_of(each)).convert("L").resize((8, 8), 2) for each in examples]
    values = task.inputs(examples)["pixel_values"]
    assert values.shape == (12, 1, 8, 8)
    first = torch.tensor(list(expected[0].tobytes())).reshape(8, 8)
    assert torch.allclose(values[0, 0], first / 127.5 - 1, atol=1e-6)


def test_images_are_read_when_a_batch_needs_them(train):
    task = scored(train)
    broken = path_of(task.examples("test")[5])
    broken.write_bytes(broken.read_bytes()[:60])
    task.collate(task.examples("test")[:5])
    assert task.lengths("test") == [1] * 12
    with pytest.raises(DataError) as caught:
        task.collate(task.examples("test"))
    assert str(caught.value).startswith(f"Task image-classification: {broken}: the image cannot be read: ")
    assert str(caught.value).endswith(". Replace the image or leave it out.")


def test_the_first_image_of_every_split_is_looked_at_at_the_start(train, tmp_path):
    held = write_lines(tmp_path / "test.jsonl", [{"image": f"{train}/gone.png", "label": "ant"}])
    with pytest.raises(
        DataError, match=r"test\.jsonl, line 1: there is no file .*/train/gone\.png\. Replace"
    ):
        images({"train": train, "validation": held})


# Augmentation


def test_training_images_differ_from_call_to_call_but_not_from_run_to_run(train):
    task = images({"train": train, "test": write_folder(Path(train).parent / "test")})
    batches = []
    for _ in range(2):
        torch.manual_seed(3)
        batches.append([task.collate(task.examples("train"))["pixel_values"] for _ in range(2)])
    assert torch.equal(batches[0][0], batches[1][0])
    assert torch.equal(batches[0][1], batches[1][1])
    assert not torch.equal(batches[0][0], batches[0][1])


def test_every_image_is_augmented_in_a_way_of_its_own(tmp_path):
    for index in range(20):
        (tmp_path / "train" / "ab"[index % 2]).mkdir(parents=True, exist_ok=True)
        picture(0, (20, 20)).save(tmp_path / "train" / "ab"[index % 2] / f"{index}.png")
    task = images({"train": str(tmp_path / "train"), "test": write_folder(tmp_path / "test", names="ab")})
    views = task.collate(task.examples("train"))["pixel_values"]
    assert len({tuple(view.flatten().tolist()) for view in views}) > 10


@pytest.mark.parametrize("split", ["validation", "test", "calibration"])
def test_images_that_are_not_trained_on_are_left_as_they_are(split, train):
    task = images({"train": train})
    examples = task.examples(split)
    state = torch.get_rng_state()
    assert torch.equal(task.collate(examples)["pixel_values"], task.inputs(examples)["pixel_values"])
    assert torch.equal(torch.get_rng_state(), state)


def test_augmentation_can_be_switched_off(train):
    task = images({"train": train}, augment=False)
    examples = task.examples("train")
    assert torch.equal(task.collate(examples)["pixel_values"], task.inputs(examples)["pixel_values"])


def test_methods_are_calibrated_on_the_images_of_train_unless_there_are_others(train, tmp_path):
    task = images({"train": train})
    assert task.splits == ("train", "validation", "test", "calibration")
    assert list(map(path_of, task.examples("calibration"))) == list(map(path_of, task.examples("train")))
    own = images({"train": train, "calibration": write_folder(tmp_path / "own", 1)})
    assert len(own.examples("calibration")) == 3


# Tables


def stored_rows(count=8):
    """Rows as the ``datasets`` library stores images."""
    sizes = ((8, 8), (12, 30))
    files = [stored(picture(index, sizes[index % 2])) for index in range(count)]
    return {
        "image": [{"bytes": file, "path": None} for file in files],
        "label": [i % 2 for i in range(count)],
    }


@pytest.fixture
def parquet(tmp_path):
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["no", "yes"]))
    path = tmp_path / "test.parquet"
    datasets.Dataset.from_dict(stored_rows(), features=features).to_parquet(path)
    return str(path)


def test_images_stored_in_parquet_are_read_with_the_names_of_their_classes(parquet):
    task = images({"test": parquet})
    assert task.labels == ("no", "yes")
    rows = stored_rows()
    examples = task.examples("test")
    places = [int(each.rows.where(each.index).rpartition(" ")[2]) - 1 for each in examples]
    assert [each.label for each in examples] == [place % 2 for place in places]
    values = task.inputs(examples)["pixel_values"]
    for place, value in zip(places, values, strict=True):
        image = Image.open(io.BytesIO(rows["image"][place]["bytes"])).resize((8, 8), 2)
        expected = torch.tensor(list(image.tobytes())).reshape(8, 8, 3).permute(2, 0, 1) / 255
        mean, deviation = (torch.tensor(SETTINGS[key])[:, None, None] for key in ("image_mean", "image_std"))
        assert torch.allclose(value, (expected - mean) / deviation, atol=1e-5)


def test_streaming_gives_the_same_examples(parquet, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    whole, streamed = images({"test": parquet}), images({"test": parquet, "streaming": True})
    batches = [task.collate(task.examples("test")) for task in (whole, streamed)]
    assert torch.equal(batches[0]["pixel_values"], batches[1]["pixel_values"])
    assert torch.equal(batches[0]["labels"], batches[1]["labels"])


def test_a_data_set_from_python_is_read(tmp_path):
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["no", "yes"]))
    rows = datasets.Dataset.from_dict(stored_rows(), features=features)
    assert images({"test": rows}).labels == ("no", "yes")


def test_a_table_may_name_files_and_columns_of_its_own(train, tmp_path):
    rows = [{"file": str(path), "kind": path.parent.name} for path in sorted(Path(train).rglob("*.png"))]
    listed = write_lines(tmp_path / "list.jsonl", rows)
    tables = scored(listed, image="file", label="kind")
    folder = scored(train)
    batches = [task.collate(task.examples("test")) for task in (tables, folder)]
    assert tables.labels == NAMES
    assert torch.equal(batches[0]["pixel_values"], batches[1]["pixel_values"])


def test_a_column_that_is_not_there_is_an_error(parquet):
    with pytest.raises(
        DataError, match=r"task\.image asks for a column 'images', but .* did you mean image\?"
    ):
        images({"test": parquet}, image="images")


def test_a_column_of_anything_else_is_an_error_with_file_and_row(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [{"image": 3, "label": "x"}, {"image": 3, "label": "y"}])
    with pytest.raises(
        DataError, match=r"a\.jsonl, line \d: found 3 \(int\), but a path or the bytes of an image"
    ):
        images({"test": path}, labels=["x", "y"])


def test_images_that_are_trained_on_and_scored_are_told(tmp_path, train, caplog):
    rows = [{"image": str(path), "label": path.parent.name} for path in sorted(Path(train).rglob("*.png"))]
    first, second = (write_lines(tmp_path / f"{name}.jsonl", rows) for name in "ab")
    images({"train": first, "validation": second})
    assert warnings_in(caplog) == [
        "Task image-classification, validation: 12 of 12 inputs also stand in train, so that answers to them "
        "may be known by heart. Leave each in one of the two only."
    ]
