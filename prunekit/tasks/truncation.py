"""Telling that texts were cut off: a model that never saw their ends answers for it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from prunekit.tasks.base import Split

_log = logging.getLogger(__name__)


class Teller:
    """Logs one warning a split, and another only if more of it was looked at since."""

    def __init__(self) -> None:
        self._looked_at: dict[Split, int] = {}

    def tell(
        self, task: str, split: Split, cut: Sequence[int], total: int, longest: Mapping[str, int | None]
    ) -> bool:
        """Warn of each kind of text that was longer than allowed and lost its end.

        Returns:
            Whether more of the split was looked at than before.

        Args:
            task: named in the warning.
            split: likewise.
            cut: how many texts of each kind were cut off.
            total: examples that were looked at.
            longest: tokens of the longest allowed, by what the warning calls the kind.
        """
        if total <= self._looked_at.get(split, 0):
            return False
        self._looked_at[split] = total
        for count, (what, allowed) in zip(cut, longest.items(), strict=True):
            tell_truncated(task, split, what, count, total, allowed)
        return True


def tell_truncated(task: str, split: Split, what: str, cut: int, total: int, longest: int | None) -> None:
    """Log one warning if any of a split's texts were longer than ``longest`` tokens and lost their ends."""
    if cut:
        _log.warning(
            "Task %s, %s: %s of %s %s are longer than %s tokens and were cut off there.",
            task,
            split,
            f"{cut:,}",
            f"{total:,}",
            what,
            longest,
        )
