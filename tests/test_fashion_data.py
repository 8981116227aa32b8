"""The embedded Fashion-MNIST parts, the original files beside them, and the script that makes the parts."""

import gzip
import json
import re

import numpy as np
import pytest
from image_calls import idx, random_images, write_originals

from prunekit.embedded import fashion
from prunekit.embedded.fashion import (
    FOLDER,
    LABELS,
    PROCESSOR_FOLDER,
    SHIPPED,
    Images,
    build,
    image_digests,
    load_split,
    read_images,
    write_images,
)
from prunekit.errors import DataError

COUNTS = {"calibration": 2000, "validation": 1000, "test": 2000}


@pytest.fixture
def originals(tmp_path):
    """A folder of the four files; its training images are those that ship and 30 more."""
    parts = [load_split("calibration"), load_split("validation"), random_images(30, seed=1)]
    train = Images(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
    return write_originals(tmp_path, train, load_split("test"))


@pytest.mark.parametrize("split", SHIPPED)
def test_each_split_has_the_documented_number_of_images_and_classes_of_one_size(split):
    found = load_split(split)
    assert found.images.shape == (COUNTS[split], 28, 28)
    assert np.bincount(found.labels).tolist() == [COUNTS[split] // 10] * 10
    row = rf"^\| {split} \| {COUNTS[split]} \| {COUNTS[split] // 10} \|"
    assert re.search(row, (FOLDER / "README.md").read_text(), re.MULTILINE)


def test_no_image_is_in_two_splits():
    digests = [digest for split in SHIPPED for digest in image_digests(load_split(split).images)]
    assert len(set(digests)) == len(digests) == sum(COUNTS.values())


@pytest.mark.parametrize("split", SHIPPED)
def test_a_split_is_in_the_order_of_the_digests(split):
    digests = image_digests(load_split(split).images)
    assert digests == sorted(digests)


def test_the_card_names_the_classes():
    assert f"| {', '.join(LABELS)}; the index is the label |" in (FOLDER / "README.md").read_text()


def test_the_data_ships_with_its_own_licence():
    text = (FOLDER / "LICENSE-fashion-mnist.txt").read_text()
    assert text.startswith("The MIT License (MIT) Copyright © [2017] Zalando SE")


def test_training_images_are_those_that_do_not_ship(originals):
    found, new = load_split("train", originals), random_images(30, seed=1)
    assert sorted(image_digests(found.images)) == sorted(image_digests(new.images))
    labels = dict(zip(image_digests(new.images), new.labels.tolist(), strict=True))
    assert [labels[digest] for digest in image_digests(found.images)] == found.labels.tolist()


def test_training_images_come_in_the_order_of_the_digests(originals):
    digests = image_digests(load_split("train", originals).images)
    assert digests == sorted(digests)


def test_without_the_folder_the_error_says_where_training_images_come_from_and_what_there_is():
    with pytest.raises(DataError) as caught:
        load_split("train")
    assert str(caught.value) == (
        "Fashion-MNIST's training images do not ship with prunekit. Set task.folder to the folder of the "
        "four original files (Debian's package dataset-fashion-mnist puts them into "
        "/usr/share/datasets/fashion-mnist; they come from the project zalandoresearch/fashion-mnist). "
        "Without it there are: calibration, validation, test."
    )


def test_a_folder_without_the_files_is_an_error_that_names_the_missing_ones(originals):
    (originals / "t10k-images-idx3-ubyte.gz").unlink()
    (originals / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError) as caught:
        load_split("train", originals)
    text = str(caught.value)
    assert text.startswith(
        f"{originals}: no train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz. task.folder"
    )
    assert "dataset-fashion-mnist" in text
    assert text.endswith("without it there are the splits calibration, validation, test.")


DAMAGE = {
    "not gzip": (b"idx", "Not a gzipped file"),
    "cut off": (gzip.compress(idx(np.zeros((9, 28, 28), np.uint8)))[:-9], "ended before the end"),
    "not idx": (gzip.compress(b"images"), "it does not begin like an idx file of unsigned bytes"),
    "empty": (gzip.compress(b""), "it does not begin like an idx file of unsigned bytes"),
    "too few bytes": (gzip.compress(idx(np.zeros((9, 28, 28), np.uint8))[:-1]), "cannot reshape"),
    "another size": (
        gzip.compress(idx(np.zeros((9, 32, 32), np.uint8))),
        "its shape is (9, 32, 32) and that of train-labels-idx1-ubyte.gz (3030,); expected are as many "
        "images of 28 by 28 as labels from 0 to 9",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_original_is_an_error_that_says_why_and_to_get_it_again(damage, originals):
    content, reason = DAMAGE[damage]
    path = originals / "train-images-idx3-ubyte.gz"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        load_split("train", originals)
    text = str(caught.value)
    assert text.startswith(f"{path}: the Fashion-MNIST data cannot be read (")
    assert reason in text
    assert "Get the file again (Debian's package" in text


def test_labels_beyond_the_ten_classes_are_an_error(tmp_path):
    odd = random_images(3, seed=0)
    write_originals(tmp_path, odd._replace(labels=np.array([0, 10, 1], np.uint8)), odd)
    with pytest.raises(DataError, match="as labels from 0 to 9"):
        read_images(tmp_path, "train", ".gz")


def test_a_damaged_shipped_file_is_an_error_that_says_how_to_remake_it(tmp_path):
    (tmp_path / "test-images-idx3-ubyte.xz").write_bytes(b"not xz")
    with pytest.raises(
        DataError, match=r"Reinstall prunekit, .*python -m prunekit\.embedded\.fashion\.build"
    ):
        read_images(tmp_path, "test", ".xz")


def test_written_images_read_back_equal_and_twice_the_same_bytes(tmp_path):
    found = random_images(7, seed=2)
    for folder in (tmp_path / "one", tmp_path / "two"):
        folder.mkdir()
        write_images(found, folder, "test")
        assert all(
            np.array_equal(a, b) for a, b in zip(read_images(folder, "test", ".xz"), found, strict=True)
        )
    name = "test-images-idx3-ubyte.xz"
    assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_the_builder_takes_the_first_of_each_class_by_digest():
    found = random_images(60, seed=3)
    parts = build.choose(found, {"calibration": 2, "validation": 1})
    of_class = {label: [] for label in range(10)}
    for digest, label in sorted(zip(image_digests(found.images), found.labels.tolist(), strict=True)):
        of_class[label].append(digest)
    expected = {
        "calibration": sorted(digest for digests in of_class.values() for digest in digests[:2]),
        "validation": sorted(digests[2] for digests in of_class.values()),
    }
    assert {part: image_digests(chosen.images) for part, chosen in parts.items()} == expected


def test_the_builder_refuses_equal_images():
    found = random_images(10, seed=4)
    with pytest.raises(DataError, match="1 images are equal to others; expected is the original data"):
        build.choose(Images(found.images[[0, *range(9)]], found.labels), {"test": 1})


def test_the_builder_writes_what_the_task_reads(tmp_path, monkeypatch, capsys):
    for module in (fashion, build):
        monkeypatch.setattr(module, "FOLDER", tmp_path)
    monkeypatch.setattr(build, "PROCESSOR_FOLDER", tmp_path / "processor")
    monkeypatch.setattr(build, "PER_CLASS", {"calibration": 2, "validation": 1, "test": 3})
    write_originals(tmp_path, random_images(50, seed=5), random_images(40, seed=6))
    build.main(tmp_path)
    assert {split: len(load_split(split).labels) for split in SHIPPED} == {
        "calibration": 20,
        "validation": 10,
        "test": 30,
    }
    assert len(load_split("train", tmp_path).labels) == 20
    assert capsys.readouterr().out.startswith("calibration 20, validation 10, test 30; ")
    settings = json.loads((tmp_path / "processor" / "preprocessor_config.json").read_text())
    assert settings["image_mean"] == [pytest.approx(0.5, abs=0.01)]


def test_the_shipped_image_processor_has_the_documented_settings():
    settings = json.loads((PROCESSOR_FOLDER / "preprocessor_config.json").read_text())
    assert (settings["image_mean"], settings["image_std"]) == ([0.286], [0.353])
    assert settings["size"] == {"height": 28, "width": 28}
    assert "minus 0.286 and divided by 0.353" in (FOLDER / "README.md").read_text().replace("\n", " ")
