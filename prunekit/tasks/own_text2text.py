"""Task ``text2text``: texts of the user's own to texts, made of the columns of a data set by templates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, Field, field_validator

from prunekit.tasks.base import Metric, Split
from prunekit.tasks.own import OwnConfig, find_metrics
from prunekit.tasks.source import Rows, open_splits
from prunekit.tasks.templates import Template
from prunekit.tasks.text2text import Text2TextTask, TextPair

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Text2TextConfig(OwnConfig):
    """Recipe keys of the task."""

    source: str = Field(
        description='what the model reads: a column, or a template such as "summarize: {document}"'
    )
    target: str = Field(description="what it should write, likewise; of a column of lists, the first")
    references: list[str] = Field(
        [], description="columns with further right answers, one each or a list of them"
    )
    max_source_length: int = Field(512, ge=2, description="tokens at which a source is cut off")
    max_target_length: int = Field(
        128, ge=2, description="tokens at which a target is cut off in training, and an answer ends"
    )
    metrics: list[str] = Field(min_length=1, description="installed metrics, the first leads")

    @field_validator("source", "target")
    @classmethod
    def _is_template(cls, text: str) -> str:
        Template(text)
        return text


class Text2Text(Text2TextTask):
    """Texts to texts.

    Raises:
        DataError: if the data is missing, malformed, or does not have what the recipe says.
    """

    name: ClassVar[str] = "text2text"
    summary: ClassVar[str] = "your own texts to texts, from templates over columns (files or hub)"
    Config: ClassVar[type[BaseModel]] = Text2TextConfig
    splits: tuple[Split, ...] = ()
    metrics: tuple[Metric, ...] = ()

    def __init__(self, config: Text2TextConfig, processor: PreTrainedTokenizerBase) -> None:
        super().__init__(
            processor,
            max_source_length=config.max_source_length,
            max_target_length=config.max_target_length,
        )
        self.config = config
        self.max_new_tokens = config.max_target_length
        self.metrics = find_metrics(config.metrics)
        self.primary_metric, self.higher_is_better = self.metrics[0].name, self.metrics[0].higher_is_better
        self._source, self._target = Template(config.source), Template(config.target)
        self._rows = open_splits(config.data, self.name)
        self.splits = tuple(self._rows)
        wanted = {
            "source": self._source.columns,
            "target": self._target.columns,
            "references": config.references,
        }
        for rows in self._rows.values():
            for key, columns in wanted.items():
                for column in columns:
                    rows.check_column(key, column)
        if config.data.hub is None:
            for split in self.splits:  # a fault in the test rows should not show after hours of training
                self.pairs(split)

    def pairs(self, split: Split) -> list[TextPair]:
        """Return the texts of a split with all their references.

        Raises:
            DataError: if a text is not one; the text names file and row.
        """
        rows = self._rows[split]
        sources, references = self._source.filled(rows), self._targets(rows)
        for column in self.config.references:
            for index, value in enumerate(rows.values(column)):
                # A row may have fewer than there are columns.
                references[index] += _answers(rows, index, column, value) if value not in (None, "") else []
        return [
            TextPair(source, tuple(dict.fromkeys(each)))
            for source, each in zip(sources, references, strict=True)
        ]

    def _targets(self, rows: Rows) -> list[list[str]]:
        if not self._target.is_column:
            return [[text] for text in self._target.filled(rows)]
        (column,) = self._target.columns
        found = [_answers(rows, index, column, value) for index, value in enumerate(rows.values(column))]
        for index, each in enumerate(found):
            if not each:
                raise rows.no_text(index, column, None)
        return found


def _answers(rows: Rows, index: int, column: str, value: Any) -> list[str]:
    found = list(value) if isinstance(value, list | tuple) else [value]
    for each in found:
        if not isinstance(each, str):
            raise rows.no_text(index, column, each)
    return found
