"""Telling that texts were cut off: a model that never saw their ends answers for it."""

from __future__ import annotations

import logging

from prunekit.tasks.base import Split

_log = logging.getLogger(__name__)


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
