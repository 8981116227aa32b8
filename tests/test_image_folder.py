"""Folders of images as rows: what counts as an image and as a class, and what is refused."""

from __future__ import annotations

import pytest
from own_calls import warnings_in

from prunekit.errors import DataError
from prunekit.tasks.data.image_folder import read_image_folder


@pytest.fixture
def folder(tmp_path):
    """Files by name only: what is in them is not looked at."""
    return make(tmp_path / "train", "bee/1.png", "ant/2.JPEG", "ant/1.jpg")


def make(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return folder


def rows(folder):
    table = read_image_folder(folder)
    pairs = zip(table.columns["image"](), table.columns["label"](), strict=True)
    return [(path.removeprefix(f"{folder}/"), label) for path, label in pairs]


def test_each_subfolder_is_a_class_of_the_images_in_it(folder):
    assert rows(folder) == [("ant/1.jpg", "ant"), ("ant/2.JPEG", "ant"), ("bee/1.png", "bee")]
    assert read_image_folder(folder).size == 3


def test_images_may_lie_any_depth_below_the_class(folder):
    make(folder, "bee/2021/may/3.webp")
    assert ("bee/2021/may/3.webp", "bee") in rows(folder)


def test_folders_that_are_links_are_followed(folder, tmp_path):
    make(tmp_path / "elsewhere", "4.gif")
    (folder / "cat").symlink_to(tmp_path / "elsewhere")
    assert rows(folder)[-1] == ("cat/4.gif", "cat")


def test_hidden_files_and_what_systems_leave_behind_are_left_out(folder, caplog):
    before = rows(folder)
    make(folder, ".DS_Store", "ant/.hidden.png", "ant/Thumbs.db", ".git/1.png", "bee/__MACOSX/1.png")
    assert rows(folder) == before
    assert warnings_in(caplog) == []


def test_other_files_are_left_out_and_told(folder, caplog):
    before = rows(folder)
    make(folder, "labels.csv", "ant/read.me", "bee/deep/5.heic")
    assert rows(folder) == before
    assert warnings_in(caplog) == [
        f"{folder}: 3 files are no images by their endings and are left out, such as {folder}/ant/read.me, "
        f"{folder}/bee/deep/5.heic, {folder}/labels.csv."
    ]


def test_the_place_of_a_row_is_its_file(folder):
    assert read_image_folder(folder).where(2) == f"{folder}/bee/1.png"


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (
            ["bee/1.png", "2.png"],
            "{}: 1 images, such as 2.png, lie beside the folders of the classes. Put every image into the "
            "folder of its class.",
        ),
        (
            ["read.me"],
            "{} has no subfolders. Make one for each class, with the class's name, and put its images in.",
        ),
        (
            ["train/bee/1.png", "val/bee/2.png"],
            "{} has the subfolders train, val, which look like splits and not like classes. Name each under "
            "task.data, such as train: {}/train.",
        ),
        (
            ["bee/1.png", "cat/read.me"],
            "{}/cat has no images (.png, .jpg, .jpeg, .webp, .bmp, .gif, .tif, .tiff, .ppm, .pgm), but its "
            "place makes it a class. Remove the folder, or put images in.",
        ),
    ],
)
def test_other_ways_to_lay_images_out_are_refused(tmp_path, names, text):
    folder = make(tmp_path / "pictures", *names)
    with pytest.raises(DataError) as caught:
        read_image_folder(folder)
    assert str(caught.value) == text.replace("{}", str(folder))
