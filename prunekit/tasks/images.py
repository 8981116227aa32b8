"""Image classification tasks: arrays of bytes become what an image processor's settings say."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from prunekit.errors import DataError
from prunekit.tasks.base import Split
from prunekit.tasks.classification import ClassificationTask

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LARGEST_SHIFT = 1
"""Pixels by which a training image is moved at most, along each axis."""

_RESAMPLING = {2: "bilinear", 3: "bicubic"}
"""Ways to resize, by Pillow's numbers, as image processors store them."""


class Settings(Protocol):
    """An image processor, of which the settings alone are used."""

    def to_dict(self) -> dict[str, Any]:
        """Return the content of ``preprocessor_config.json``."""
        ...


class LabelledImage(NamedTuple):
    """A grey image and its label.

    Attributes:
        pixels: uint8 ``[H, W]``.
        label: index into the task's ``labels``.
        augment: whether ``collate`` moves and mirrors it, as it should for training images only.
    """

    pixels: Tensor
    label: int
    augment: bool


class ImageClassificationTask(ClassificationTask[LabelledImage]):
    """Classification of grey images of one size.

    The image processor's settings are applied to whole batches at once, as batches are made between the steps
    of training.

    Args:
        processor: the model's image processor.

    Raises:
        DataError: if it is no image processor, or one whose settings are not understood.
    """

    def __init__(self, processor: Settings) -> None:
        super().__init__()
        self.transform = ImageTransform.from_processor(self.name, processor)

    @abstractmethod
    def load(self, split: Split) -> Sequence[LabelledImage]:
        """Return the images of one of ``splits``, in an order in which any first N are a fair sample."""

    def length(self, example: LabelledImage) -> int:
        """Return 1: images may share any batch, and how many tokens they are is known to the model alone."""
        return 1

    def inputs(self, examples: Sequence[LabelledImage]) -> dict[str, Tensor]:
        """Return ``pixel_values``, float32 ``[B, C, H, W]``, of the images as they are."""
        return {"pixel_values": self.transform(torch.stack([example.pixels for example in examples]))}

    def collate(self, examples: Sequence[LabelledImage]) -> dict[str, Tensor]:
        """Return a batch: ``pixel_values``, float32 ``[B, C, H, W]``, and ``labels``, int64 ``[B]``.

        Images to augment are moved and mirrored by torch's global random numbers, anew at each call.
        """
        pixels = torch.stack([example.pixels for example in examples])
        chosen = torch.tensor([example.augment for example in examples])
        if chosen.any():
            pixels[chosen] = augmented(pixels[chosen])
        labels = torch.tensor([example.label for example in examples])
        return {"pixel_values": self.transform(pixels), "labels": labels}

    def check_model(self, model: PreTrainedModel) -> None:
        """Refuse a model with other labels, or for images of another shape.

        Raises:
            DataError: if so.
        """
        super().check_model(model)
        size = getattr(model.config, "image_size", None)
        if size is None:
            return
        height, width = (size, size) if isinstance(size, int) else size
        wanted = (model.config.num_channels, height, width)
        given = (self.transform.channels, *self.transform.output_size)
        if wanted != given:
            raise DataError(
                f"Task {self.name}: the image processor makes images of shape {given} (channels, height, "
                f"width), but the model takes {wanted}. Use the image processor of the model, or set "
                "image_mean, image_std and size in its preprocessor_config.json."
            )


@dataclass(frozen=True)
class ImageTransform:
    """What an image processor does to images, done to a batch of them: resize, crop, rescale, normalise.

    Args:
        size: height and width after resizing.
        resampling: how to resize, as ``torch.nn.functional.interpolate`` calls it.
        crop: height and width of the middle part to keep after resizing; all of it by default.
        scale: factor on the grey values.
        mean: subtracted after scaling, one value a channel.
        deviation: divisor after that, one value a channel.
    """

    size: tuple[int, int]
    resampling: str
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
        if missing := [key for key in needed if key not in settings]:
            raise DataError(
                f"Task {task} needs an image processor that says {', '.join(needed)}, but found "
                f"{type(processor).__name__} without {', '.join(missing)}. Use a model for images, with a "
                "preprocessor_config.json that has them."
            )
        resample = settings.get("resample", 2)
        if resample not in _RESAMPLING:
            raise DataError(
                f"Task {task}: the image processor's resample is {resample}; allowed are "
                f"{' and '.join(f'{number} ({name})' for number, name in _RESAMPLING.items())}."
            )
        size, crop = _height_and_width(task, settings, "size"), None
        if settings.get("do_center_crop"):
            crop = _height_and_width(task, settings, "crop_size")
            if crop[0] > size[0] or crop[1] > size[1]:
                raise DataError(
                    f"Task {task}: the image processor crops images of {size} to {crop} (height, width); "
                    "crop_size must not exceed size."
                )
        return cls(
            size=size,
            resampling=_RESAMPLING[resample],
            crop=crop,
            scale=settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale", True) else 1.0,
            mean=tuple(settings["image_mean"]) if normalizes else (0.0,),
            deviation=tuple(settings["image_std"]) if normalizes else (1.0,),
        )

    @property
    def channels(self) -> int:
        """Channels of the result; a grey image is repeated where there are several."""
        return len(self.mean)

    @property
    def output_size(self) -> tuple[int, int]:
        """Height and width of the result."""
        return self.crop or self.size

    def __call__(self, pixels: Tensor) -> Tensor:
        """Return float32 ``[B, C, H', W']`` for uint8 ``[B, H, W]``."""
        values = pixels[:, None]  # [B, 1, H, W]
        if values.shape[2:] != self.size:
            # On bytes, as image processors do it: they round after each axis.
            values = functional.interpolate(
                values, size=self.size, mode=self.resampling, antialias=True, align_corners=False
            )
        if self.crop is not None:
            top, left = ((whole - part) // 2 for whole, part in zip(self.size, self.crop, strict=True))
            values = values[:, :, top : top + self.crop[0], left : left + self.crop[1]]
        mean = torch.tensor(self.mean)[:, None, None]  # [C, 1, 1]
        deviation = torch.tensor(self.deviation)[:, None, None]  # [C, 1, 1]
        return (values * self.scale - mean) / deviation


def augmented(pixels: Tensor) -> Tensor:
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


def _height_and_width(task: str, settings: Mapping[str, Any], key: str) -> tuple[int, int]:
    found = settings.get(key)
    if not isinstance(found, Mapping) or not {"height", "width"} <= found.keys():
        raise DataError(
            f"Task {task}: the image processor's {key} is {found}; it must give height and width in pixels."
        )
    return found["height"], found["width"]
