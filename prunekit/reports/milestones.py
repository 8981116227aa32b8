"""The milestones of a run, as its report shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prunekit.reports.markdown import table

Report = Mapping[str, Any]

NOTE = (
    "States of the same training, cut to other sparsities on its way to the run's own. They are not "
    "recovered: their quality is that of the models as they were cut."
)


def header(report: Report) -> tuple[str, ...]:
    """Names of the columns."""
    return ("requested", "achieved", "step", report["quality"]["primary"], "folder")


def rows(report: Report) -> list[tuple[str, ...]]:
    """A row a milestone; empty where a run had none."""
    return [_row(each, report) for each in report.get("milestones", ())]


def section(report: Report) -> list[str]:
    """The section of the Markdown report; empty where a run had none."""
    if not rows(report):
        return []
    return ["## Milestones", table(header(report), rows(report)), NOTE]


def lines(report: Report) -> list[str]:
    """What the printed summary says, a line a milestone that was met."""
    primary = (report.get("quality") or {}).get("primary")
    return [
        f"Milestone {requested}: achieved {achieved} at step {step}, {primary} {quality}, in "
        f"{report['run']}/{folder}"
        for (requested, achieved, step, quality, folder), each in zip(
            rows(report), report.get("milestones", ()), strict=True
        )
        if each["met"]
    ]


def metric_text(values: Mapping[str, Any], name: str) -> str:
    """A metric with its standard error, if it has one."""
    stderr = values.get(f"{name}_stderr")
    return f"{values[name]:.4g}" if stderr is None else f"{values[name]:.4g} ± {stderr:.2g}"


def _row(each: Mapping[str, Any], report: Report) -> tuple[str, ...]:
    requested = f"{100 * each['sparsity']:g} %"
    if not each["met"]:
        near = "" if each["reached"] is None else f"not met; nearest {100 * each['reached']:.1f} %"
        return (requested, near or "not met", _step(each), "", "")
    achieved = f"{100 * each['achieved']['sparsity']:.1f} %"
    quality = metric_text(each["metrics"], report["quality"]["primary"])
    return (requested, achieved, _step(each), quality, each["folder"])


def _step(each: Mapping[str, Any]) -> str:
    return "" if each["step"] is None else f"{each['step']:,}"
