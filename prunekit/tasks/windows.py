"""Questions and their contexts in windows that fit a model and know where their tokens stand in the text."""

from __future__ import annotations

import bisect
import logging
from array import array
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple, overload

from prunekit.errors import DataError
from prunekit.tasks.base import Split

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHUNK = 512
"""Questions tokenised in one call."""

_log = logging.getLogger(__name__)


class Question(NamedTuple):
    """A question about a text.

    Attributes:
        question: what is asked.
        context: where the answer stands.
        answers: the right answers; none if the context does not hold one. The first is trained on.
        start: the character of the context at which the first answer begins; none without answers.
        references: what predictions are scored against, at least one; ``""`` for no answer.
    """

    question: str
    context: str
    answers: tuple[str, ...]
    start: int | None
    references: tuple[str, ...]


class Window(NamedTuple):
    """A question with as much of its context as fits, tokenised.

    Attributes:
        number: of the question, counted in its split.
        source: the question.
        features: int lists of equal length for each of the model's inputs, attention mask left out.
        first: position of the first token of the context.
        begins: for each token of the context here, the character at which it begins.
        ends: likewise the character behind it.
        null: position that stands for "no answer here", the tokenizer's CLS token.
        start: position of the answer's first token, or ``null`` if the answer is not wholly in the window.
        end: position of its last token, likewise.
    """

    number: int
    source: Question
    features: dict[str, array[int]]
    first: int
    begins: array[int]
    ends: array[int]
    null: int
    start: int
    end: int

    @property
    def length(self) -> int:
        """Tokens, special ones included."""
        return len(self.features["input_ids"])

    @property
    def has_answer(self) -> bool:
        """Whether the answer that is trained on stands here."""
        return self.start != self.null

    def text(self, start: int, end: int) -> str:
        """Return the piece of the context from the token at ``start`` to that at ``end``, as it stands."""
        return self.source.context[self.begins[start - self.first] : self.ends[end - self.first]]


class WindowCutter:
    """Cuts contexts into windows that overlap, question before each, as the tokenizer's overflow has them.

    Args:
        task: named in messages.
        tokenizer: a fast one, which knows the characters of its tokens, with a CLS token. Its settings
            change, so give a copy.
        max_length: tokens of a window, question and special tokens included.
        stride: tokens of the context that a window shares with the one before.

    Raises:
        DataError: if it is not fast, or has no CLS token.
    """

    def __init__(
        self, task: str, tokenizer: PreTrainedTokenizerBase, *, max_length: int, stride: int
    ) -> None:
        self.task, self.tokenizer, self.max_length, self.stride = task, tokenizer, max_length, stride
        if not getattr(tokenizer, "is_fast", False):
            raise DataError(
                f"Task {task} needs a tokenizer that tells which characters a token stands for, but found "
                f"{type(tokenizer).__name__}. Use a model with a fast tokenizer (tokenizer.json beside it)."
            )
        if tokenizer.cls_token_id is None or tokenizer.cls_token_id not in tokenizer("")["input_ids"]:
            raise DataError(
                f"Task {task} takes the CLS token for 'no answer here', but {type(tokenizer).__name__} adds "
                "none. Use a model whose tokenizer does, such as BERT."
            )
        self.longest_question = max_length - tokenizer.num_special_tokens_to_add(pair=True) - stride - 1
        """Tokens of a question beside which each window still holds new context."""

    def question_lengths(self, texts: Sequence[str]) -> list[int]:
        """Return the tokens of questions, special tokens left out."""
        found = self.tokenizer(list(texts), add_special_tokens=False, verbose=False, truncation=False)
        return [len(ids) for ids in found["input_ids"]]

    def cut(self, questions: Sequence[Question], first: int) -> list[Window]:
        """Return the windows of questions that are numbered from ``first``, in their order.

        Every question must fit, see ``longest_question``.
        """
        encoded = self.tokenizer(
            [each.question for each in questions],
            [each.context for each in questions],
            truncation="only_second",
            max_length=self.max_length,
            stride=self.stride,
            return_overflowing_tokens=True,
            return_offsets_mapping=True,
            return_attention_mask=False,
            verbose=False,
        )
        offsets, owners = encoded.pop("offset_mapping"), encoded.pop("overflow_to_sample_mapping")
        windows = []
        for row, owner in enumerate(owners):
            places = [index for index, part in enumerate(encoded.sequence_ids(row)) if part == 1]
            features = {name: array("i", rows[row]) for name, rows in encoded.items()}
            null = features["input_ids"].index(self.tokenizer.cls_token_id)
            begins = array("i", [offsets[row][place][0] for place in places])
            ends = array("i", [offsets[row][place][1] for place in places])
            at = places[0] if places else 0
            found = _tokens_of_answer(
                questions[owner],
                begins,
                ends,
                is_first=row == 0 or owners[row - 1] != owner,
                is_last=row + 1 == len(owners) or owners[row + 1] != owner,
            )
            start, end = (null, null) if found is None else (at + found[0], at + found[1])
            windows.append(
                Window(first + owner, questions[owner], features, at, begins, ends, null, start, end)
            )
        return windows


def _tokens_of_answer(
    question: Question, begins: Sequence[int], ends: Sequence[int], *, is_first: bool, is_last: bool
) -> tuple[int, int] | None:
    """First and last token of the answer among those of a window; none if it is not wholly there."""
    if question.start is None:
        return None
    answer = question.answers[0]
    # What is written around an answer, such as a blank, belongs to no token.
    begin = question.start + len(answer) - len(answer.lstrip())
    end = question.start + len(answer.rstrip())
    first, last = bisect.bisect_right(ends, begin), bisect.bisect_left(begins, end) - 1
    if first > last:
        return None
    # Characters before the first token of all, or behind the last, are none that a window could cut off.
    is_cut = (begins[0] > begin and not is_first) or (ends[-1] < end and not is_last)
    return None if is_cut else (first, last)


class LazyWindows(Sequence[Window]):
    """Windows that are cut again whenever they are asked for: only how many and how long they are is kept.

    Args:
        cutter: cuts them.
        questions: the questions of these numbers.
        count: how many questions there are.
    """

    def __init__(
        self, cutter: WindowCutter, questions: Callable[[Sequence[int]], Sequence[Question]], count: int
    ) -> None:
        self._cutter, self._questions = cutter, questions
        self.lengths = array("i")
        """Tokens of each window."""
        self.lost = 0
        """Questions of which no window holds the whole answer."""
        counts = array("i", [0]) * count
        for start in range(0, count, CHUNK):
            chunk = questions(range(start, min(start + CHUNK, count)))
            windows = cutter.cut(chunk, start)
            self.lost += lost_answers(chunk, windows)
            for window in windows:
                self.lengths.append(window.length)
                counts[window.number] += 1
        # A window's question is the one before which fewer windows end.
        self._ends = array("q", accumulate(counts))
        self._last: tuple[int, list[Window]] = (-1, [])

    def __len__(self) -> int:
        return len(self.lengths)

    @overload
    def __getitem__(self, index: int) -> Window: ...

    @overload
    def __getitem__(self, index: slice) -> list[Window]: ...

    def __getitem__(self, index: int | slice) -> Window | list[Window]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        number = bisect.bisect_right(self._ends, place)
        if self._last[0] != number:
            self._last = number, self._cutter.cut(self._questions([number]), number)
        windows = self._last[1]
        return windows[place - self._ends[number] + len(windows)]

    def __iter__(self) -> Iterator[Window]:
        return (self[index] for index in range(len(self)))


def lost_answers(questions: Sequence[Question], windows: Sequence[Window]) -> int:
    """Return how many questions have an answer that none of their windows holds as a whole."""
    held = {each.number for each in windows if each.has_answer}
    return sum(1 for each in questions if each.answers) - len(held)


def tell_windows(task: str, split: Split, questions: int, windows: int, lost: int) -> None:
    """Log how many windows there are, and a warning if answers fit into none of theirs."""
    _log.info("Task %s, %s: %s questions make %s windows.", task, split, f"{questions:,}", f"{windows:,}")
    if lost:
        _log.warning(
            "Task %s, %s: of %s of %s questions no window holds the whole answer, and training takes them "
            "for ones without. Raise max_length, or stride.",
            task,
            split,
            f"{lost:,}",
            f"{questions:,}",
        )
