"""What a paper printed beside what a run reached."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prunekit.reports.markdown import bullets, escape, table

_SIDES = ("dense", "pruned")


def published_section(report: Mapping[str, Any]) -> list[str]:
    """Markdown blocks with the figures that the recipe says a paper printed; none if it says none.

    Args:
        report: a run's ``report.json``, with ``recipe`` and ``label``.
    """
    published = (report.get("recipe") or {}).get("published")
    if not published:
        return []
    printed = (published["dense"], published["methods"].get(report.get("label"), {}))
    rows = []
    for name in dict.fromkeys([*printed[0], *printed[1]]):
        cells = [
            cell
            for side, figures in zip(_SIDES, printed, strict=True)
            for cell in (_printed(name, figures.get(name)), _reached(report, side, name))
        ]
        rows.append((name, *cells))
    header = ("", "dense, published", "dense, reached", "pruned, published", "pruned, reached")
    said = f"{published['paper']}, {published['place']}."
    return [
        "## Beside the published figures",
        escape(said),
        *([table(header, rows)] if rows else []),
        *bullets("", map(escape, published["remarks"])),
    ]


def _printed(name: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if name == "parameters" else f"{value:g}x" if name == "speedup" else f"{value:g}"


def _reached(report: Mapping[str, Any], side: str, name: str) -> str:
    quality, speed = report.get("quality") or {}, report.get("speed") or {}
    if name == "parameters":
        counted = (report.get("achieved") or {}).get("params")
        return f"{counted[side]:,}" if counted else "not counted"
    if name == "speedup":
        if not speed:
            return "not measured"
        low, high = speed["speedup_low"], speed["speedup_high"]
        return "1x" if side == "dense" else f"{speed['speedup']:.2f}x [{low:.2f}, {high:.2f}]"
    values = quality.get(side, {})
    if name not in values:
        return "not measured"
    stderr = values.get(f"{name}_stderr")
    return f"{values[name]:.4g}" + ("" if stderr is None else f" ± {stderr:.2g}")
