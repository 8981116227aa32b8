"""What a reader has to know beside a comparison's table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from prunekit.reports.comparison_columns import Comparison, Row, duration
from prunekit.reports.pair import speed_notes
from prunekit.reports.speed import machine_sentence


def notes(comparison: Comparison, rows: Sequence[Row], *, expected: bool = False) -> list[str]:
    """Sentences: what to choose, what figures and marks mean, and what went wrong.

    Args:
        comparison: the content of ``comparison.json``.
        rows: those that are shown.
        expected: whether published figures are asked for.
    """
    return [
        *choice(comparison, rows),
        *_quality(comparison, rows),
        *_speed(comparison),
        *_others(rows),
        *(_expected(comparison) if expected else ()),
        *(f"{row['name']} failed: {row['error']}" for row in rows if row["error"]),
        *_not_timed(comparison, rows),
        *(f"{row['name']}: {warning}" for row in rows for warning in row["warnings"]),
        *comparison["warnings"],
    ]


def choice(comparison: Comparison, rows: Sequence[Row]) -> Iterable[str]:
    """The fastest row that lost nothing measurable, and the fastest of all."""
    quality, reference = comparison["quality"], comparison["reference"]
    if not quality:
        return
    primary = quality["primary"]
    faster = [
        row
        for row in rows
        if (row["quality"] or {}).get(primary) and (row["speed"] or {}).get("verdict") == "faster"
    ]
    faster.sort(key=lambda row: row["speed"]["speedup"], reverse=True)
    good = [row for row in faster if _verdict(row, primary) in ("no difference", "better")]
    for what, found in ((f"with no measured loss against {reference}", good[:1]), ("of all", faster[:1])):
        for row in found:
            figure = f"{row['speed']['speedup']:.2f}x, {primary} {row['quality'][primary]['mean']:.4g}"
            took = "" if row["prune_s"] is None else f", {duration(row['prune_s'])} to prune"
            yield f"Fastest {what}: {row['name']} ({figure}{took})."
    if faster and not good:
        yield f"Every row that is faster is also worse than {reference}, or was not compared with it."


def _verdict(row: Row, metric: str) -> str | None:
    against = row["quality"][metric]["vs_reference"]
    return against["verdict"] if against else None


def _quality(comparison: Comparison, rows: Sequence[Row]) -> Iterable[str]:
    quality = comparison["quality"]
    if not quality or quality["n"] is None:
        return
    primary, reference = quality["primary"], comparison["reference"]
    figures = [row["quality"][primary] for row in rows if (row["quality"] or {}).get(primary)]
    examples = f"{quality['n']:,.0f} examples of {quality['split']}"
    seeds = ", ".join(map(str, comparison["seeds"]))
    yield f"{primary} is measured on {examples}, beams {quality['num_beams']}, seeds {seeds}."
    if any(each["sd"] is not None for each in figures):
        yield "± is the standard deviation over seeds."
    if any(each["vs_reference"] for each in figures):
        over = "examples and seeds" if len(comparison["seeds"]) > 1 else "examples"
        yield (
            f"↑ better, ↓ worse, = no difference from {reference}: whether the 95 % interval of the paired "
            f"difference leaves out 0, by bootstrap over {over}. Each row is judged for itself: of 20 that "
            "do not differ, about one is marked by chance."
        )


def _speed(comparison: Comparison) -> Iterable[str]:
    speed = comparison["speed"]
    if not speed or "error" in speed:
        yield "Speed was not measured" + (f": {speed['error']}" if speed else ".")
        return
    length = f", {speed['input_tokens']} input tokens" if speed.get("input_tokens") else ""
    measured = {"cells": [speed], "environment": speed["environment"], "reference": speed["reference"]}
    yield f"Speed at batch {speed['batch_size']}{length} on {machine_sentence(measured)}"
    yield (
        "Speedup is over the dense model, with its 95 % interval over rounds; = marks one that cannot be "
        "told from the dense model's own noise."
    )
    says = speed["noise"]["says"]
    yield says[0].upper() + says[1:]
    yield from speed_notes({"speed": speed})


def _others(rows: Sequence[Row]) -> Iterable[str]:
    if any(row["frontier"] is not None for row in rows):
        yield "On the frontier is what no other row equals in quality and speed and beats in one of them."
    if any(row["prune_s"] for row in rows):
        yield "Time to prune is that of one seed: planning, with any training of masks, and recovery."


def _expected(comparison: Comparison) -> Iterable[str]:
    published = (comparison.get("recipe") or {}).get("published")
    if published:
        yield f"Published: {published['paper']}, {published['place']}."
        yield from published["remarks"]
    elif not any(row["published"] for row in comparison["rows"]):
        yield "The recipe carries no published figures."


def _not_timed(comparison: Comparison, rows: Sequence[Row]) -> Iterable[str]:
    speed: Mapping[str, Any] = comparison["speed"] or {}
    if "error" in speed:
        return
    for row in rows:
        if "error" in (row["speed"] or {}):
            yield f"{row['name']} was not timed: {row['speed']['error']}"
