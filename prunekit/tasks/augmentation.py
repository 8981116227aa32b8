"""Training images, seen a little differently each time."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from prunekit.tasks.image_transform import ImageTransform

LARGEST_SHIFT = 1
"""Pixels by which ``shifted`` moves an image at most, along each axis."""
SMALL = 64
"""Longest edge, in pixels, of an image that is moved rather than cut into."""
PADDING = 4
"""Pixels by which a small image is moved at most, along each axis."""
AREA = (0.08, 1.0)
"""Least and largest share of a larger image that is seen; as in Szegedy et al. 2015 (arXiv:1409.4842)."""
RATIO = (3 / 4, 4 / 3)
"""Least and largest width of that part over its height."""
TRIES = 10


def training_view(image: Tensor, transform: ImageTransform, generator: torch.Generator) -> Tensor:
    """Return an image as training sees it this time, fitted to the transform's ``output_size``.

    An image of at most ``SMALL`` pixels along each edge is moved by up to ``PADDING`` pixels along each axis,
    black coming in from outside, and then resized and cropped like any other. Of a larger one, a random part
    is cut out and resized to what the model takes. Half of all are mirrored.

    Args:
        image: uint8 ``[C, H, W]``, of any size.
        transform: the model's image processor.
        generator: decides what is seen.
    """
    height, width = image.shape[1:]
    if max(height, width) <= SMALL:
        top, left = torch.randint(0, 2 * PADDING + 1, (2,), generator=generator).tolist()
        padded = functional.pad(image, (PADDING,) * 4)
        view = transform.fitted(padded[:, top : top + height, left : left + width])
    else:
        top, left, rows, columns = _part(height, width, generator)
        view = transform.resized(image[:, top : top + rows, left : left + columns], transform.output_size)
    return view.flip(2) if torch.rand((), generator=generator) < 0.5 else view


def _part(height: int, width: int, generator: torch.Generator) -> tuple[int, int, int, int]:
    """Top, left, height and width of a random part."""
    low, high = (math.log(ratio) for ratio in RATIO)
    for _ in range(TRIES):
        share, form = torch.rand(2, generator=generator).tolist()
        area = height * width * (AREA[0] + share * (AREA[1] - AREA[0]))
        ratio = math.exp(low + form * (high - low))
        rows, columns = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if 0 < rows <= height and 0 < columns <= width:
            top = int(torch.randint(0, height - rows + 1, (), generator=generator))
            left = int(torch.randint(0, width - columns + 1, (), generator=generator))
            return top, left, rows, columns
    # The image is so long that such parts hardly fit: the largest in its middle that is not too long.
    rows, columns = min(height, round(width / RATIO[0])), min(width, round(height * RATIO[1]))
    return (height - rows) // 2, (width - columns) // 2, rows, columns


def shifted(pixels: Tensor) -> Tensor:
    """Return images moved by up to ``LARGEST_SHIFT`` pixels along each axis and, half of them, mirrored.

    What comes in from outside is black. Torch's global random numbers decide.

    Args:
        pixels: uint8 ``[B, H, W]``.
    """
    count, height, width = pixels.shape
    down, right = torch.randint(0, 2 * LARGEST_SHIFT + 1, (2, count, 1))  # [B, 1] each
    mirrored = torch.rand(count, 1) < 0.5
    columns = torch.arange(width)
    columns = torch.where(mirrored, columns.flip(0), columns) + right  # [B, W]
    rows = torch.arange(height) + down  # [B, H]
    padded = functional.pad(pixels, (LARGEST_SHIFT,) * 4)
    return padded[torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
