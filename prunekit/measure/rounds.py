"""Rounds in which every contestant has its turn, in changing order."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from prunekit.measure.contestants import Entry
from prunekit.measure.failures import ROW_FAILURES, describe, free_memory
from prunekit.measure.timing import Instruments
from prunekit.progress import Progress
from prunekit.recipe_models import SpeedSpec


def run_rounds(
    entries: Sequence[Entry],
    instruments: Instruments,
    spec: SpeedSpec,
    *,
    parts: bool,
    progress: Progress | None,
    label: str = "Timing",
) -> None:
    """Fill every entry's ``samples``, one a round; the first ``spec.warmup`` rounds are thrown away.

    An entry that fails keeps its ``error`` and misses the rest; the others go on. The rounds end early where
    the reference, one of the first two entries, has failed.
    """
    total = spec.warmup + spec.rounds
    bars = progress or Progress(quiet=True)
    with torch.inference_mode(), bars.task(label, total=total) as advance:
        for number in range(total):
            for index in turn_order(len(entries), number):
                entry = entries[index]
                if entry.error:
                    continue
                _take(entry, instruments, parts=parts, keep=number >= spec.warmup)
                if entry.error and index < 2:
                    return
            advance(1)


def turn_order(count: int, number: int) -> list[int]:
    """Order of the contestants in one round.

    A plain rotation would let a model always run after the same other one, with what that one left in the
    caches. Rows of a Williams square (0, n-1, 1, n-2, ... shifted by the round), read backwards in every
    other cycle, put each model behind each other one equally often.
    """
    zigzag = [i // 2 if i % 2 == 0 else count - 1 - i // 2 for i in range(count)]
    row = [(i + number) % count for i in zigzag]
    return row[::-1] if number // count % 2 else row


def _take(entry: Entry, instruments: Instruments, *, parts: bool, keep: bool) -> None:
    try:
        taken = entry.sample(instruments, parts=parts)
        if keep:
            entry.samples.append(taken)
    except ROW_FAILURES as error:
        entry.error = describe(error)
    if entry.error:
        free_memory()
