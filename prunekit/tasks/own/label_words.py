"""Task ``text2text-classification``: an encoder-decoder writes the label, or the number, as a word."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from prunekit.errors import DataError
from prunekit.suggest import did_you_mean
from prunekit.tasks.base import Metric, MetricValue
from prunekit.tasks.data.rows import Rows
from prunekit.tasks.metrics import F1
from prunekit.tasks.metrics.estimates import mean
from prunekit.tasks.own.config import LabelsOrNumberConfig, class_metrics
from prunekit.tasks.own.labels import OwnLabels
from prunekit.tasks.own.numbers import finite, numbers_in
from prunekit.tasks.own.text2text import OwnText2TextConfig, OwnText2TextTask

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from prunekit.tasks.text2text import TextExample


class NumberSpec(BaseModel):
    """How numbers are written."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    step: float = Field(
        gt=0, description="numbers are rounded to its multiples, and have as many decimals as it has"
    )

    def text(self, number: float) -> str:
        """Return the nearest multiple of the step, of two the even one: 4.7 as ``4.8`` where it is 0.2."""
        # What is stored in single precision as 4.9 is half a step above 4.8, not a millionth more.
        count = round(round(number / self.step, 5))
        exponent = Decimal(repr(self.step)).normalize().as_tuple().exponent
        return f"{count * self.step:.{max(0, -int(exponent))}f}"


class Text2TextClassificationConfig(LabelsOrNumberConfig, OwnText2TextConfig):
    """Recipe keys of the task."""

    label: str = Field(description="column of the label: a name, an integer, or with `numbers` a number")
    words: dict[str, str] = Field({}, description="what is written for a label; by default its name")
    numbers: NumberSpec | None = Field(
        None, description="in place of labels: the label is a number, written rounded"
    )
    max_target_length: int = Field(8, ge=2, description="tokens at which an answer ends")

    @model_validator(mode="after")
    def _checked(self) -> Self:
        if self.numbers:
            given = [key for key in ("labels", "words", "positive") if getattr(self, key)]
            if given:
                raise ValueError(f"{given[0]} is for labels; leave it out, or numbers")
        if self.positive and F1.name not in self.metric_names(is_number=False):
            raise ValueError("positive is for f1; add f1 to metrics, or leave positive out")
        if self.labels and (problem := self.mismatch(self.labels)):
            raise ValueError(problem)
        return self

    def mismatch(self, labels: Sequence[str]) -> str | None:
        """Return what is wrong with ``words`` and ``positive``, given all labels; None if nothing is."""
        stated = [("words", key) for key in self.words]
        if self.positive is not None:
            stated.append(("positive", self.positive))
        for key, label in stated:
            if label not in labels:
                hint = did_you_mean(label, labels) or ";"
                return (
                    f"{key} names {label!r}, which is none of the labels{hint} they are {', '.join(labels)}"
                )
        if self.positive and len(labels) != 2:
            return f"positive is for two labels, and there are {len(labels)}; leave it out, use macro-f1"
        owners: dict[str, str] = {}
        for label in labels:
            word = self.words.get(label, label)
            if not normalized(word):
                return f"words has nothing to write for {label!r}; give it a word"
            other = owners.setdefault(normalized(word), label)
            if other != label:
                return (
                    f"{other!r} and {label!r} would both be written {word!r} (capital letters and white "
                    "space around a word do not count); give them different words"
                )
        return None


class Text2TextClassification(OwnText2TextTask):
    """Texts to labels that are written as words, or to numbers.

    An answer is the label whose word it is, apart from capital letters and white space around it. Any other
    answer is unparsable: it is wrong whatever the reference, no label is guessed from it, and the share of
    such answers is the metric ``unparsable``, in percent.

    With ``numbers``, an answer is the finite number that it spells. It is scored against the number in the
    data, not against the rounded one that is trained on. What spells none goes to the metrics as it is:
    ``pearson`` and ``spearman`` are then those of the answers that are numbers, times their share, so that
    nonsense earns nothing. No number stands in for it: 0, which the released NASH code takes, is nearly right
    for some pairs, and any other fixed one for others.

    The references of an example are two: what is written, and the label's name or the number in the data.
    Answers are scored against the second.

    Raises:
        DataError: if the data is missing, malformed, or does not have what the recipe says; or if a word
            cannot be answered.
    """

    name: ClassVar[str] = "text2text-classification"
    summary: ClassVar[str] = "your own texts to labels or numbers, written as words (files or hub)"
    Config: ClassVar[type[BaseModel]] = Text2TextClassificationConfig
    labels: tuple[str, ...] = ()

    def __init__(self, config: Text2TextClassificationConfig, processor: PreTrainedTokenizerBase) -> None:
        self.config = config
        metrics = config.metric_names(is_number=config.numbers is not None)
        super().__init__(config, processor, metrics=metrics, columns={"label": [config.label]})
        self._labels: OwnLabels | None = None
        if config.numbers is None:
            self._labels = OwnLabels(self.name, self._rows, config.label, given=config.labels, processor=None)
            self.labels = self._labels.names
        if self.labels and (problem := config.mismatch(self.labels)):
            raise DataError(f"Task {self.name}: task.{problem}.")
        self._words = {label: config.words.get(label, label) for label in self.labels}
        self._labels_of = {normalized(word): label for label, word in self._words.items()}
        self._check_words(config.max_target_length)
        if self.labels:
            self.metrics = class_metrics(self.name, self.metrics, self.labels, config.positive)
        self.metrics = (*self.metrics, self._unparsable())
        self.check_rows(config)

    def references(self, rows: Rows, chosen: Sequence[int] | None = None) -> list[tuple[str, ...]]:
        """Return for each row, or each of ``chosen``, what is written, and the label's name or the number."""
        if self._labels:
            names = [self.labels[place] for place in self._labels.of(rows, chosen)]
            return [(self._words[name], name) for name in names]
        assert self.config.numbers is not None
        numbers = numbers_in(self.name, rows, self.config.label, chosen)
        return [(self.config.numbers.text(number), repr(number)) for number in numbers]

    def right(self, example: TextExample) -> Sequence[str]:
        """Return the label's name, or the number in the data."""
        return example.references[1:]

    def read(self, text: str) -> str:
        """Return the label's name, or the number, that the model wrote.

        An unparsable answer comes back as it was written, without white space around it; in quotes if it
        would else read as a label's name.
        """
        if label := self._labels_of.get(normalized(text)):
            return label
        text = text.strip()
        while text in self.labels:  # the name of a label that is written with another word
            text = repr(text)
        return text

    def _is_parsed(self, answer: str) -> bool:
        return answer in self.labels if self.config.numbers is None else finite(answer) is not None

    def _unparsable(self) -> Metric:
        def unparsable(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> MetricValue:
            return mean([not self._is_parsed(answer) for answer in predictions])

        return Metric("unparsable", higher_is_better=False, function=unparsable)

    def _check_words(self, longest: int) -> None:
        """Refuse a word that the tokenizer cannot write, or that ends behind ``longest`` tokens."""
        for label, word in self._words.items():
            ids = self.tokenizer(word)["input_ids"]
            back = self.tokenizer.decode(ids, skip_special_tokens=True)
            if normalized(back) != normalized(word):
                raise DataError(
                    f"Task {self.name}: the label {label!r} is written {word!r}, but the tokenizer can only "
                    f"write {back.strip()!r}. Give it another word under task.words."
                )
            if len(ids) > longest:
                raise DataError(
                    f"Task {self.name}: the label {label!r} is written {word!r}, which has {len(ids)} "
                    f"tokens, but answers end at {longest}. Raise task.max_target_length to {len(ids)}, or "
                    "give it a shorter word under task.words."
                )


def normalized(text: str) -> str:
    """Return what answers are compared by: the text in one case, without white space around it."""
    return text.strip().casefold()
