"""Task ``text-classification``: texts of the user's own, or pairs of them, to labels or to a number."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import BaseModel, Field, model_validator
from torch import Tensor

from prunekit.errors import DataError
from prunekit.suggest import did_you_mean
from prunekit.tasks.base import Split
from prunekit.tasks.label_map import LabelMap, in_order, label_map, model_names, name_of, names_beside
from prunekit.tasks.own import OwnConfig, find_metrics
from prunekit.tasks.source import Rows, open_splits
from prunekit.tasks.text_classification import LabelledText, TextClassificationTask, TokenizedText

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DEFAULT_METRICS = {False: ["accuracy"], True: ["pearson", "spearman"]}
"""By whether it is a regression."""

_log = logging.getLogger(__name__)


class TextClassificationConfig(OwnConfig):
    """Recipe keys of the task."""

    text: str | list[str] = Field(description="column of the text, or the two columns of a pair")
    label: str = Field(description="column of the label: a name, an integer, or with `regression` a number")
    labels: list[str] | None = Field(
        None,
        min_length=2,
        description="the labels, integers in the data count them; by default those in train",
    )
    regression: bool = Field(False, description="estimate the label as a number; the model has one output")
    max_length: int = Field(128, ge=3, description="tokens at which a text is cut off")
    metrics: list[str] | None = Field(
        None,
        min_length=1,
        description="installed metrics, the first leads; by default accuracy, or pearson and spearman",
    )

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
        if self.labels and len(set(self.labels)) < len(self.labels):
            raise ValueError(f"labels names a label twice: {', '.join(self.labels)}")
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
        self.metrics = find_metrics(config.metrics or DEFAULT_METRICS[config.regression])
        self.primary_metric, self.higher_is_better = self.metrics[0].name, self.metrics[0].higher_is_better
        self._rows = open_splits(config.data, self.name)
        self.splits = tuple(self._rows)
        for rows in self._rows.values():
            for column in config.texts:
                rows.check_column("text", column)
            rows.check_column("label", config.label)
        self._has_collated = False
        self._map = LabelMap((), ()) if config.regression else self._label_map()
        self.labels = self._map.names
        if config.data.hub is None:
            for split in self.splits:  # a fault in the test rows should not show after hours of training
                self.texts(split)

    def _label_map(self) -> LabelMap:
        outputs = names_beside(self.tokenizer)
        classes = next(iter(self._rows.values())).classes(self.config.label)
        stated = bool(self.config.labels or classes)
        labels = label_map(
            self.name,
            given=self.config.labels,
            classes=classes,
            found=() if stated else self._labels_found(known=bool(outputs)),
            outputs=outputs,
        )
        if outputs and in_order(labels.names, outputs) is None:
            # Not an error yet: a new model may borrow the tokenizer of one with other labels.
            _log.warning(
                "Task %s: the labels are %s, but the model in %s has %s and will not be scored on them.",
                self.name,
                ", ".join(labels.names),
                self.tokenizer.name_or_path,
                ", ".join(outputs),
            )
        return labels

    def _labels_found(self, *, known: bool) -> set[str]:
        """Labels in the training rows; where there are none, in all rows if the model's labels are known."""
        train = self._rows.get("train")
        found: set[str] = set()
        for rows in self._rows.values():
            # Rows held out of train count too: they may have a rare label that the rest has not.
            if rows.tables is train.tables if train else known:
                for index, value in enumerate(rows.values(self.config.label)):
                    name = name_of(value)
                    if name is None:
                        raise self._no_label(rows, index, value, "but a name or an integer is needed")
                    found.add(name)
        return found

    def texts(self, split: Split) -> list[LabelledText]:
        """Return the texts of a split with their labels.

        Raises:
            DataError: if a text is not one, or a label is none of the task's; the text names file and row.
        """
        rows, columns = self._rows[split], self.config.texts
        texts = [rows.texts(column) for column in columns]
        pairs: Sequence[str | None] = texts[1] if len(texts) > 1 else [None] * len(rows)
        return [LabelledText(*each) for each in zip(texts[0], self._labels_of(rows), pairs, strict=True)]

    def _labels_of(self, rows: Rows) -> list[float]:
        found: list[float] = []
        for index, value in enumerate(rows.values(self.config.label)):
            label = _number(value) if self.config.regression else self._map.index(value)
            if label is None:
                if self.config.regression:
                    raise self._no_label(rows, index, value, "but a finite number is needed")
                hint = did_you_mean(str(value), self.labels)
                known = f"which is none of the labels{hint} ({', '.join(self.labels)})"
                raise self._no_label(rows, index, value, known)
            found.append(label)
        return found

    def _no_label(self, rows: Rows, index: int, value: Any, problem: str) -> DataError:
        shown = "nothing" if value in (None, "") else repr(value)
        advice = "" if self.config.regression else ", or list every label under task.labels"
        return DataError(
            f"Task {self.name}: {rows.where(index)}: {self.config.label!r} holds {shown}, {problem}. "
            f"Correct the row{advice}."
        )

    def collate(self, examples: Sequence[TokenizedText]) -> dict[str, Tensor]:
        """Return a batch; ``labels`` are int64 ``[B]`` in the order of ``labels``, or float32 numbers."""
        self._has_collated = True
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
        names, count = model_names(model.config), model.config.num_labels
        if self.config.regression:
            if count != 1:
                raise DataError(
                    f"Task {self.name}: a regression needs one output, but the model has {count}. Use a "
                    "model with num_labels 1, or leave task.regression out."
                )
            return ()
        own = ", ".join(self.labels)
        found = in_order(self.labels, names) if names else self.labels
        if found is None or len(found) != count:
            others = ", ".join(names) or f"{count} without names"
            raise DataError(
                f"Task {self.name}: the labels are {own}; the model's are {others}. Use a model that was "
                "trained on these labels. If the data counts the model's labels from 0, or lacks some of "
                "them, list them all under task.labels."
            )
        if found != self.labels and self._has_collated:
            raise DataError(
                f"Task {self.name}: batches had their labels in the order {own}, but the model's order is "
                f"{', '.join(found)}: what was trained on them has learnt the wrong names. Write "
                f"task.labels: [{', '.join(found)}]."
            )
        return found


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
