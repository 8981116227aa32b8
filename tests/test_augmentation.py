"""Training images: small ones are moved, of larger ones a part is cut out, half of all are mirrored."""

from __future__ import annotations

import pytest
import torch

from prunekit.image_processor import ImageProcessor
from prunekit.tasks.augmentation import PADDING, training_view
from prunekit.tasks.image_transform import ImageTransform

SETTINGS = {"image_mean": [0.0] * 3, "image_std": [1.0] * 3}


def transform(height=8, width=8, **changes):
    size = {"height": height, "width": width}
    return ImageTransform.from_processor("x", ImageProcessor({**SETTINGS, "size": size, **changes}))


def noise(*shape):
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def views(image, made, count):
    generator = torch.Generator().manual_seed(1)
    return [training_view(image, made, generator) for _ in range(count)]


def test_small_images_are_moved_and_mirrored():
    image = noise(3, 6, 5)
    padded = torch.nn.functional.pad(image, (PADDING,) * 4)
    steps = range(2 * PADDING + 1)
    moved = [padded[:, y : y + 6, x : x + 5] for y in steps for x in steps]
    allowed = {tuple(each.flip(axis).flatten().tolist()) for each in moved for axis in ([], [2])}
    found = {tuple(view.flatten().tolist()) for view in views(image, transform(6, 5), 2000)}
    assert found == allowed


def test_small_images_are_then_resized_and_cropped_as_always():
    made = transform(20, 20, do_center_crop=True, crop_size={"height": 12, "width": 16})
    assert {view.shape for view in views(noise(3, 6, 5), made, 3)} == {(3, 12, 16)}


def test_of_larger_images_parts_of_eight_to_a_hundred_percent_are_seen():
    # Rows and columns that count upwards tell which part is seen: its own corners, but for rounding.
    image = torch.stack([torch.arange(100).repeat(90, 1), torch.arange(90)[:, None].repeat(1, 100)])
    image = torch.cat([image, image[:1]]).to(torch.uint8)
    made = transform(30, 30, resample=0)
    for view in views(image, made, 300):
        width = (view[0, 0, -1].int() - view[0, 0, 0].int()).abs() * 30 / 29
        height = (view[1, -1, 0].int() - view[1, 0, 0].int()) * 30 / 29
        assert 0.06 < float(width * height) / 9000 <= 1.1
        assert 0.65 < float(width / height) < 1.55


def test_parts_are_found_everywhere_and_half_of_them_are_mirrored():
    image = torch.arange(100, dtype=torch.uint8).repeat(3, 100, 1)
    found = views(image, transform(resample=0), 300)
    mirrored = sum(bool(view[0, 0, 0] > view[0, 0, -1]) for view in found)
    assert 110 < mirrored < 190
    assert min(int(view.min()) for view in found) < 3
    assert max(int(view.max()) for view in found) > 96


@pytest.mark.parametrize("shape", [(3, 2, 400), (3, 400, 2)])
def test_of_very_long_images_a_part_is_seen_too(shape):
    assert {view.shape for view in views(noise(*shape), transform(), 5)} == {(3, 8, 8)}


def test_the_generator_alone_decides():
    image = noise(3, 80, 70)
    state = torch.get_rng_state()
    first, second = (views(image, transform(), 3) for _ in range(2))
    assert all(map(torch.equal, first, second))
    assert not torch.equal(first[0], first[1])
    assert torch.equal(torch.get_rng_state(), state)
