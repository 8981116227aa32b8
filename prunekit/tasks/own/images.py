"""Task ``image-classification``: images of the user's own to labels."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import BaseModel, Field
from torch import Tensor

from prunekit.errors import DataError
from prunekit.tasks.answering import check_metric
from prunekit.tasks.augmentation import training_view
from prunekit.tasks.base import Split
from prunekit.tasks.data.image_folder import IMAGE, LABEL
from prunekit.tasks.data.overlap import Overlap
from prunekit.tasks.data.rows import Rows
from prunekit.tasks.data.source import fingerprint_of, open_splits
from prunekit.tasks.image_decoding import decoded
from prunekit.tasks.image_transform import Settings
from prunekit.tasks.images import ImageClassificationTask
from prunekit.tasks.own.config import LabelsConfig, class_metrics, find_metrics
from prunekit.tasks.own.labels import OwnLabels

if TYPE_CHECKING:
    from transformers import PreTrainedModel

THREADS = min(8, os.cpu_count() or 1)
"""Images decoded at once; Pillow lets other threads run meanwhile."""


class ImageClassificationConfig(LabelsConfig):
    """Recipe keys of the task."""

    image: str = Field(
        IMAGE, description="column of the image: a path, or the bytes as `datasets` stores them"
    )
    label: str = Field(LABEL, description="column of the label: a name or an integer")
    by_position: bool = Field(
        False,
        description="the labels, as listed or sorted, are the model's outputs, whatever it calls them",
    )
    augment: bool = Field(True, description="cut out, move and mirror the training images at random")
    metrics: list[str] = Field(["accuracy"], min_length=1, description="installed metrics, the first leads")


@dataclass(frozen=True, slots=True)
class OwnImage:
    """An image that is read when a batch needs it, and its label.

    Attributes:
        rows: of the split that it is in.
        index: of its row.
        read: gives what a row holds: a path, or the bytes of a file.
        label: index into the task's ``labels``.
        augment: whether ``collate`` augments it, as it should for training images only.
    """

    rows: Rows
    index: int
    read: Callable[[int], Any]
    label: int
    augment: bool


class ImageClassification(ImageClassificationTask[OwnImage]):
    """Images of any size and colours to labels.

    Labels are handed out in the order of the model's names, as far as it is known: the model is the one that
    the image processor was loaded with. Without rows for it, the split ``calibration`` is ``train``, not
    augmented.

    Raises:
        DataError: if the data is missing, malformed, or does not have what the recipe says.
    """

    name: ClassVar[str] = "image-classification"
    summary: ClassVar[str] = "your own images to labels (folders, parquet files or hub)"
    Config: ClassVar[type[BaseModel]] = ImageClassificationConfig
    splits: tuple[Split, ...] = ()
    labels: tuple[str, ...] = ()

    def __init__(self, config: ImageClassificationConfig, processor: Settings) -> None:
        super().__init__(processor)
        self.config = config
        self.metrics = find_metrics(config.metrics)
        for metric in self.metrics:
            check_metric(metric, has_sources=False, ranks=metric.ranks)
        self.primary_metric, self.higher_is_better = self.metrics[0].name, self.metrics[0].higher_is_better
        # The hub's rows lie on disk anyway, and images are often too many for memory.
        data = config.data.model_copy(update={"streaming": True}) if config.data.hub else config.data
        self._rows = open_splits(data, self.name, folders=True)
        for rows in self._rows.values():
            rows.check_column("image", config.image)
            rows.check_column("label", config.label)
        self._labels = OwnLabels(
            self.name,
            self._rows,
            config.label,
            given=config.labels,
            processor=processor,
            by_position=config.by_position,
        )
        self.labels = self._labels.names
        self.metrics = class_metrics(self.name, self.metrics, self.labels, config.positive)
        if "train" in self._rows:
            self._rows.setdefault("calibration", self._rows["train"])
        self.splits = tuple(self._rows)
        self._overlap = Overlap(self.name, self.splits)
        for split in self.splits:  # a fault in the test rows should not show after hours of training
            self.pixels(self.examples(split)[:1], training=False)

    def head_config(self) -> dict[str, Any]:
        """Return ``num_labels``, and the names of the labels unless they go by position."""
        config = super().head_config()
        # Names would call for a new head in place of one that goes by others.
        return {"num_labels": config["num_labels"]} if self.config.by_position else config

    def fingerprint(self) -> dict[str, str]:
        """Return what tells the data from other data, by file or data set."""
        return fingerprint_of(self.config.data)

    def load(self, split: Split) -> list[OwnImage]:
        """Return the images of a split, none of them read yet, with their labels.

        Raises:
            DataError: if a label is none of the task's; the text names file and row.
        """
        rows = self._rows[split]
        column, augment = self.config.image, split == "train" and self.config.augment
        read: Callable[[int], Any] = partial(_read_one, rows, column)
        if not rows.streaming:
            values = rows.values(column)
            read = values.__getitem__
            self._overlap.add(split, map(_known_by, values))
        labels = self._labels.of(rows)
        return [OwnImage(rows, index, read, label, augment) for index, label in enumerate(labels)]

    def pixels(self, examples: Sequence[OwnImage], *, training: bool) -> Tensor:
        """Return the images fitted to the model, uint8 ``[B, C, H, W]``.

        Raises:
            DataError: if one cannot be read; the text names file and row.
        """
        values = [example.read(example.index) for example in examples]
        seeds: list[int | None] = [None] * len(examples)
        if training and any(example.augment for example in examples):
            # One random number an image, drawn here: threads come in any order.
            drawn = torch.randint(2**62, (len(examples),)).tolist()
            seeds = [seed if each.augment else None for seed, each in zip(drawn, examples, strict=True)]
        with ThreadPoolExecutor(min(THREADS, len(examples))) as pool:
            return torch.stack(list(pool.map(self._fitted, examples, values, seeds)))

    def _fitted(self, example: OwnImage, value: Any, seed: int | None) -> Tensor:
        try:
            image = decoded(value, self.transform.channels)
        except DataError as error:
            raise DataError(
                f"Task {self.name}: {example.rows.where(example.index)}: {error}. "
                "Replace the image or leave it out."
            ) from error
        if seed is None:
            return self.transform.fitted(image)
        return training_view(image, self.transform, torch.Generator().manual_seed(seed))

    def collate(self, examples: Sequence[OwnImage]) -> dict[str, Tensor]:
        """Return a batch: ``pixel_values``, float32 ``[B, C, H, W]``, and ``labels``, int64 ``[B]``."""
        self._labels.handed_out = True
        return super().collate(examples)

    def outputs(self, model: PreTrainedModel) -> Sequence[str]:
        """Return the name that each of the model's logits stands for, in the model's own order.

        Raises:
            DataError: if the model has other labels; or the same ones in another order, and labels have been
                handed out for training in the task's.
        """
        return self._labels.outputs(model)


def _known_by(value: Any) -> Hashable:
    """What tells an image from others: bytes where they are at hand, else a name."""
    found = value.get("bytes") or value.get("path") if isinstance(value, dict) else value
    return found if isinstance(found, str | bytes) else repr(found)


def _read_one(rows: Rows, column: str, index: int) -> Any:
    return rows.values(column, [index])[0]
