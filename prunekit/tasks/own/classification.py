"""Task ``text-classification``: texts of the user's own, or pairs of them, to labels or to a number."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import BaseModel, Field, model_validator
from torch import Tensor

from prunekit.errors import DataError
from prunekit.tasks.answering import check_metric
from prunekit.tasks.base import Split
from prunekit.tasks.data.lazy import LazyTexts
from prunekit.tasks.data.overlap import Overlap
from prunekit.tasks.data.rows import Rows
from prunekit.tasks.data.source import fingerprint_of, open_splits
from prunekit.tasks.own.config import LabelsOrNumberConfig, class_metrics, find_metrics
from prunekit.tasks.own.labels import OwnLabels
from prunekit.tasks.own.numbers import numbers_in
from prunekit.tasks.text_classification import LabelledText, TextClassificationTask, TokenizedText

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class TextClassificationConfig(LabelsOrNumberConfig):
    """Recipe keys of the task."""

    text: str | list[str] = Field(description="column of the text, or the two columns of a pair")
    label: str = Field(description="column of the label: a name, an integer, or with `regression` a number")
    regression: bool = Field(False, description="estimate the label as a number; the model has one output")
    max_length: int = Field(128, ge=3, description="tokens at which a text is cut off")

    @property
    def texts(self) -> list[str]:
        """The one or two columns of texts."""
        return [self.text] if isinstance(self.text, str) else self.text

    @model_validator(mode="after")
    def _checked(self) -> Self:
        if not 1 <= len(self.texts) <= 2:
            raise ValueError(f"text names {len(self.texts)} columns; name one, or two for pairs")
        if self.labels and self.regression:
            raise ValueError("labels are for classes; leave them out, or regression")
        if self.positive and self.regression:
            raise ValueError("positive is for classes; leave it out, or regression")
        return self


class TextClassification(TextClassificationTask):
    """Texts, or pairs of texts, to labels or to a number.

    Labels are handed out in the order of the model's names, as far as it is known: the model is the one that
    the tokenizer was loaded with.

    Raises:
        DataError: if the data is missing, malformed, or does not have what the recipe says.
    """

    name: ClassVar[str] = "text-classification"
    summary: ClassVar[str] = "your own texts, or pairs of texts, to labels or a number (files or hub)"
    Config: ClassVar[type[BaseModel]] = TextClassificationConfig
    splits: tuple[Split, ...] = ()
    labels: tuple[str, ...] = ()

    def __init__(self, config: TextClassificationConfig, processor: PreTrainedTokenizerBase) -> None:
        super().__init__(processor, max_length=config.max_length)
        self.config = config
        self.metrics = find_metrics(config.metric_names(is_number=config.regression))
        for metric in self.metrics:
            check_metric(metric, has_sources=False, ranks=1 if config.regression else metric.ranks)
        self.primary_metric, self.higher_is_better = self.metrics[0].name, self.metrics[0].higher_is_better
        self._rows = open_splits(config.data, self.name)
        self.splits = tuple(self._rows)
        self._overlap = Overlap(self.name, self.splits)
        for rows in self._rows.values():
            for column in config.texts:
                rows.check_column("text", column)
            rows.check_column("label", config.label)
        self._labels: OwnLabels | None = None
        if not config.regression:
            self._labels = OwnLabels(
                self.name, self._rows, config.label, given=config.labels, processor=processor
            )
            self.labels = self._labels.names
            self.metrics = class_metrics(self.name, self.metrics, self.labels, config.positive)
        if config.data.hub is None:
            for split in self.splits:  # a fault in the test rows should not show after hours of training
                for _ in self.texts(split):
                    pass

    def fingerprint(self) -> dict[str, str]:
        """Return the digest of each file, or the revision of the hub's data set, see ``fingerprint_of``."""
        return fingerprint_of(self.config.data)

    def head_config(self) -> dict[str, Any]:
        """Return the labels in order, or that there is one output, which is a number."""
        if self.config.regression:
            return {"num_labels": 1, "problem_type": "regression"}
        return super().head_config()

    def texts(self, split: Split) -> Sequence[LabelledText]:
        """Return the texts of a split with their labels; where data is streamed, read when asked for.

        Raises:
            DataError: if a text is not one, or a label is none of the task's; the text names file and row.
        """
        rows = self._rows[split]
        if rows.streaming:
            return LazyTexts(partial(self._texts, rows), range(len(rows)))
        texts = self._texts(rows)
        self._overlap.add(split, ((each.text, each.pair) for each in texts))
        return texts

    def _texts(self, rows: Rows, chosen: Sequence[int] | None = None) -> list[LabelledText]:
        texts = [rows.texts(column, chosen) for column in self.config.texts]
        labels = self._labels_of(rows, chosen)
        pairs: Sequence[str | None] = texts[1] if len(texts) > 1 else [None] * len(labels)
        return [LabelledText(*each) for each in zip(texts[0], labels, pairs, strict=True)]

    def _labels_of(self, rows: Rows, chosen: Sequence[int] | None) -> list[float]:
        if self._labels:
            return list(self._labels.of(rows, chosen))
        return numbers_in(self.name, rows, self.config.label, chosen)

    def collate(self, examples: Sequence[TokenizedText]) -> dict[str, Tensor]:
        """Return a batch; ``labels`` are int64 ``[B]`` in the order of ``labels``, or float32 numbers."""
        if self._labels:
            self._labels.handed_out = True
        return super().collate(examples)

    def reference(self, example: TokenizedText) -> str:
        """Return the label's name, or the number."""
        return repr(example.label) if self.config.regression else super().reference(example)

    def answers(self, model: PreTrainedModel, logits: Tensor) -> list[str]:
        """Return the names of the largest logits, or the numbers written out."""
        if self.config.regression:
            return [repr(number) for number in logits.float().squeeze(-1).tolist()]
        return super().answers(model, logits)

    def outputs(self, model: PreTrainedModel) -> Sequence[str]:
        """Return the name that each of the model's logits stands for, in the model's own order.

        A model without names of its own has those of the task, in the task's order.

        Raises:
            DataError: if the model has other labels; or the same ones in another order, and labels have been
                handed out for training in the task's.
        """
        if self._labels:
            return self._labels.outputs(model)
        if model.config.num_labels != 1:
            raise DataError(
                f"Task {self.name}: a regression needs one output, but the model has "
                f"{model.config.num_labels}. Use a model with num_labels 1, or leave task.regression out."
            )
        return ()
