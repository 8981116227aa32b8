"""Task ``question-answering``: questions about texts, whose answers are pieces of the texts, as in SQuAD."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import BaseModel, Field, model_validator

from prunekit.errors import DataError
from prunekit.tasks.answering import check_metric
from prunekit.tasks.base import Metric, Split
from prunekit.tasks.data.overlap import Overlap
from prunekit.tasks.data.rows import Rows
from prunekit.tasks.data.source import fingerprint_of, open_splits
from prunekit.tasks.metrics.answers import normalized_words
from prunekit.tasks.own.config import OwnConfig, find_metrics
from prunekit.tasks.question_answering import QuestionAnsweringTask
from prunekit.tasks.windows import CHUNK, Question

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class QuestionAnsweringConfig(OwnConfig):
    """Recipe keys of the task."""

    question: str = Field(description="column of the question")
    context: str = Field(description="column of the text that holds the answer")
    answers: str = Field(
        description="column of the answer, or of a list of right ones, such as `answers.text`; the first is "
        "trained on"
    )
    answer_start: str | None = Field(
        None,
        description="column of the character at which each answer begins, such as `answers.answer_start`; by "
        "default where the first answer occurs first",
    )
    unanswerable: bool = Field(
        False, description="rows may be without an answer, and the model may answer that there is none"
    )
    max_length: int = Field(384, ge=8, description="tokens of a window, question and special tokens included")
    stride: int = Field(128, ge=0, description="tokens of the text that a window shares with the one before")
    max_answer_length: int = Field(30, ge=1, description="tokens of the longest answer that is given")
    best: int = Field(20, ge=1, description="best starts, and best ends, of a window that make its answers")
    metrics: list[str] = Field(
        ["exact-match", "token-f1"], min_length=1, description="installed metrics, the first leads"
    )

    @model_validator(mode="after")
    def _windows_go_on(self) -> Self:
        # Three special tokens, a question of one, and one token of the text that the window before has not.
        if self.stride > self.max_length - 5:
            raise ValueError(
                f"stride {self.stride} leaves no room for a question and for new text in windows of "
                f"max_length {self.max_length}; write at most {self.max_length - 5}, or better a third of it"
            )
        return self


class QuestionAnswering(QuestionAnsweringTask):
    """Questions about texts of the user's own.

    Raises:
        DataError: if the data is missing, malformed, or does not have what the recipe says.
    """

    name: ClassVar[str] = "question-answering"
    summary: ClassVar[str] = "your own questions about texts that hold the answers (files or hub)"
    Config: ClassVar[type[BaseModel]] = QuestionAnsweringConfig
    splits: tuple[Split, ...] = ()
    metrics: tuple[Metric, ...] = ()

    def __init__(self, config: QuestionAnsweringConfig, processor: PreTrainedTokenizerBase) -> None:
        super().__init__(
            processor,
            max_length=config.max_length,
            stride=config.stride,
            max_answer_length=config.max_answer_length,
            best=config.best,
            unanswerable=config.unanswerable,
            lazy=config.data.streaming,
        )
        self.config = config
        self.metrics = find_metrics(config.metrics)
        for metric in self.metrics:
            check_metric(metric, has_sources=True)
        self.primary_metric, self.higher_is_better = self.metrics[0].name, self.metrics[0].higher_is_better
        self._rows = open_splits(config.data, self.name)
        self.splits = tuple(self._rows)
        self._overlap = Overlap(self.name, self.splits)
        for rows in self._rows.values():
            for key in ("question", "context", "answers", "answer_start"):
                if (column := getattr(config, key)) is not None:
                    rows.check_column(key, column)
        if config.data.hub is None:
            for split, rows in self._rows.items():
                # A fault in the test rows should not show after hours of training.
                for block in rows.blocks():
                    self.questions(split, block if rows.streaming else None)

    def fingerprint(self) -> dict[str, str]:
        """Return the digest of each file, or the revision of the hub's data set."""
        return fingerprint_of(self.config.data)

    def count(self, split: Split) -> int:
        """Return the rows of a split."""
        return len(self._rows[split])

    def questions(self, split: Split, chosen: Sequence[int] | None = None) -> list[Question]:
        """Return the questions of a split, or those of the rows ``chosen``.

        Raises:
            DataError: if a text is not one, a question is too long, or an answer does not stand where it
                should; the text names file and row.
        """
        rows, config = self._rows[split], self.config
        indices = range(len(rows)) if chosen is None else chosen
        questions = [text.strip() for text in rows.texts(config.question, chosen)]
        contexts = rows.texts(config.context, chosen)
        answers = rows.values(config.answers, chosen)
        starts = rows.values(config.answer_start, chosen) if config.answer_start else [None] * len(answers)
        self._check_lengths(rows, indices, questions)
        if chosen is None:
            self._overlap.add(split, zip(questions, contexts, strict=True))
        return [
            self._question(rows, *each)
            for each in zip(indices, questions, contexts, answers, starts, strict=True)
        ]

    def _check_lengths(self, rows: Rows, indices: Sequence[int], questions: Sequence[str]) -> None:
        allowed = self.cutter.longest_question
        for start in range(0, len(questions), CHUNK):
            lengths = self.cutter.question_lengths(questions[start : start + CHUNK])
            for index, length in zip(indices[start : start + CHUNK], lengths, strict=True):
                if length > allowed:
                    raise self._fault(
                        rows,
                        index,
                        f"the question has {length} tokens, but beside task.stride {self.config.stride} in "
                        f"windows of {self.config.max_length} there is room for {max(allowed, 0)}",
                        "Raise task.max_length, lower task.stride, or shorten the question",
                    )

    def _question(
        self, rows: Rows, index: int, question: str, context: str, answers: Any, starts: Any
    ) -> Question:
        if not context.strip():
            problem = f"{self.config.context!r} is empty, so it holds no answer"
            raise self._fault(rows, index, problem, "Correct the row or leave it out")
        texts = self._texts(rows, index, answers)
        if not texts:
            if not self.config.unanswerable:
                raise self._fault(
                    rows,
                    index,
                    f"{self.config.answers!r} holds no answer",
                    "Correct the row, or write task.unanswerable: true if questions may have none",
                )
            return Question(question, context, (), None, ("",))
        places = self._places(rows, index, context, texts, starts)
        # SQuAD 2 does not count references that are articles or punctuation alone, SQuAD 1.1 does.
        kept = [text for text in texts if normalized_words(text)] if self.config.unanswerable else texts
        return Question(question, context, tuple(texts), places[0], tuple(dict.fromkeys(kept)) or ("",))

    def _texts(self, rows: Rows, index: int, answers: Any) -> list[str]:
        if answers is None:
            return []
        found = list(answers) if isinstance(answers, list | tuple) else [answers]
        for each in found:
            if not isinstance(each, str):
                raise rows.no_text(index, self.config.answers, each)
        if any(text.strip() for text in found) and not all(text.strip() for text in found):
            problem = f"an answer in {self.config.answers!r} is empty and others are not"
            raise self._fault(rows, index, problem, "Leave the empty one out")
        return found if any(text.strip() for text in found) else []

    def _places(self, rows: Rows, index: int, context: str, texts: Sequence[str], starts: Any) -> list[int]:
        """Where each answer begins; without a column for it, where the first one does."""
        if self.config.answer_start is None:
            place = context.find(texts[0])
            if place < 0:
                problem = f"the answer {texts[0]!r} does not occur in {self.config.context!r}"
                raise self._fault(rows, index, problem, "Answers are pieces of the context; correct the row")
            return [place]
        found = list(starts) if isinstance(starts, list | tuple) else [starts]
        if len(found) != len(texts):
            problem = f"{self.config.answer_start!r} holds {len(found)} places for {len(texts)} answers"
            raise self._fault(rows, index, problem, "Give one for each answer")
        return [self._place(rows, index, context, *each) for each in zip(texts, found, strict=True)]

    def _place(self, rows: Rows, index: int, context: str, text: str, value: Any) -> int:
        try:
            place = int(value)
        except (TypeError, ValueError):
            place = -1
        if place < 0 or isinstance(value, bool):
            problem = f"{self.config.answer_start!r} holds {value!r}, which is no place in a text"
            raise self._fault(rows, index, problem, "Count characters of the context from 0")
        standing = context[place : place + len(text)]
        if standing != text:
            other = context.find(text)
            hint = "it occurs nowhere" if other < 0 else f"it first occurs at {other}"
            raise self._fault(
                rows,
                index,
                f"the answer {text!r} should begin at character {place} of {self.config.context!r}, but "
                f"{standing!r} stands there, and {hint}",
                "Correct the row (characters are counted from 0), or leave task.answer_start out to take the "
                "first occurrence",
            )
        return place

    def _fault(self, rows: Rows, index: int, problem: str, advice: str) -> DataError:
        return DataError(f"Task {self.name}: {rows.where(index)}: {problem}. {advice}.")
