"""Image classification tasks: images become what an image processor's settings say."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from prunekit.errors import DataError
from prunekit.tasks.base import Split
from prunekit.tasks.classification import ClassificationTask, Example
from prunekit.tasks.image_transform import ImageTransform, Settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class ImageClassificationTask(ClassificationTask[Example]):
    """Classification of images.

    Args:
        processor: the model's image processor.

    Raises:
        DataError: if it is no image processor, or one whose settings are not understood.
    """

    auto_class: ClassVar[str] = "AutoModelForImageClassification"

    def __init__(self, processor: Settings) -> None:
        super().__init__()
        self.transform = ImageTransform.from_processor(self.name, processor)

    @abstractmethod
    def pixels(self, examples: Sequence[Example], *, training: bool) -> Tensor:
        """Return images, uint8 ``[B, 1 or C, H, W]``, fitted to the ``output_size`` of ``transform``.

        Args:
            examples: of which the images are.
            training: whether those to be augmented are.
        """

    def shown(self, index: int, example: Example) -> str:
        """Return the image's place in the split, counted from 0: ``image 17``."""
        return f"image {index}"

    def length(self, example: Example) -> int:
        """Return 1: images may share any batch, and how many tokens they are is known to the model alone."""
        return 1

    def lengths(self, split: Split) -> list[int]:
        """Return 1 for each example, in the order of ``examples``."""
        return [1] * len(self.examples(split))

    def inputs(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        """Return ``pixel_values``, float32 ``[B, C, H, W]``, of the images as they are."""
        return {"pixel_values": self.transform.normalised(self.pixels(examples, training=False))}

    def collate(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        """Return a batch: ``pixel_values``, float32 ``[B, C, H, W]``, and ``labels``, int64 ``[B]``.

        Images to augment are augmented anew at each call, as torch's global random numbers decide.
        """
        values = self.transform.normalised(self.pixels(examples, training=True))
        return {"pixel_values": values, "labels": torch.tensor([int(example.label) for example in examples])}

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
