"""Task ``fashion-mnist``: which of ten kinds of clothing a small grey image shows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from prunekit.embedded.fashion import LABELS, SPLITS, load_split
from prunekit.tasks.augmentation import shifted
from prunekit.tasks.base import Split
from prunekit.tasks.image_transform import Settings
from prunekit.tasks.images import ImageClassificationTask


class FashionConfig(BaseModel):
    """Recipe keys of the task."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: str | None = Field(
        default=None, description="folder of the four original files, which hold the training images"
    )
    augment: bool = Field(default=True, description="move and mirror the training images at random")


class LabelledImage(NamedTuple):
    """A grey image and its label.

    Attributes:
        pixels: uint8 ``[28, 28]``.
        label: index into the task's ``labels``.
        augment: whether ``collate`` moves and mirrors it, as it should for training images only.
    """

    pixels: Tensor
    label: int
    augment: bool


class FashionMNIST(ImageClassificationTask[LabelledImage]):
    """Images of 28 by 28 pixels to kinds of clothing.

    The splits ``calibration``, ``validation`` and ``test`` ship with prunekit; ``train`` needs ``folder``.
    """

    name: ClassVar[str] = "fashion-mnist"
    summary: ClassVar[str] = "images of clothing to 10 classes (Fashion-MNIST; all but train embedded)"
    Config: ClassVar[type[BaseModel]] = FashionConfig
    splits: ClassVar[tuple[Split, ...]] = SPLITS
    labels: ClassVar[tuple[str, ...]] = LABELS

    def __init__(self, config: FashionConfig, processor: Settings) -> None:
        super().__init__(processor)
        self.config = config

    def load(self, split: Split) -> list[LabelledImage]:
        """Return the images of a split in hash order.

        Raises:
            DataError: if its files are missing or damaged.
        """
        folder = self.config.folder
        found = load_split(split, None if folder is None else Path(folder))
        augment = split == "train" and self.config.augment
        pixels = torch.tensor(found.images).unbind()
        return [LabelledImage(*pair, augment) for pair in zip(pixels, found.labels.tolist(), strict=True)]

    def pixels(self, examples: Sequence[LabelledImage], *, training: bool) -> Tensor:
        """Return the images fitted to the model, uint8 ``[B, 1, H, W]``; to train on, moved and mirrored."""
        # A whole batch at once, as batches are made between the steps of training.
        pixels = torch.stack([example.pixels for example in examples])
        chosen = torch.tensor([example.augment for example in examples])
        if training and chosen.any():
            pixels[chosen] = shifted(pixels[chosen])
        return torch.stack([self.transform.fitted(image[None]) for image in pixels])
