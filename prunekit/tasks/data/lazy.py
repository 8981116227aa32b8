"""Sequences whose items are made when they are asked for: the texts and examples of streamed data."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Generic, TypeVar, overload

CHUNK = 256
"""Items made at once where all are asked for in turn."""

Text = TypeVar("Text")
Example = TypeVar("Example")
Made = tuple[list[Example], tuple[int, ...]]
"""Examples, and how many of their parts were cut off, part by part."""


class LazyTexts(Sequence[Text]):
    """Texts that are read when they are asked for; a slice of them is read when its items are.

    Args:
        read: returns the texts of these rows.
        rows: which, in which order.
    """

    def __init__(self, read: Callable[[Sequence[int]], list[Text]], rows: Sequence[int]) -> None:
        self._read, self._rows = read, rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, key: int) -> Text: ...

    @overload
    def __getitem__(self, key: slice) -> LazyTexts[Text]: ...

    def __getitem__(self, key: int | slice) -> Text | LazyTexts[Text]:
        if isinstance(key, slice):
            return LazyTexts(self._read, self._rows[key])
        return self._read([self._rows[key]])[0]

    def __iter__(self) -> Iterator[Text]:
        for chunk in self.chunks():
            yield from chunk

    def chunks(self) -> Iterator[list[Text]]:
        """Yield all texts, ``CHUNK`` at a time."""
        for start in range(0, len(self), CHUNK):
            yield self._read(self._rows[start : start + CHUNK])

    def take(self, indices: Sequence[int]) -> list[Text]:
        """Return the texts at these indices."""
        return self._read([self._rows[index] for index in indices])


class LazyExamples(Sequence[Example], Generic[Text, Example]):
    """Examples that are made of texts when they are asked for; a slice of them is made when its items are.

    Args:
        texts: what they are made of.
        make: returns the examples of some texts, and how much of them was cut off.
        length: returns the tokens of an example.
        told: called after each pass over all of them, with what was cut off and the number of examples.
    """

    def __init__(
        self,
        texts: LazyTexts[Text],
        make: Callable[[Sequence[Text]], Made[Example]],
        length: Callable[[Example], int],
        told: Callable[[tuple[int, ...], int], None],
    ) -> None:
        self._texts, self._make, self._length, self._told = texts, make, length, told

    def __len__(self) -> int:
        return len(self._texts)

    @overload
    def __getitem__(self, key: int) -> Example: ...

    @overload
    def __getitem__(self, key: slice) -> LazyExamples[Text, Example]: ...

    def __getitem__(self, key: int | slice) -> Example | LazyExamples[Text, Example]:
        if isinstance(key, slice):
            return LazyExamples(self._texts[key], self._make, self._length, self._told)
        return self._make([self._texts[key]])[0][0]

    def __getitems__(self, indices: Sequence[int]) -> list[Example]:
        """Return the examples at these indices, made together: what torch's ``DataLoader`` asks for."""
        return self._make(self._texts.take(indices))[0]

    def __iter__(self) -> Iterator[Example]:
        cut: list[int] = []
        for texts in self._texts.chunks():
            examples, more = self._make(texts)
            cut = [sum(pair) for pair in zip(cut or [0] * len(more), more, strict=True)]
            yield from examples
        self._told(tuple(cut), len(self))

    @cached_property
    def lengths(self) -> Sequence[int]:
        """The tokens of each example, found in one pass when they are first asked for."""
        return _Lengths(self, self._length)


class _Lengths(Sequence[int]):
    """Lengths, 4 bytes each; a slice of them that is asked for first is measured alone."""

    def __init__(self, examples: LazyExamples[Text, Example], length: Callable[[Example], int]) -> None:
        self._examples, self._length = examples, length

    @cached_property
    def _all(self) -> array[int]:
        return array("i", map(self._length, self._examples))

    def __len__(self) -> int:
        return len(self._examples)

    @overload
    def __getitem__(self, key: int) -> int: ...

    @overload
    def __getitem__(self, key: slice) -> Sequence[int]: ...

    def __getitem__(self, key: int | slice) -> int | Sequence[int]:
        if isinstance(key, slice) and "_all" not in self.__dict__:
            part = self._examples[key]
            if len(part) < len(self):
                return array("i", map(self._length, part))
        return self._all[key]

    def __iter__(self) -> Iterator[int]:
        return iter(self._all)
