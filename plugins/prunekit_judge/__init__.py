"""A language model as the judge of answers to instructions, on an endpoint of the user's: ``llm-judge``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunekit.plugins import hookimpl

if TYPE_CHECKING:
    from prunekit.tasks.base import Metric


@hookimpl
def prunekit_register_metrics() -> list[Metric]:
    """Return the metric; the judge is asked when a task scores by it, and never before."""
    from prunekit_judge.metric import LLM_JUDGE

    return [LLM_JUDGE]
