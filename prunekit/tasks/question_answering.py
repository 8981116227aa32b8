"""Extractive question answering: the answer is a piece of a text, marked by its first and last token."""

from __future__ import annotations

import copy
import inspect
from abc import abstractmethod
from collections.abc import Sequence
from itertools import groupby, takewhile
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from prunekit.errors import DataError
from prunekit.progress import Progress
from prunekit.tasks.answering import Answered, answers_in_batches, check_vocabulary
from prunekit.tasks.base import Split
from prunekit.tasks.scored import Asking, ScoredTask
from prunekit.tasks.windows import (
    CHUNK,
    LazyWindows,
    Question,
    Window,
    WindowCutter,
    lost_answers,
    tell_windows,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Candidate(NamedTuple):
    """The best answer that a window holds.

    Attributes:
        text: as it is written in the context; ``""`` if there is none.
        score: the sum of its start's and its end's logits; minus infinity if there is none.
        null: that of "no answer here".
    """

    text: str
    score: float
    null: float


class QuestionAnsweringTask(ScoredTask[Window]):
    """Shared half of the tasks whose answers are pieces of a context.

    An example is a window: a question with as much of its context as fits. Training, calibration and lengths
    are about windows, ``evaluate`` is about questions: what the windows of a question answer is put together.
    Works with every model that takes ``start_positions`` and gives ``start_logits`` and ``end_logits``.

    Args:
        tokenizer: a fast one with a CLS token.
        max_length: tokens of a window, question and special tokens included.
        stride: tokens of the context that a window shares with the one before.
        max_answer_length: tokens of the longest answer that is given.
        best: how many of a window's best starts, and of its best ends, are put together to answers.
        unanswerable: whether "no answer" is an answer: that of a question for which it scores higher than
            the best piece of text, by the lowest of its windows' scores.
        lazy: tokenise windows when they are asked for.

    Raises:
        DataError: if the tokenizer does not fit.
    """

    family: ClassVar[str] = "question-answering"
    auto_class: ClassVar[str] = "AutoModelForQuestionAnswering"

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_length: int,
        stride: int,
        max_answer_length: int,
        best: int,
        unanswerable: bool,
        lazy: bool = False,
    ) -> None:
        super().__init__()
        # Cutting changes a tokenizer's own settings, which would then be saved beside the pruned model.
        self.tokenizer = copy.deepcopy(tokenizer)
        self.cutter = WindowCutter(self.name, self.tokenizer, max_length=max_length, stride=stride)
        self.max_answer_length, self.best, self.unanswerable = max_answer_length, best, unanswerable
        self._lazy = lazy

    @abstractmethod
    def count(self, split: Split) -> int:
        """Return how many questions one of ``splits`` has."""

    @abstractmethod
    def questions(self, split: Split, chosen: Sequence[int] | None = None) -> list[Question]:
        """Return the questions of a split, or those of the numbers ``chosen``.

        Any first N of all are a fair sample, and none is longer than the cutter's ``longest_question``.
        """

    def head_config(self) -> dict[str, Any]:
        """Return that the head has two outputs: a checkpoint of a classifier may say otherwise."""
        return {"num_labels": 2}

    def lengths(self, split: Split) -> Sequence[int]:
        """Return the tokens of each window, special tokens included, in the order of ``examples``."""
        windows = self.examples(split)
        return windows.lengths if isinstance(windows, LazyWindows) else [each.length for each in windows]

    def load(self, split: Split) -> list[Window] | LazyWindows:
        """Return the windows of a split, those of a question together."""
        count = self.count(split)
        if self._lazy:
            lazy = LazyWindows(self.cutter, lambda numbers: self.questions(split, numbers), count)
            tell_windows(self.name, split, count, len(lazy), lazy.lost)
            return lazy
        questions = self.questions(split)
        windows: list[Window] = []
        # One call for all would keep every encoding alive at once.
        for start in range(0, count, CHUNK):
            windows += self.cutter.cut(questions[start : start + CHUNK], start)
        tell_windows(self.name, split, count, len(windows), lost_answers(questions, windows))
        return windows

    def collate(self, examples: Sequence[Window]) -> dict[str, Tensor]:
        """Return a batch: ``attention_mask`` and what the tokenizer makes, ``[B, S]``; two labels, ``[B]``.

        All int64; S is the longest window's tokens. ``start_positions`` and ``end_positions`` are the first
        and last token of the answer, or both the CLS token where the window does not hold all of it.
        """
        return {
            **self._inputs(examples),
            "start_positions": torch.tensor([each.start for each in examples]),
            "end_positions": torch.tensor([each.end for each in examples]),
        }

    def predict(
        self,
        model: PreTrainedModel,
        examples: Sequence[Window],
        *,
        batch_size: int,
        num_beams: int = 1,
        progress: Progress | None = None,
    ) -> list[str]:
        """Return the answer that each window gives by itself, in the order given; ``""`` for none.

        The model answers in evaluation mode and is handed back in the mode it came in. Nothing is generated,
        so ``num_beams`` changes nothing.

        Raises:
            DataError: if the model does not fit the task.
        """
        candidates = self._candidates(model, examples, batch_size, progress)
        return [self._answer([each]) for each in candidates]

    def first(self, split: Split, limit: int | None) -> Sequence[Window]:
        """Return the windows of the questions that a split is scored by, the first ``limit`` or all."""
        # Windows stand in the order of their questions, so that no more are cut than are scored.
        last = self.count(split) if limit is None else limit
        return list(takewhile(lambda each: each.number < last, self.examples(split)))

    def answered(self, model: PreTrainedModel, examples: Sequence[Window], asking: Asking) -> Answered:
        """Return a model's answers to the questions of these windows.

        A question's input is its context and the question, an empty line between them; its tokens are those
        of all its windows.

        Raises:
            DataError: if the model does not fit the task.
        """
        candidates = self._candidates(model, examples, asking.batch_size, asking.progress)
        answers: list[str] = []
        questions: list[Question] = []
        lengths: list[int] = []
        pairs = zip(examples, candidates, strict=True)
        for _, group in groupby(pairs, key=lambda pair: pair[0].number):
            own = list(group)
            answers.append(self._answer([candidate for _, candidate in own]))
            questions.append(own[0][0].source)
            lengths.append(sum(window.length for window, _ in own))
        inputs = [f"{each.context}\n\n{each.question}" for each in questions]
        return Answered(inputs, [each.references for each in questions], lengths, answers)

    def check_model(self, model: PreTrainedModel) -> None:
        """Refuse a model that marks no answers, or has too small a vocabulary or too few positions.

        Raises:
            DataError: if so.
        """
        if "start_positions" not in inspect.signature(model.forward).parameters:
            raise DataError(
                f"Task {self.name}: {type(model).__name__} does not mark answers in a text. Use a model of "
                f"{self.auto_class} that was trained on such questions, or train one with `prunekit "
                "finetune`."
            )
        check_vocabulary(self.name, self.tokenizer, model)
        positions = getattr(model.config, "max_position_embeddings", None)
        if positions is not None and self.cutter.max_length > positions:
            raise DataError(
                f"Task {self.name}: windows may have {self.cutter.max_length} tokens, but the model "
                f"only {positions} positions. Set task.max_length to at most {positions}, and task.stride to "
                "about a third of that."
            )

    def _inputs(self, windows: Sequence[Window]) -> dict[str, Tensor]:
        padding = {
            "input_ids": self.tokenizer.pad_token_id,
            "token_type_ids": self.tokenizer.pad_token_type_id,
        }
        batch = {}
        for name in windows[0].features:
            rows = [torch.frombuffer(each.features[name], dtype=torch.int32) for each in windows]
            batch[name] = pad_sequence(rows, True, padding[name]).long()
        masks = [torch.ones(each.length, dtype=torch.long) for each in windows]
        return {**batch, "attention_mask": pad_sequence(masks, True)}

    def _candidates(
        self, model: PreTrainedModel, windows: Sequence[Window], batch_size: int, progress: Progress | None
    ) -> list[Candidate]:
        self.check_model(model)
        found: dict[int, Candidate] = {}

        def answer(chosen: list[int]) -> list[str]:
            best = self._best_spans(model, [windows[index] for index in chosen])
            found.update(zip(chosen, best, strict=True))
            return [each.text for each in best]

        lengths = [each.length for each in windows]
        answers_in_batches(self.name, model, lengths, answer, batch_size=batch_size, progress=progress)
        return [found[index] for index in range(len(windows))]

    def _answer(self, candidates: Sequence[Candidate]) -> str:
        """The answer of a question, from those of its windows."""
        best = max(candidates, key=lambda each: each.score)
        if self.unanswerable and min(each.null for each in candidates) > best.score:
            return ""
        return best.text

    @torch.inference_mode()
    def _best_spans(self, model: PreTrainedModel, windows: Sequence[Window]) -> list[Candidate]:
        inputs = {name: tensor.to(model.device) for name, tensor in self._inputs(windows).items()}
        output = model(**inputs)
        starts, ends = output.start_logits.float().cpu(), output.end_logits.float().cpu()  # [B, S]
        nulls = torch.tensor([[each.null] for each in windows])  # [B, 1]
        null_scores = starts.gather(1, nulls) + ends.gather(1, nulls)  # [B, 1]
        positions = torch.arange(starts.shape[1])
        first = torch.tensor([[each.first] for each in windows])  # [B, 1]
        behind = first + torch.tensor([[len(each.begins)] for each in windows])
        outside = (positions < first) | (positions >= behind)  # [B, S]
        count = min(self.best, starts.shape[1])
        best_starts, at_start = starts.masked_fill(outside, -torch.inf).topk(count)  # [B, K]
        best_ends, at_end = ends.masked_fill(outside, -torch.inf).topk(count)
        tokens = at_end[:, None, :] - at_start[:, :, None] + 1  # [B, K, K]
        sums = best_starts[:, :, None] + best_ends[:, None, :]
        allowed = (tokens >= 1) & (tokens <= self.max_answer_length)
        values, places = sums.masked_fill(~allowed, -torch.inf).flatten(1).max(1)  # [B]
        candidates = []
        for row, (window, value, place) in enumerate(
            zip(windows, values.tolist(), places.tolist(), strict=True)
        ):
            text = ""
            if value > -torch.inf:
                start, end = at_start[row, place // count], at_end[row, place % count]
                text = window.text(int(start), int(end))
            candidates.append(Candidate(text, value, float(null_scores[row])))
        return candidates
