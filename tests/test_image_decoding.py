"""Stored images to bytes: every kind of colours, orientation, and what is no image."""

from __future__ import annotations

import io

import datasets
import numpy as np
import pytest
import torch
from own_image_calls import picture, stored
from PIL import Image

from prunekit.errors import DataError
from prunekit.tasks.image_decoding import decoded

SIZE = (6, 4)
KINDS = {
    "PNG": "png",
    "BMP": "bmp",
    "GIF": "gif",
    "WEBP": "webp",
    "TIFF": "tiff",
    "JPEG": "jpeg",
    "PPM": "ppm",
}


def array(image):
    """uint8 [C, H, W] of a Pillow image."""
    values = np.array(image)
    return torch.from_numpy(values.reshape(*values.shape[:2], -1)).permute(2, 0, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_is_what_pillow_reads(kind):
    data = stored(picture(size=SIZE), kind)
    with Image.open(io.BytesIO(data)) as image:
        expected = array(image.convert("RGB"))
    found = decoded(data, 3)
    assert found.dtype == torch.uint8
    assert found.shape == (3, 4, 6)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("form", ["path", "bytes", "both", "only the path"])
def test_a_path_and_bytes_give_the_same(form, tmp_path):
    image, path = picture(size=SIZE), tmp_path / "a.png"
    image.save(path)
    value = {
        "path": str(path),
        "bytes": path.read_bytes(),
        "both": {"bytes": path.read_bytes(), "path": "gone.png"},
        "only the path": {"bytes": None, "path": str(path)},
    }[form]
    assert torch.equal(decoded(value, 3), array(image))


def test_colours_become_grey_and_grey_becomes_colours():
    image = picture(size=SIZE)
    assert torch.equal(decoded(stored(image), 1), array(image.convert("L")))
    grey = image.convert("L")
    assert torch.equal(decoded(stored(grey), 3), array(grey).repeat(3, 1, 1))


@pytest.mark.parametrize(("mode", "kind"), [("CMYK", "TIFF"), ("1", "PNG"), ("LA", "PNG"), ("P", "GIF")])
def test_other_colours_become_red_green_and_blue(mode, kind):
    image = picture(size=SIZE, mode=mode)
    assert torch.equal(decoded(stored(image, kind), 3), array(image.convert("RGB")))


def test_transparency_is_dropped():
    image = picture(size=SIZE)
    see_through = image.copy()
    see_through.putalpha(30)
    assert torch.equal(decoded(stored(see_through), 3), array(image))


def test_a_palette_with_transparency_is_read_without_a_warning():
    image = picture(size=SIZE, mode="P")
    data = stored(image, transparency=bytes(range(256)))
    assert torch.equal(decoded(data, 3), array(image.convert("RGB")))


def test_sixteen_bits_a_pixel_become_eight():
    values = np.array([[0, 255, 256, 65535]], dtype=np.uint16)
    assert decoded(stored(Image.fromarray(values)), 1).tolist() == [[[0, 0, 1, 255]]]


def test_of_an_animation_the_first_picture_counts():
    first, second = picture(1, SIZE, "P"), picture(2, SIZE, "P")
    data = stored(first, "GIF", save_all=True, append_images=[second])
    assert torch.equal(decoded(data, 3), array(first.convert("RGB")))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_upright_as_the_datasets_library_does(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = stored(picture(size=SIZE), exif=exif)
    expected = array(datasets.Image().decode_example({"bytes": data, "path": None}))
    assert torch.equal(decoded(data, 3), expected)
    assert expected.shape == ((3, 4, 6) if orientation < 5 else (3, 6, 4))


@pytest.mark.parametrize("kind", KINDS)
def test_half_a_file_is_an_error(kind):
    data = stored(picture(size=(40, 30)), kind)
    with pytest.raises(DataError, match=r"^the image cannot be read: "):
        decoded(data[: len(data) // 2], 3)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "found nothing, but a path or the bytes of an image are needed"),
        ("", "found nothing, but a path or the bytes of an image are needed"),
        (3, "found 3 (int), but a path or the bytes of an image are needed"),
        (
            {"bytes": None, "path": None},
            "found {'bytes': None, 'path': None} (dict), but a path or the bytes of an image are needed",
        ),
        (b"no image", "the image cannot be read: it is no image of a known format"),
    ],
)
def test_what_is_no_image_is_an_error(value, text):
    with pytest.raises(DataError) as caught:
        decoded(value, 3)
    assert str(caught.value) == text


def test_a_file_that_is_not_there_is_an_error_with_the_path_that_was_tried(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as caught:
        decoded("a/b.png", 3)
    assert str(caught.value) == f"there is no file {tmp_path}/a/b.png"


def test_pixels_of_an_unknown_range_are_an_error():
    data = stored(Image.fromarray(np.full((2, 2), 0.5, dtype=np.float32)), "TIFF")
    with pytest.raises(
        DataError, match="its pixels have 32 bits, of which the range is not known; save it with"
    ):
        decoded(data, 3)
