"""Whether runs may stand in one table: they saw the same examples, scored in the same way."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from prunekit.errors import ComparisonError

TOLERANCE = 1e-6
"""Relative; figures of one dense model that differ by less are equal but for rounding."""
_WORDS = {
    "primary": "primary metric",
    "higher_is_better": "direction of the primary metric",
    "examples": "examples (sha256)",
    "split": "split",
    "limit": "limit",
    "num_beams": "beams",
}
_DENSE = "dense model"

Report = Mapping[str, Any]
_Difference = tuple[str, Any, Any]


def check_comparable(reports: Sequence[Report]) -> None:
    """Refuse runs whose figures do not mean the same.

    Args:
        reports: contents of ``report.json``, one a run, each with ``run``, the folder.

    Raises:
        ComparisonError: if a run does not say what it was evaluated on, or two differ in examples, split,
            limit, beams, metrics or their versions, primary metric, or dense model; every difference from
            the first run is named.
    """
    _refuse_silent([report for report in reports if not (report.get("quality") or {}).get("evaluated")])
    found = []
    for other in reports[1:]:
        differing = list(_differences(reports[0], other))
        if differing:
            found.append(f"{_run(reports[0])} and {_run(other)} differ:")
            found += [f"  {what}: {_say(here)} and {_say(there)}" for what, here, there in differing]
    if found:
        raise ComparisonError("\n".join(["these runs cannot be compared.", *found, _advice(found)]))


def _refuse_silent(silent: Sequence[Report]) -> None:
    if not silent:
        return
    lines = ["these runs do not say which examples and metric versions they were scored on. Make them anew:"]
    for report in silent:
        folder = str(report.get("run", "RUN"))
        label = ["--method", str(report["label"])] if report.get("label") else []
        command = ["prunekit", "prune", *label, f"{folder}/recipe.yaml", "--out", f"{folder}-again"]
        lines.append(f"  {folder}: {shlex.join(command)}")
    raise ComparisonError("\n".join(lines))


def _differences(first: Report, other: Report) -> Iterator[_Difference]:
    here, there = first["quality"], other["quality"]
    sides = [{**quality, **quality["evaluated"]} for quality in (here, there)]
    for key, what in _WORDS.items():
        mine, theirs = (side.get(key) for side in sides)
        if mine != theirs:
            yield what, mine, theirs
    yield from _of_names("data, {}", first.get("data") or {}, other.get("data") or {})
    yield from _of_names("version of {}", here["evaluated"]["metrics"], there["evaluated"]["metrics"])
    yield from _of_dense(first, other)


def _of_dense(first: Report, other: Report) -> Iterator[_Difference]:
    key = "base_config_sha256"
    if first.get(key) != other.get(key):
        yield f"{_DENSE}'s configuration (sha256)", first.get(key), other.get(key)
    here, there = (report["quality"]["dense"] for report in (first, other))
    yield from _of_names(f"{_DENSE}'s {{}}", here, there)


def _of_names(what: str, here: Mapping[str, Any], there: Mapping[str, Any]) -> Iterator[_Difference]:
    """Values that differ by more than rounding, and those that only one side has."""
    for name in dict.fromkeys([*here, *there]):
        values = (here.get(name), there.get(name))
        if not _equal(*values):
            yield what.format(name), *values


def _equal(here: Any, there: Any) -> bool:
    if isinstance(here, float) and isinstance(there, int | float):
        return math.isclose(here, there, rel_tol=TOLERANCE, abs_tol=1e-12)
    return bool(here == there)


def _run(report: Report) -> str:
    return str(report.get("run", report.get("label", "a run")))


def _say(value: Any) -> str:
    return "none" if value is None else str(value)


def _advice(found: Sequence[str]) -> str:
    same = "the same task, data, evaluate section and prunekit version"
    if any(line.startswith(f"  {_DENSE}") for line in found):
        same += ", and the same dense model (name it under `teacher:` so that it is not trained anew)"
    return f"Run them again with {same}, or leave out the ones that differ."
