"""Which runs make one row of a comparison, and what the row is called."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from prunekit.comparison.paired import Floats
from prunekit.errors import ComparisonError
from prunekit.suggest import did_you_mean

DENSE = "dense"
_NO_METRIC = re.compile(r"(^|/)n$|_stderr$")


@dataclass(frozen=True)
class Finished:
    """One run, or the dense model that all runs began from.

    Attributes:
        label: the recipe's label for the method.
        method: the installed method's name.
        point: the swept keys and their values; empty where nothing is swept.
        seed: of the run.
        run: its name, for people.
        report: what the run wrote as ``report.json``; none if it failed. Of the dense model none is needed.
        error: why it failed.
        influences: metric to one number an example, from the stored answers.
        timed: its key in the models of the measurement of speed; none if it was not timed.
        requested: its budget, for a run that has no report to say so.
    """

    label: str
    method: str
    point: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    run: str = ""
    report: Mapping[str, Any] | None = None
    error: str | None = None
    influences: Mapping[str, Sequence[float]] = field(default_factory=dict)
    timed: str | None = None
    requested: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Group:
    """The runs of one row; for the dense row its one report is any run's, read at ``side`` "dense"."""

    name: str
    runs: Sequence[Finished]
    side: str = "pruned"

    @property
    def finished(self) -> list[Finished]:
        """The runs that did not fail."""
        return [run for run in self.runs if run.report is not None and run.error is None]

    def metrics(self, run: Finished) -> dict[str, float]:
        """The metrics of one run, without errors and counts; nothing where quality was not measured."""
        values = self.evaluated(run)
        return {name: value for name, value in values.items() if not _NO_METRIC.search(name)}

    def evaluated(self, run: Finished) -> Mapping[str, float]:
        """Everything that one run's evaluation of this row's model gave."""
        return ((run.report or {}).get("quality") or {}).get(self.side) or {}

    def of_quality(self) -> Mapping[str, Any]:
        """What the runs say of quality, both sides; empty where none was measured."""
        known = ((run.report or {}).get("quality") for run in self.finished)
        return next((quality for quality in known if quality), {})

    def timed(self, speed: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
        """Name and result of each model of this row in a measurement of speed, a model a seed."""
        names = [speed["reference"]] if self.side == DENSE else [run.timed for run in self.finished]
        return [(name, speed["models"][name]) for name in names if name and name in speed["models"]]

    def pseudo_values(self, metric: str) -> dict[int, Floats]:
        """Seed to value plus influence, ``[N]``; a seed without influences is left out."""
        return {
            run.seed: self.metrics(run)[metric] + np.asarray(run.influences[metric], float)
            for run in self.finished
            if metric in run.influences and metric in self.metrics(run)
        }


def dense_group(dense: Finished, runs: Sequence[Finished]) -> Group:
    """The dense model's row, which reads its figures from its own report or from any run's."""
    known = next((run.report for run in (dense, *runs) if run.report is not None), None)
    return Group(DENSE, [replace(dense, report=known, error=None)], side=DENSE)


def method_groups(runs: Sequence[Finished]) -> list[Group]:
    """Runs that differ in their seed alone, together; of others with one name, each by itself."""
    together: dict[str, list[Finished]] = {}
    for run in runs:
        key = json.dumps([run.label, run.method, dict(run.point)], sort_keys=True, default=str)
        together.setdefault(key, []).append(run)
    split: list[list[Finished]] = []
    for same in together.values():
        split += [same] if _differ_in_seed_alone(same) else [[run] for run in same]
    plain = [_name(group[0]) for group in split]
    repeated = {name for name, count in Counter([DENSE, *plain]).items() if count > 1}
    names = [
        f"{name} ({group[0].run})" if name in repeated else name
        for name, group in zip(plain, split, strict=True)
    ]
    return [Group(name, group) for name, group in zip(_unique(names), split, strict=True)]


def _name(run: Finished) -> str:
    keys = [key.rpartition(".")[2] for key in run.point]
    short = len(set(keys)) == len(keys)
    values = (
        f"{last if short else key}={value}"
        for last, (key, value) in zip(keys, run.point.items(), strict=True)
    )
    return " ".join([run.label, *values])


def _unique(names: Iterable[str]) -> list[str]:
    found: list[str] = [DENSE]
    for name in names:
        again = 2
        wanted = name
        while wanted in found:
            wanted, again = f"{name} #{again}", again + 1
        found.append(wanted)
    return found[1:]


def _differ_in_seed_alone(runs: Sequence[Finished]) -> bool:
    recipes = {
        json.dumps({**run.report["recipe"], "seed": None}, sort_keys=True, default=str)
        for run in runs
        if run.report is not None and run.report.get("recipe")
    }
    return len({run.seed for run in runs}) == len(runs) and len(recipes) <= 1


def find_reference(groups: Sequence[Group], name: str) -> Group:
    """The group of that name.

    Raises:
        ComparisonError: if there is none, or all its runs failed while others did not.
    """
    found = next((group for group in groups if group.name == name), None)
    names = [group.name for group in groups]
    if found is None:
        hint = did_you_mean(name, names) or "."
        raise ComparisonError(f"no row is called {name!r}{hint} To compare with: {', '.join(names)}.")
    if not found.finished and any(group.finished for group in groups):
        others = ", ".join(group.name for group in groups if group.finished)
        raise ComparisonError(
            f"{name!r} cannot be the reference: every run of it failed. To compare with: {others}."
        )
    return found
