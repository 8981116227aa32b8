"""A comparison's files for people, beside ``comparison.json``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prunekit.files import write_text
from prunekit.json_files import read_json
from prunekit.pruning.plan import PruningPlan
from prunekit.reports.comparison import comparison_table, render
from prunekit.reports.comparison_page import render_comparison_page
from prunekit.reports.kept import KeptMap, kept_map
from prunekit.runfolder import training_log

FORMATS = {"markdown": "md", "latex": "tex", "csv": "csv"}


def write_pages(comparison: Mapping[str, Any], folders: Mapping[str, Path], out: Path) -> None:
    """Write ``comparison.md``, ``.tex``, ``.csv`` and ``.html``.

    Args:
        comparison: the content of ``comparison.json``.
        folders: folder of each finished run, by its name.
        out: where to write.
    """
    for kind, ending in FORMATS.items():
        write_text(out / f"comparison.{ending}", render(comparison, kind))
    shown = {
        row["name"]: folders[seed["run"]]
        for row in comparison["rows"]
        for seed in reversed(row["seeds"])  # the first seed that finished
        if seed["run"] in folders
    }
    maps = {name: _kept(folder) for name, folder in shown.items()}
    curves = {name: training_log(folder) for name, folder in shown.items()}
    page = render_comparison_page(comparison, comparison_table(comparison), maps, curves)
    write_text(out / "comparison.html", page)


def _kept(folder: Path) -> KeptMap:
    report = read_json(folder / "report.json", "Delete it and repeat the run's command.")
    return kept_map(PruningPlan.load(folder / "plan.json").keep, report["structure"])
