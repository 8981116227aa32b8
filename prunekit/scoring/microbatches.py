"""A calibration batch in parts of similar length, so that padding costs next to nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel

IGNORED_LABEL = -100
Batch = Mapping[str, Tensor]
"""What a task's ``collate`` gives, ``[B, ...]`` each."""


@dataclass(frozen=True)
class Part:
    """Some examples of a batch, cut to the longest of them.

    Args:
        inputs: arguments of the model, without labels, on the model's device.
        rows: which examples of the batch these are, ``[b]``.
    """

    inputs: Mapping[str, Tensor]
    rows: Tensor


@dataclass(frozen=True)
class SplitBatch:
    """A batch in parts.

    Args:
        parts: together every example once.
        counted: for each stack the tokens that are not padding, ``[B, T]`` in the batch's own order; a stack
            without an entry has no padding.
        answers: positions of the logits that count, ``[B, T]``; none where an example has one answer.
    """

    parts: tuple[Part, ...]
    counted: Mapping[str, Tensor]
    answers: Tensor | None


def split_batch(
    model: PreTrainedModel, batch: Batch, *, trim: bool = True, call_tokens: int = 16
) -> SplitBatch:
    """Group the examples of a batch by length.

    Padding is dropped on the right only, so that positions stay what they are. Groups are chosen such that
    tokens computed, padding included, plus ``call_tokens`` a group are fewest.

    Args:
        model: on its device.
        batch: as a task collates it.
        trim: if false, the whole batch is one part at its full length, and padding counts like anything.
        call_tokens: what one more call of the model costs, in tokens.
    """
    device = model.device
    inputs = {name: tensor.to(device) for name, tensor in batch.items() if name != "labels"}
    labels = batch.get("labels")
    mask = inputs.get("attention_mask")
    counted = {} if mask is None else {"encoder": mask != 0}
    answers = None
    if "decoder_input_ids" in inputs or _writes(model, labels):
        if labels is not None and labels.ndim == 2:
            # Anything of the model: transformers' own shift differs between T5 and BART.
            maker: Any = model
            inputs.setdefault(
                "decoder_input_ids", maker.prepare_decoder_input_ids_from_labels(labels.to(device))
            )
            counted["decoder"] = answers = (labels != IGNORED_LABEL).to(device)
        elif "decoder_attention_mask" in inputs:
            counted["decoder"] = answers = inputs["decoder_attention_mask"] != 0
    elif hasattr(model.base_model, "decoder") and mask is not None:
        counted["decoder"] = counted["encoder"]  # the decoder reads the input, one position later
    count = next(iter(inputs.values())).shape[0]
    if not trim or not counted:
        rows = torch.arange(count, device=device)
        return SplitBatch((Part(inputs, rows),), counted if trim else {}, answers if trim else None)
    widths = {stack: _widths(tokens) for stack, tokens in counted.items()}
    totals = sum(widths.values())
    assert isinstance(totals, Tensor)
    order = torch.argsort(totals, descending=True, stable=True)
    columns = [each[order].tolist() for each in widths.values()]
    parts = []
    for start, end in _groups(columns, call_tokens):
        rows = order[start:end]
        longest = {stack: int(each[rows].max()) for stack, each in widths.items()}
        parts.append(Part(_cut(inputs, rows, longest, mask), rows))
    return SplitBatch(tuple(parts), counted, answers)


def _writes(model: PreTrainedModel, labels: Tensor | None) -> bool:
    return labels is not None and labels.ndim == 2 and hasattr(model, "prepare_decoder_input_ids_from_labels")


def _widths(tokens: Tensor) -> Tensor:
    """Position after each row's last token, at least 1, ``[B]``."""
    positions = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)
    return (tokens * positions).amax(1).clamp_min(1)


def _cut(
    inputs: Mapping[str, Tensor], rows: Tensor, longest: Mapping[str, int], mask: Tensor | None
) -> dict[str, Tensor]:
    found = {}
    for name, tensor in inputs.items():
        chosen = tensor[rows]
        if name.startswith("decoder_"):
            chosen = chosen[:, : longest.get("decoder", tensor.shape[1])]
        elif mask is not None and tensor.shape[:2] == mask.shape:
            chosen = chosen[:, : longest["encoder"]]
        found[name] = chosen
    return found


def _groups(columns: Sequence[Sequence[int]], call_tokens: int) -> list[tuple[int, int]]:
    """Cuts of a sorted list that make the computed tokens fewest, by dynamic programming.

    Args:
        columns: for each stack the lengths of the examples, in sorted order.
        call_tokens: what a group costs beside its tokens.
    """
    count = len(columns[0])
    best, cut = [0], [0]
    for end in range(1, count + 1):
        longest = [0] * len(columns)
        options = []
        for start in range(end - 1, -1, -1):
            longest = [max(a, column[start]) for a, column in zip(longest, columns, strict=True)]
            options.append((best[start] + sum(longest) * (end - start) + call_tokens, start))
        cost, start = min(options)
        best.append(cost)
        cut.append(start)
    groups, end = [], count
    while end:
        groups.append((cut[end], end))
        end = cut[end]
    return groups[::-1]
