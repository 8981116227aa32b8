"""Images as users store them, files or their bytes, to arrays of bytes."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from prunekit.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

MODES = {1: "L", 3: "RGB"}
"""Pillow's name for images of so many channels."""


def decoded(value: Any, channels: int) -> Tensor:
    """Return an image as uint8 ``[C, H, W]``, turned upright as its EXIF orientation says.

    Whatever its colours, it becomes grey or red, green and blue: transparency is dropped, 16 bits a pixel
    become 8, of an animation the first picture counts.

    Args:
        value: a path, the bytes of a file, or both as ``{"bytes": ..., "path": ...}``, as the ``datasets``
            library stores images.
        channels: 1 for grey, 3 for colours.

    Raises:
        DataError: if that is no image, or a damaged one; the text names the file, if there is one.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    source = value.get("bytes") or value.get("path") if isinstance(value, dict) else value
    if not isinstance(source, str | bytes) or not source:
        raise DataError(f"found {_shown(value)}, but a path or the bytes of an image are needed")
    if isinstance(source, str) and not Path(source).is_file():
        raise DataError(f"there is no file {os.path.abspath(source)}")
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            image.load()
            upright = ImageOps.exif_transpose(image)
            array = np.array(_in_bytes(upright).convert(MODES[channels]))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = "it is no image of a known format" if isinstance(error, UnidentifiedImageError) else error
        raise DataError(f"the image cannot be read: {reason}") from error
    return torch.from_numpy(array).reshape(*array.shape[:2], channels).permute(2, 0, 1)


def _in_bytes(image: PillowImage) -> PillowImage:
    """The image in a mode that Pillow converts without losing what it shows."""
    from PIL import Image

    if image.mode.startswith("I;16"):
        # Pillow would make everything above 255 white.
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError("its pixels have 32 bits, of which the range is not known; save it with 8 or 16")
    # A palette's transparent colour would be told as a warning at each image.
    return image.convert("RGBA") if image.mode == "P" and "transparency" in image.info else image


def _shown(value: Any) -> str:
    if value is None or value == "":
        return "nothing"
    shown = repr(value)
    return f"{shown if len(shown) <= 80 else f'{shown[:80]}…'} ({type(value).__name__})"
