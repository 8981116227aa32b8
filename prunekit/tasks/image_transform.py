"""What an image processor's settings do to an image: resize, crop, rescale, normalise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from prunekit.errors import DataError

RESAMPLING = {0: "nearest", 1: "Lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "Hamming"}
"""Ways to resize, by Pillow's numbers, as image processors store them."""
KNOWN_STEPS = ("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb")
SQUARE = ("ViT", "DeiT", "Beit")
"""How the names of the image processors begin for which a ``size`` of one number means a square."""
DEIT = {"resample": 3, "do_center_crop": True, "crop_size": 224}
"""What transformers' image processor for DeiT does where its settings are silent."""


class Settings(Protocol):
    """An image processor, of which the settings alone are used."""

    def to_dict(self) -> dict[str, Any]:
        """Return the content of ``preprocessor_config.json``."""
        ...


@dataclass(frozen=True)
class ImageTransform:
    """What an image processor does to images, in two steps: ``fitted`` to one shape, and ``normalised``.

    Resizing is Pillow's, as in transformers' own image processors, and works on bytes.

    Args:
        size: height and width after resizing; or the length of the shorter edge, the other in proportion.
        resampling: how to resize, a number of ``RESAMPLING``.
        crop: height and width of the middle part to keep after resizing; all of it by default.
        scale: factor on the bytes.
        mean: subtracted after scaling, one value a channel.
        deviation: divisor after that, one value a channel.
    """

    size: tuple[int, int] | int
    resampling: int
    crop: tuple[int, int] | None
    scale: float
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    @classmethod
    def from_processor(cls, task: str, processor: Settings) -> ImageTransform:
        """Read the settings of an image processor.

        Raises:
            DataError: if it is none, or a setting is not understood.
        """
        settings = processor.to_dict() if hasattr(processor, "to_dict") else {}
        normalizes = settings.get("do_normalize", True)
        needed = ("size", "image_mean", "image_std") if normalizes else ("size",)
        if missing := [key for key in needed if settings.get(key) is None]:
            raise DataError(
                f"Task {task} needs an image processor that says {', '.join(needed)}, but found "
                f"{type(processor).__name__} without {', '.join(missing)}. Use a model for images, with a "
                "preprocessor_config.json that has them."
            )
        if _kind(settings).startswith("DeiT"):
            settings = {**DEIT, **settings}
        _check_steps(task, settings)
        size, crop = _shape(task, settings)
        channels = len(_values(settings, "image_mean", count=3))
        return cls(
            size=size,
            resampling=_resampling(task, settings),
            crop=crop,
            scale=settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale", True) else 1.0,
            mean=_values(settings, "image_mean", count=channels) if normalizes else (0.0,) * channels,
            deviation=_values(settings, "image_std", count=channels) if normalizes else (1.0,) * channels,
        )

    @property
    def channels(self) -> int:
        """Channels of the result: 1 for grey values, 3 for red, green and blue."""
        return len(self.mean)

    @property
    def output_size(self) -> tuple[int, int]:
        """Height and width of the result."""
        if self.crop is not None:
            return self.crop
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    def fitted(self, image: Tensor) -> Tensor:
        """Return an image, uint8 ``[C, H, W]`` of any size, resized and cropped to ``output_size``."""
        height, width = image.shape[1:]
        if isinstance(self.size, int):
            short, other = sorted((height, width))
            other = int(self.size * other / short)
            size = (self.size, other) if height <= width else (other, self.size)
        else:
            size = self.size
        image = self.resized(image, size)
        if self.crop is not None:
            top, left = ((whole - part) // 2 for whole, part in zip(size, self.crop, strict=True))
            image = image[:, top : top + self.crop[0], left : left + self.crop[1]]
        return image

    def resized(self, image: Tensor, size: tuple[int, int]) -> Tensor:
        """Return an image, uint8 ``[C, H, W]``, in another height and width."""
        if tuple(image.shape[1:]) == size:
            return image
        from PIL import Image
        from PIL.Image import Resampling

        array = image.permute(1, 2, 0).contiguous().numpy()  # [H, W, C]
        found = Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
        array = np.array(found.resize(size[::-1], Resampling(self.resampling)))
        return torch.from_numpy(array).reshape(*size, -1).permute(2, 0, 1)  # [C, H', W']

    def normalised(self, images: Tensor) -> Tensor:
        """Return float32 ``[B, C, H, W]``, scaled and normalised, for uint8 ``[B, 1 or C, H, W]``.

        Grey images are repeated where the model takes several channels.
        """
        mean = torch.tensor(self.mean)[:, None, None]  # [C, 1, 1]
        deviation = torch.tensor(self.deviation)[:, None, None]  # [C, 1, 1]
        return (images * self.scale - mean) / deviation


def _kind(settings: Mapping[str, Any]) -> str:
    return str(settings.get("image_processor_type") or settings.get("feature_extractor_type") or "")


def _check_steps(task: str, settings: Mapping[str, Any]) -> None:
    steps = [key for key in settings if key.startswith("do_") and key not in KNOWN_STEPS]
    unknown = [key for key in (*steps, "crop_pct", "rescale_offset") if settings.get(key)]
    if unknown:
        raise DataError(
            f"Task {task}: the image processor does {', '.join(unknown)}, which prunekit does not. "
            f"It does {', '.join(KNOWN_STEPS)}. Use a model whose preprocessor_config.json asks for no more."
        )
    if settings.get("do_center_crop") and not settings.get("do_resize", True):
        raise DataError(
            f"Task {task}: the image processor crops images without resizing them. Set do_resize in its "
            "preprocessor_config.json, or leave do_center_crop out."
        )


def _resampling(task: str, settings: Mapping[str, Any]) -> int:
    found: int = settings.get("resample", 2)
    if found not in RESAMPLING:
        raise DataError(
            f"Task {task}: the image processor's resample is {found}; allowed are "
            f"{', '.join(f'{number} ({name})' for number, name in RESAMPLING.items())}."
        )
    return found


def _values(settings: Mapping[str, Any], key: str, *, count: int) -> tuple[float, ...]:
    """The values of a setting by channel; ``count`` equal ones where it is one number or not there."""
    found = settings.get(key, 0.0)
    return tuple(found) if isinstance(found, list | tuple) else (found,) * count


def _shape(task: str, settings: Mapping[str, Any]) -> tuple[tuple[int, int] | int, tuple[int, int] | None]:
    """Size after resizing and size of the crop, if there is one."""
    size = _extent(task, settings, "size")
    if not settings.get("do_center_crop"):
        if isinstance(size, int):
            raise DataError(
                f"Task {task}: the image processor resizes the shortest edge to {size} and crops nothing, so "
                "that images of other proportions differ in shape. Set do_center_crop and crop_size in its "
                "preprocessor_config.json, or a size with height and width."
            )
        return size, None
    crop = _extent(task, settings, "crop_size")
    if isinstance(crop, int):
        raise _no_extent(task, settings, "crop_size")
    whole = (size, size) if isinstance(size, int) else size
    if crop[0] > whole[0] or crop[1] > whole[1]:
        raise DataError(
            f"Task {task}: the image processor crops images of {whole} to {crop} (height, width); "
            "crop_size must not exceed size."
        )
    return size, crop


def _extent(task: str, settings: Mapping[str, Any], key: str) -> tuple[int, int] | int:
    """Height and width that a setting asks for, or the length of the shorter edge."""
    found = settings.get(key)
    if isinstance(found, int):
        kind = _kind(settings)
        if key == "size" and kind and not kind.startswith(SQUARE):
            raise DataError(
                f"Task {task}: the size of the image processor {kind} is {found}, which may mean a square or "
                "the shortest edge. Write {height: ..., width: ...} or {shortest_edge: ...} in its "
                "preprocessor_config.json."
            )
        return found, found
    named = {name: each for name, each in (found or {}).items() if each is not None}
    if named.keys() == {"height", "width"}:
        return named["height"], named["width"]
    if named.keys() == {"shortest_edge"}:
        shortest: int = named["shortest_edge"]
        return shortest
    raise _no_extent(task, settings, key)


def _no_extent(task: str, settings: Mapping[str, Any], key: str) -> DataError:
    allowed = "height and width" if key == "crop_size" else "height and width, or shortest_edge,"
    return DataError(
        f"Task {task}: the image processor's {key} is {settings.get(key)}; it must give {allowed} in pixels."
    )
