"""Rows of a comparison: the runs of one method and setting, joined over their seeds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

import numpy as np

from prunekit.comparison.groups import DENSE, Finished, Group, dense_group, find_reference, method_groups
from prunekit.comparison.paired import differences, intervals
from prunekit.comparison.row_speed import row_speed, speed_against, timing_errors

__all__ = ["Finished", "make_rows"]

Row = dict[str, Any]


def make_rows(
    dense: Finished,
    runs: Sequence[Finished],
    speed: Mapping[str, Any] | None,
    *,
    reference: str,
    seed: int,
) -> list[Row]:
    """The dense model and each method at each setting, as plain data.

    Runs that differ in their seed alone make one row, named by label and swept values. Where two runs of a
    label differ in more, every one of them is a row, named by its run too.

    Args:
        dense: the dense model; its figures are read from ``quality.dense`` and so on of its own report or of
            the first run that has one.
        runs: all runs, of any labels, in the order the rows are to have.
        speed: what `prunekit.measure.speed.measure_speed` returned, the dense model first and called
            "dense"; or only ``error``; none if nothing was timed.
        reference: name of the row that the others are compared with.
        seed: of the bootstraps.

    Returns:
        A row each: ``name, label, point, method, model, dense, requested, error`` (where every seed failed),
        ``seeds, quality, speed, params, macs, sparsity, encoder_sparsity, decoder_sparsity, prune_s,
        train_steps, frontier, published, warnings``. Means are over the seeds that finished, and lists
        ``by_seed`` are of those, in order. ``vs_reference`` is none in the reference's own row and where
        nothing can be said.

    Raises:
        ComparisonError: if no row is called ``reference``, or it has no figures.
    """
    groups = [dense_group(dense, runs), *method_groups(runs)]
    chosen = find_reference(groups, reference)
    rows = [_row(group, groups[0]) for group in groups]
    _add_quality(rows, groups, chosen, seed)
    _add_speed(rows, groups, chosen, speed, seed)
    _mark_frontier(rows, groups[0])
    return rows


def _row(group: Group, dense: Group) -> Row:
    """What does not depend on other rows."""
    first, finished, is_dense = group.runs[0], group.finished, group is dense
    reports = [run.report or {} for run in finished]
    known = next((run.report for run in (*finished, *dense.finished) if run.report), {})
    failed = [run for run in group.runs if run not in finished]
    achieved = [report.get("achieved") or {} for report in reports]
    stages = [report.get("stages") or {} for report in reports]

    def removed(key: str) -> float | None:
        mean = _mean([each.get(key) for each in achieved])
        return 0.0 if is_dense and mean is not None else mean

    return {
        "name": group.name,
        "label": DENSE if is_dense else first.label,
        "point": dict(first.point),
        "method": DENSE if is_dense else first.method,
        "model": known.get("model"),
        "dense": is_dense,
        "requested": None if is_dense else _requested(group),
        "error": None if finished or is_dense else _errors(failed),
        "seeds": [] if is_dense else [_seed(run) for run in group.runs],
        "quality": _quality(group),
        "speed": None,
        "params": _counted([each.get("params") for each in achieved], group.side),
        "macs": _counted([each.get("macs") for each in achieved], group.side),
        "sparsity": removed("sparsity"),
        "encoder_sparsity": removed("encoder_sparsity"),
        "decoder_sparsity": removed("decoder_sparsity"),
        "prune_s": 0.0 if is_dense else _mean([_prune_s(each) for each in stages]),
        "train_steps": 0 if is_dense else _mean([report.get("train_steps") for report in reports]),
        "frontier": None,
        "published": _published(known, None if is_dense else first.label),
        "warnings": [] if is_dense else _warnings(finished, failed),
    }


def _requested(group: Group) -> dict[str, Any] | None:
    said = ((run.report or {}).get("requested") or run.requested for run in group.runs)
    return next((dict(budget) for budget in said if budget), None)


def _seed(run: Finished) -> dict[str, Any]:
    return {"seed": run.seed, "run": run.run, "error": _error(run)}


def _error(run: Finished) -> str | None:
    return run.error or (None if run.report is not None else "it left no report")


def _errors(failed: Sequence[Finished]) -> str:
    """One text; seeds are told apart only where their errors are."""
    texts = {run.seed: _error(run) or "" for run in failed}
    if len(set(texts.values())) == 1:
        return next(iter(texts.values()))
    return "; ".join(f"seed {seed}: {text}" for seed, text in texts.items())


def _warnings(finished: Sequence[Finished], failed: Sequence[Finished]) -> list[str]:
    said: dict[str, list[int]] = {}
    for run in finished:
        for warning in (run.report or {}).get("warnings", []):
            said.setdefault(warning, []).append(run.seed)
    found = [
        warning if len(seeds) == len(finished) else f"{_seeds(seeds)}: {warning}"
        for warning, seeds in said.items()
    ]
    if finished:
        left = _seeds([run.seed for run in finished])
        found += [f"seed {run.seed} failed, the figures are of {left}: {_error(run)}" for run in failed]
    return found


def _seeds(seeds: Sequence[int]) -> str:
    *most, last = map(str, seeds)
    return f"seeds {', '.join(most)} and {last}" if most else f"seed {last}"


def _mean(values: Iterable[float | None]) -> float | None:
    """Of those that are known."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _prune_s(stages: Mapping[str, float]) -> float | None:
    known = [stages[key] for key in ("plan_s", "reused_s", "recover_s") if key in stages]
    return sum(known) if known else None


def _counted(given: Sequence[Mapping[str, Any] | None], side: str) -> dict[str, Any] | None:
    known = [each for each in given if each]
    if not known:
        return None
    by_seed = [each[side] for each in known]
    return {"dense": known[0]["dense"], "pruned": fmean(by_seed), "by_seed": by_seed}


def _published(report: Mapping[str, Any], label: str | None) -> dict[str, float] | None:
    published = (report.get("recipe") or {}).get("published") or {}
    found = published.get("dense") if label is None else (published.get("methods") or {}).get(label)
    return dict(found) if found else None


def _quality(group: Group) -> dict[str, Any] | None:
    by_run = [(run, group.metrics(run)) for run in group.finished if group.metrics(run)]
    if not by_run:
        return None
    names = [name for name in by_run[0][1] if all(name in metrics for _, metrics in by_run)]
    found = {}
    for name in names:
        by_seed = [metrics[name] for _, metrics in by_run]
        found[name] = {
            "mean": fmean(by_seed),
            "sd": stdev(by_seed) if len(by_seed) > 1 else None,
            "stderr": _stderr(group, name, [run for run, _ in by_run]),
            "by_seed": by_seed,
            "vs_reference": None,
        }
    return found


def _stderr(group: Group, metric: str, runs: Sequence[Finished]) -> float | None:
    """Of the mean over seeds, from which examples were drawn; without influences that of one seed."""
    if runs and all(metric in run.influences for run in runs):
        mean = np.mean([run.influences[metric] for run in runs], axis=0)
        return math.sqrt(float(np.square(mean).sum())) / len(mean)
    return _mean([group.evaluated(run).get(f"{metric}_stderr") for run in runs])


def _add_quality(rows: Sequence[Row], groups: Sequence[Group], chosen: Group, seed: int) -> None:
    """Compare every metric of every row with the reference's; all share the examples drawn."""
    quality = groups[0].of_quality()
    places, found = [], []
    for row, group in zip(rows, groups, strict=True):
        for metric, figures in (row["quality"] or {}).items() if group is not chosen else ():
            own, theirs = group.pseudo_values(metric), chosen.pseudo_values(metric)
            if own and theirs and len(next(iter(own.values()))) > 1:
                places.append((metric, figures))
                found.append(differences(own, theirs))
    for (metric, figures), interval in zip(places, intervals(found, seed=seed), strict=True):
        higher_is_better = quality["higher_is_better"] if metric == quality["primary"] else None
        figures["vs_reference"] = {
            "difference": interval.difference,
            "low": interval.low,
            "high": interval.high,
            "verdict": interval.verdict(higher_is_better=higher_is_better),
        }


def _add_speed(
    rows: Sequence[Row],
    groups: Sequence[Group],
    chosen: Group,
    speed: Mapping[str, Any] | None,
    seed: int,
) -> None:
    if speed is None or "error" in speed:
        for row, group in zip(rows, groups, strict=True):
            row["speed"] = dict(speed) if speed and group.finished else None
        return
    for row, group in zip(rows, groups, strict=True):
        timed = group.timed(speed)
        row["speed"] = row_speed(timed, speed, dense=row["dense"], seed=seed)
        row["warnings"] += timing_errors(timed)
        if row["speed"] and "error" not in row["speed"] and group is not chosen:
            row["speed"]["vs_reference"] = speed_against(timed, chosen.timed(speed), speed["control"], seed)


def _mark_frontier(rows: Sequence[Row], dense: Group) -> None:
    """A row is on the frontier unless another is as good and as fast, and better in one of the two."""
    quality = dense.of_quality()
    points = {}
    for row in rows:
        if row["quality"] and quality["primary"] in row["quality"] and "speedup" in (row["speed"] or {}):
            value = row["quality"][quality["primary"]]["mean"]
            points[row["name"]] = (value if quality["higher_is_better"] else -value, row["speed"]["speedup"])
    for row in rows:
        own = points.get(row["name"])
        if own is not None:
            row["frontier"] = not any(
                other != own and other[0] >= own[0] and other[1] >= own[1] for other in points.values()
            )
