"""Where two models' answers to the same examples differ, and what that costs: example by example."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from prunekit.comparison.paired import differences, intervals
from prunekit.errors import ComparisonError

Answer = Mapping[str, Any]
"""A line of an answers file: ``input``, ``references``, ``answer``, ``length`` and ``influences``."""
Outcome = Literal["broken", "fixed", "same"]
"""Right before and wrong now, the reverse, or neither; worse, better or neither where nothing tells right."""
LENGTH_BUCKETS = 5
EXAMPLES_A_CLASS = 5
"""Where a reference has fewer examples than this on average, references are texts and no classes."""

_Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Side:
    """One of the two models.

    Attributes:
        name: as people know it.
        metrics: each metric's value.
        answers: its answers, an entry an example.
    """

    name: str
    metrics: Mapping[str, float]
    answers: Sequence[Answer]


def difference(
    base: Side, pruned: Side, *, metric: str, higher_is_better: bool, seed: int = 0
) -> dict[str, Any]:
    """What changes from one model to the other, by example.

    An example's change is the difference of its two pseudo-values, the metric's value plus the example's
    influence on it: for a mean of scores that is the difference of its scores, and for any metric the mean
    change is the difference of the two values.

    Args:
        base: the model to start from.
        pruned: the model to judge.
        metric: the primary metric.
        higher_is_better: its direction.
        seed: of the bootstrap.

    Returns:
        ``metric``, ``higher_is_better``, ``n``; ``base`` and ``pruned`` (``name`` and ``value``);
        ``difference`` (``difference``, ``low``, ``high``: its 95 % interval, and ``verdict``);
        ``disagreement`` (``count`` of answers that differ, ``rate`` and its ``stderr`` in percent); ``flips``
        (``broken``, ``fixed``, ``same``, and ``by``: the metric that tells right from wrong, none where only
        better and worse are told apart); ``by_class`` and ``by_length`` (rows, or none: see `_by_class` and
        `_by_length`); ``regressions``: every example whose answer changed for the worse, worst first, with
        ``index`` in the split, ``input``, ``references``, the answers ``base`` and ``pruned``, ``length`` in
        tokens and ``change``.

    Raises:
        ComparisonError: if the two did not see the same examples, there are fewer than two, or the metric
            tells nothing of single ones.
    """
    _check_same(base, pruned)
    before, after = _pseudo_values(base, metric), _pseudo_values(pruned, metric)
    if before is None or after is None:
        raise ComparisonError(
            f"{metric} does not tell what single examples do to it, so its difference cannot be traced to "
            "them. Put another metric first in the task's `metrics`."
        )
    change = differences({seed: after}, {seed: before})
    (interval,) = intervals([change], seed=seed)
    change = change[0]
    differs = np.array([a["answer"] != b["answer"] for a, b in _pairs(base, pruned)])
    gains = change if higher_is_better else -change
    judge, outcomes = _outcomes(base, pruned, metric, higher_is_better, np.where(differs, gains, 0.0))
    rate = float(differs.mean())
    return {
        "metric": metric,
        "higher_is_better": higher_is_better,
        "n": len(change),
        "base": {"name": base.name, "value": base.metrics[metric]},
        "pruned": {"name": pruned.name, "value": pruned.metrics[metric]},
        "difference": {**vars(interval), "verdict": interval.verdict(higher_is_better=higher_is_better)},
        "disagreement": {
            "count": int(differs.sum()),
            "rate": 100 * rate,
            "stderr": 100 * float(np.sqrt(rate * (1 - rate) / len(change))),
        },
        "flips": {"by": judge, **_counted(outcomes, range(len(outcomes)))},
        "by_class": _by_class(base, change, outcomes),
        "by_length": _by_length(base, change, outcomes),
        "regressions": _regressions(base, pruned, change, differs & (gains < 0), gains),
    }


def _pairs(base: Side, pruned: Side) -> Iterator[tuple[Answer, Answer]]:
    return zip(base.answers, pruned.answers, strict=True)


def _check_same(base: Side, pruned: Side) -> None:
    counts = [len(side.answers) for side in (base, pruned)]
    advice = "Compare answers to the same examples: give --task or --recipe, and both models are evaluated."
    if counts[0] != counts[1]:
        raise ComparisonError(
            f"{base.name} answered {counts[0]:,} examples and {pruned.name} {counts[1]:,}. {advice}"
        )
    if counts[0] < 2:
        raise ComparisonError(
            f"{base.name} and {pruned.name} answered {counts[0]} examples; a difference has a spread "
            "from two on. Raise --limit."
        )
    for number, pair in enumerate(_pairs(base, pruned)):
        for key in ("input", "references"):
            if pair[0][key] != pair[1][key]:
                raise ComparisonError(
                    f"{base.name} and {pruned.name} did not see the same examples: the {key} of example "
                    f"{number} differs. {advice}"
                )


def _pseudo_values(side: Side, metric: str) -> _Numbers | None:
    """The metric's value plus each example's influence ``[N]``; none where the metric gives no influences."""
    if metric not in side.metrics or any(metric not in row["influences"] for row in side.answers):
        return None
    return side.metrics[metric] + np.array([row["influences"][metric] for row in side.answers], dtype=float)


def _outcomes(
    base: Side,
    pruned: Side,
    metric: str,
    higher_is_better: bool,
    gains: _Numbers,
) -> tuple[str | None, list[Outcome]]:
    """What becomes of each example, and the metric that decides it, if one tells right from wrong.

    ``gains``, by which it is decided else, are 0 where the answers agree: a metric of the whole split, such
    as a ratio of sums, moves every example's share a little, but only a changed answer is a change.
    """
    for name in dict.fromkeys([metric, *base.metrics]):
        given = higher_is_better if name == metric else None
        right = [_right(side, name, given) for side in (base, pruned)]
        if right[0] is not None and right[1] is not None:
            return name, [_outcome(int(b) - int(a)) for a, b in zip(*right, strict=True)]
    return None, [_outcome(gain) for gain in gains]


def _outcome(gain: float) -> Outcome:
    return "fixed" if gain > 0 else "broken" if gain < 0 else "same"


def _right(side: Side, metric: str, higher_is_better: bool | None) -> NDArray[np.bool_] | None:
    """Whether each example counts as right, where the metric scores each 0 or 1, or 0 or 100; else none.

    A direction that is not given is read from the answers that equal a reference: those are right.
    """
    values = _pseudo_values(side, metric)
    if values is None:
        return None
    top = 100.0 if values.max() > 2 else 1.0
    high = np.isclose(values, top, atol=1e-6)
    if not np.all(high | np.isclose(values, 0.0, atol=1e-6)):
        return None
    if higher_is_better is None:
        exact = [
            high[number] for number, row in enumerate(side.answers) if row["answer"] in row["references"]
        ]
        if len(set(exact)) != 1:
            return None
        higher_is_better = bool(exact[0])
    return high if higher_is_better else ~high


def _counted(outcomes: Sequence[Outcome], members: Sequence[int]) -> dict[str, int]:
    found = [outcomes[member] for member in members]
    return {name: found.count(name) for name in ("broken", "fixed", "same")}


def _row(change: _Numbers, outcomes: Sequence[Outcome], members: Sequence[int]) -> dict[str, Any]:
    chosen = change[list(members)]
    stderr = float(chosen.std(ddof=1) / np.sqrt(len(chosen))) if len(chosen) > 1 else None
    return {
        "n": len(chosen),
        **_counted(outcomes, members),
        "change": float(chosen.mean()),
        "stderr": stderr,
    }


def _by_class(base: Side, change: _Numbers, outcomes: Sequence[Outcome]) -> list[dict[str, Any]] | None:
    """A row a class, that is an example's first reference, by what broke; none where references are texts.

    Returns:
        ``class``, ``n``, ``broken``, ``fixed``, ``same``, the mean ``change`` and its ``stderr``.
    """
    members: dict[str, list[int]] = {}
    for number, row in enumerate(base.answers):
        members.setdefault(row["references"][0], []).append(number)
    if len(members) < 2 or len(members) * EXAMPLES_A_CLASS > len(base.answers):
        return None
    rows = [{"class": name, **_row(change, outcomes, found)} for name, found in members.items()]
    return sorted(rows, key=lambda row: (row["fixed"] - row["broken"], row["class"]))


def _by_length(base: Side, change: _Numbers, outcomes: Sequence[Outcome]) -> list[dict[str, Any]] | None:
    """A row a range of input tokens, ranges of about as many examples; none where all are of one length.

    Returns:
        ``shortest`` and ``longest`` tokens in the range, and what a class has.
    """
    lengths = np.array([row["length"] for row in base.answers])
    edges = np.unique(np.quantile(lengths, np.arange(1, LENGTH_BUCKETS) / LENGTH_BUCKETS, method="lower"))
    buckets = np.searchsorted(edges, lengths)  # an example as long as an edge is below it
    rows = []
    for bucket in np.unique(buckets):
        members = np.flatnonzero(buckets == bucket)
        found = {"shortest": int(lengths[members].min()), "longest": int(lengths[members].max())}
        rows.append({**found, **_row(change, outcomes, members.tolist())})
    return rows if len(rows) > 1 else None


def _regressions(
    base: Side, pruned: Side, change: _Numbers, regressed: NDArray[np.bool_], gains: _Numbers
) -> list[dict[str, Any]]:
    """The regressed examples, worst first."""
    order = [int(number) for number in np.argsort(gains, kind="stable") if regressed[number]]
    return [
        {
            "index": number,
            "input": base.answers[number]["input"],
            "references": list(base.answers[number]["references"]),
            "base": base.answers[number]["answer"],
            "pruned": pruned.answers[number]["answer"],
            "length": base.answers[number]["length"],
            "change": float(change[number]),
        }
        for number in order
    ]
