"""The evaluations of several tasks as one."""

from __future__ import annotations

import math
from collections.abc import Mapping

from prunekit.tasks.base import Evaluation


def combined(parts: Mapping[str, Evaluation], leading: Mapping[str, str], mean: str) -> Evaluation:
    """Return several tasks' evaluations as one of all their examples, a task's after the other's.

    An example's influence on its own task's metric is that among its task's examples, times all examples over
    those, and 0 on the metrics of the others; on the mean it is the mean over the tasks. So the squares of
    each still sum to (standard error * examples) ** 2.

    Args:
        parts: by label; metrics are named ``<label>/<metric>``.
        leading: by label, the metric that is averaged.
        mean: what the plain mean of the leading metrics is named.
    """
    first = [(part.metrics, leading[label]) for label, part in parts.items()]
    metrics: dict[str, float] = {
        mean: math.fsum(each[name] for each, name in first) / len(first),
        f"{mean}_stderr": math.hypot(*(each[f"{name}_stderr"] for each, name in first)) / len(first),
    }
    for label, part in parts.items():
        metrics |= {f"{label}/{name}": value for name, value in part.metrics.items()}
    each = list(parts.values())
    return Evaluation(
        metrics={**metrics, "n": sum(part.metrics["n"] for part in each)},
        inputs=[text for part in each for text in part.inputs],
        references=[options for part in each for options in part.references],
        answers=[answer for part in each for answer in part.answers],
        lengths=[length for part in each for length in part.lengths],
        influences=_influences(parts, leading, mean),
    )


def _influences(
    parts: Mapping[str, Evaluation], leading: Mapping[str, str], mean: str
) -> dict[str, list[float]]:
    total = sum(len(part.answers) for part in parts.values())
    found: dict[str, list[float]] = {}
    before = 0
    for label, part in parts.items():
        own = len(part.answers)
        for name, influences in part.influences.items():
            scaled = [each * total / own for each in influences]
            found[f"{label}/{name}"] = [0.0] * before + scaled + [0.0] * (total - before - own)
        before += own
    averaged = [f"{label}/{leading[label]}" for label in parts]
    if not all(name in found for name in averaged):
        return found
    columns = zip(*(found[name] for name in averaged), strict=True)
    return {mean: [math.fsum(column) / len(averaged) for column in columns], **found}
