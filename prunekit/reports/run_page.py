"""A run's report as one HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prunekit.errors import PlanError
from prunekit.reports import milestones, run
from prunekit.reports.curves import Log, training_curves
from prunekit.reports.kept import KeptMap, kept_map
from prunekit.reports.page import pairs, recipe_text, render_page, sections
from prunekit.reports.pair import (
    SPEED_HEADER,
    call_text,
    device_text,
    ms_text,
    speed_notes,
    speed_rows,
    speed_settings,
)

Report = Mapping[str, Any]


def render_run_page(report: Report, keep: Mapping[str, Sequence[int]], log: Log) -> str:
    """The page: the figures that decide, tables, the map of what was kept, training, recipe, environment.

    Args:
        report: a run's ``report.json``, as :func:`prunekit.reports.run.render_markdown` takes it; any section
            may be missing.
        keep: what ``plan.json`` has under that key.
        log: the rows of ``train.jsonl``; empty where nothing was trained.
    """
    from markupsafe import Markup

    quality, speed = report.get("quality"), report.get("speed")
    kept = _kept(report, keep)
    curves = [{**vars(panel), "drawing": Markup(panel.drawing)} for panel in training_curves(log).values()]
    passed = milestones.rows(report)
    verified, recipe = run.verification(report), recipe_text(report.get("recipe"))
    environment, loading = pairs(report.get("environment") or {}), run.loading_code(report)
    contents = [
        ("quality", "Quality", True),
        ("milestones", "Milestones", passed),
        ("speed", "Speed", True),
        ("kept", "What was kept", kept),
        ("training", "Training", curves),
        ("verification", "Verification", verified),
        ("use", "Load it", loading),
        ("recipe", "Recipe", recipe),
        ("environment", "Environment", environment),
    ]
    return render_page(
        "run.html.j2",
        title=run.heading(report),
        facts=_facts(report),
        fingerprint=run.fingerprint(report),
        budget=run.budget_sentence(report),
        tiles=_tiles(report),
        warnings=report.get("warnings", []),
        sections=sections(contents),
        headline=run.headline(report),
        quality=quality and (run.QUALITY_HEADER, run.quality_rows(quality), run.quality_note(quality)),
        speed=speed and (SPEED_HEADER, speed_rows(speed), [speed_settings(report), *speed_notes(report)]),
        milestones=passed and (milestones.header(report), passed, milestones.NOTE),
        kept=kept,
        curves=curves,
        verified=verified,
        loading=loading,
        recipe=recipe,
        environment=environment,
    )


def _kept(report: Report, keep: Mapping[str, Sequence[int]]) -> KeptMap | None:
    try:
        kept = kept_map(keep, report.get("structure", []))
    except PlanError:
        return None  # a report without its structure still has everything else to show
    return kept if kept.stacks else None


def _facts(report: Report) -> str:
    words = {"seed": "seed {}", "run": "run folder {}", "prunekit_version": "prunekit {}"}
    return ", ".join(text.format(report[key]) for key, text in words.items() if key in report)


def _tiles(report: Report) -> list[tuple[str, str, str]]:
    """Name, figure and what stands behind it, for the figures that decide."""
    tiles = []
    if quality := report.get("quality"):
        dense, pruned = (quality[side][quality["primary"]] for side in ("dense", "pruned"))
        tiles.append((run.primary_text(quality), f"{pruned:.4g}", f"dense {dense:.4g}"))
    if speed := report.get("speed"):
        interval = f"[{speed['speedup_low']:.2f}, {speed['speedup_high']:.2f}]"
        times = " → ".join(ms_text(speed[side]["median_ms"]) for side in ("dense", "pruned"))
        what = f"speedup, {call_text(speed)}, {device_text(speed)}"
        tiles.append((what, f"{speed['speedup']:.2f}x", f"{interval}, {times} ms"))
    achieved = report.get("achieved") or {}
    for key, what in (("params", "parameters"), ("macs", "MACs")):
        if counts := achieved.get(key):
            change = (counts["pruned"] - counts["dense"]) / counts["dense"]
            sign = "\N{MINUS SIGN}" if change < 0 else "+"
            pair = f"{counts['dense']:,.0f} → {counts['pruned']:,.0f}"
            tiles.append((what, f"{sign}{abs(100 * change):.1f} %", pair))
    stages = {name: report.get("stages", {}).get(f"{name}_s") for name in ("plan", "recover")}
    if known := {name: seconds for name, seconds in stages.items() if seconds is not None}:
        parts = ", ".join(f"{name} {run.duration(seconds)}" for name, seconds in known.items())
        tiles.append(("time to prune", run.duration(sum(known.values())), parts))
    return tiles
