"""What mixing tasks takes: an order in which they alternate, and batches that become one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, overload

import torch
from torch import Tensor
from torch.nn.functional import pad

IGNORED_LABEL = -100


class Mixed(NamedTuple):
    """An example, and the label of the task that it belongs to."""

    task: str
    example: Any


class MixedExamples(Sequence[Mixed]):
    """The examples of several tasks, interleaved; each is asked for when it is needed.

    Args:
        parts: each task's examples.
        limit: take the first so many of each at most; all by default.
    """

    def __init__(self, parts: Mapping[str, Sequence[Any]], limit: int | None = None) -> None:
        self._labels, self._parts = list(parts), list(parts.values())
        self._part, self._index = interleaved([len(part) for part in self._parts], limit)

    def __len__(self) -> int:
        return len(self._part)

    @overload
    def __getitem__(self, index: int) -> Mixed: ...
    @overload
    def __getitem__(self, index: slice) -> list[Mixed]: ...
    def __getitem__(self, index: int | slice) -> Mixed | list[Mixed]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        part = int(self._part[index])
        return Mixed(self._labels[part], self._parts[part][int(self._index[index])])


def interleaved(sizes: Sequence[int], limit: int | None = None) -> tuple[Tensor, Tensor]:
    """Return the part, and the place in it, of each item of several parts that are spread evenly.

    Item ``i`` of ``n`` stands at ``(i + 1/2) / n`` of the way, so any first N items hold of each part its
    share of all, up to one item, and those in its own order.

    Args:
        sizes: of the parts.
        limit: take the first so many of each at most; all by default.

    Returns:
        Two int64 tensors ``[items]``.
    """
    taken = [size if limit is None else min(size, limit) for size in sizes]
    indices = [torch.arange(size) for size in taken]
    places = [(index + 0.5).double() / len(index) for index in indices]
    order = torch.cat(places).argsort(stable=True)
    parts = torch.repeat_interleave(torch.arange(len(taken)), torch.tensor(taken))
    return parts[order], torch.cat(indices)[order]


def joined(
    batches: Sequence[dict[str, Tensor]], order: Sequence[int], padding: Mapping[str, int]
) -> dict[str, Tensor]:
    """Return several batches as one, each tensor padded at its end to the longest.

    Args:
        batches: of the same names, each tensor ``[b, T]`` with a T of its own.
        order: the place in the result of each row, counted through the batches.
        padding: by name, what to pad with; where it says nothing -100 for ``labels``, and 0 for the rest.
    """
    # Of the rows, which one comes first, second, ...
    rows = torch.tensor(order).argsort()
    whole = {}
    for name in batches[0]:
        tensors = [batch[name] for batch in batches]
        longest = max(tensor.shape[1] for tensor in tensors)
        value = padding.get(name, IGNORED_LABEL if name == "labels" else 0)
        padded = [pad(tensor, (0, longest - tensor.shape[1]), value=value) for tensor in tensors]
        whole[name] = torch.cat(padded)[rows]
    return whole
