"""Texts of the user's own to texts, made of the columns of a data set by templates: task ``text2text``."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, Field, field_validator

from prunekit.tasks.answering import check_metric
from prunekit.tasks.base import Metric, Split
from prunekit.tasks.data.lazy import LazyTexts
from prunekit.tasks.data.overlap import Overlap
from prunekit.tasks.data.rows import Rows
from prunekit.tasks.data.source import fingerprint_of, open_splits
from prunekit.tasks.own.config import OwnConfig, find_metrics
from prunekit.tasks.own.templates import Template
from prunekit.tasks.text2text import Text2TextTask, TextPair

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class OwnText2TextConfig(OwnConfig):
    """Recipe keys of every task that turns the user's rows into pairs of texts."""

    source: str = Field(
        description='what the model reads: a column, or a template such as "summarize: {document}"'
    )
    max_source_length: int = Field(512, ge=2, description="tokens at which a source is cut off")
    max_target_length: int = Field(
        128, ge=2, description="tokens at which a target is cut off in training, and an answer ends"
    )

    @field_validator("source", "target", check_fields=False)
    @classmethod
    def _is_template(cls, text: str) -> str:
        Template(text)
        return text


class OwnText2TextTask(Text2TextTask):
    """Rows to pairs of texts: the sources come from a template, the references from the subclass.

    Args:
        config: the recipe's keys.
        processor: the tokenizer.
        metrics: names of installed metrics, the first leads.
        columns: by recipe key, the columns that the references are made of.

    Raises:
        DataError: if the data is missing, malformed, or does not have what the recipe says.
    """

    splits: tuple[Split, ...] = ()
    metrics: tuple[Metric, ...] = ()

    def __init__(
        self,
        config: OwnText2TextConfig,
        processor: PreTrainedTokenizerBase,
        *,
        metrics: Sequence[str],
        columns: dict[str, list[str]],
    ) -> None:
        super().__init__(
            processor,
            max_source_length=config.max_source_length,
            max_target_length=config.max_target_length,
        )
        self.max_new_tokens = config.max_target_length
        self.metrics = find_metrics(metrics)
        for metric in self.metrics:
            check_metric(metric, has_sources=True)
        self.primary_metric, self.higher_is_better = self.metrics[0].name, self.metrics[0].higher_is_better
        self._source = Template(config.source)
        self._data = config.data
        self._rows = open_splits(config.data, self.name)
        self.splits = tuple(self._rows)
        self._overlap = Overlap(self.name, self.splits)
        for rows in self._rows.values():
            for key, names in {"source": self._source.columns, **columns}.items():
                for column in names:
                    rows.check_column(key, column)

    def check_rows(self, config: OwnText2TextConfig) -> None:
        """Read every row of local files: a fault in the test rows should not show after hours of training.

        Raises:
            DataError: if a row is malformed; the text names file and row.
        """
        if config.data.hub is None:
            for split in self.splits:
                for _ in self.pairs(split):
                    pass

    def fingerprint(self) -> dict[str, str]:
        """Return the digest of each file, or the revision of the hub's data set, see ``fingerprint_of``."""
        return fingerprint_of(self._data)

    def pairs(self, split: Split) -> Sequence[TextPair]:
        """Return the texts of a split with all their references; where data is streamed, read when asked for.

        Raises:
            DataError: if a text is not one; the text names file and row.
        """
        rows = self._rows[split]
        if rows.streaming:
            return LazyTexts(partial(self._pairs, rows), range(len(rows)))
        pairs = self._pairs(rows)
        self._overlap.add(split, (pair.source for pair in pairs))
        return pairs

    def _pairs(self, rows: Rows, chosen: Sequence[int] | None = None) -> list[TextPair]:
        sources, references = self._source.filled(rows, chosen), self.references(rows, chosen)
        return [TextPair(*each) for each in zip(sources, references, strict=True)]

    @abstractmethod
    def references(self, rows: Rows, chosen: Sequence[int] | None = None) -> list[tuple[str, ...]]:
        """Return the references of each row, or of the rows ``chosen``; the first is the one trained on."""


class Text2TextConfig(OwnText2TextConfig):
    """Recipe keys of the task."""

    target: str = Field(description="what it should write, likewise; of a column of lists, the first")
    references: list[str] = Field(
        [], description="columns with further right answers, one each or a list of them"
    )
    metrics: list[str] = Field(min_length=1, description="installed metrics, the first leads")
    length_penalty: float | None = Field(
        None, description="of a beam search, above 0 for longer answers; by default the model's own"
    )


class Text2Text(OwnText2TextTask):
    """Texts to texts.

    Raises:
        DataError: if the data is missing, malformed, or does not have what the recipe says.
    """

    name: ClassVar[str] = "text2text"
    summary: ClassVar[str] = "your own texts to texts, from templates over columns (files or hub)"
    Config: ClassVar[type[BaseModel]] = Text2TextConfig

    def __init__(self, config: Text2TextConfig, processor: PreTrainedTokenizerBase) -> None:
        self.config = config
        self._target = Template(config.target)
        columns = {"target": self._target.columns, "references": config.references}
        super().__init__(config, processor, metrics=config.metrics, columns=columns)
        self.length_penalty = config.length_penalty
        self.check_rows(config)

    def references(self, rows: Rows, chosen: Sequence[int] | None = None) -> list[tuple[str, ...]]:
        """Return the targets and further right answers of each row, or of the rows ``chosen``."""
        indices = range(len(rows)) if chosen is None else chosen
        found = self._targets(rows, indices)
        for column in self.config.references:
            for index, answers, value in zip(indices, found, rows.values(column, chosen), strict=True):
                # A row may have fewer than there are columns.
                answers += _answers(rows, index, column, value) if value not in (None, "") else []
        return [tuple(dict.fromkeys(each)) for each in found]

    def _targets(self, rows: Rows, indices: Sequence[int]) -> list[list[str]]:
        if not self._target.is_column:
            return [[text] for text in self._target.filled(rows, indices)]
        (column,) = self._target.columns
        found = []
        for index, value in zip(indices, rows.values(column, indices), strict=True):
            answers = _answers(rows, index, column, value, numbers=self._target.takes_numbers)
            if not answers:
                raise rows.no_text(index, column, None)
            found.append(answers)
        return found


def _answers(rows: Rows, index: int, column: str, value: Any, *, numbers: bool = False) -> list[str]:
    found = list(value) if isinstance(value, list | tuple) else [value]
    return [rows.text(index, column, each, numbers=numbers) for each in found]
