"""A comparison in CSV: raw numbers, a column for each."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from prunekit.reports.comparison_columns import Comparison, Row
from prunekit.shown import printable

_SPEED = ("speedup", "speedup_low", "speedup_high", "verdict", "median_ms", "peak_mib", "weights_mib")
_SHARES = ("sparsity", "encoder_sparsity", "decoder_sparsity", "prune_s", "train_steps", "frontier")
_FORMULA = ("=", "+", "-", "@")


def render_csv(comparison: Comparison, rows: Sequence[Row], *, expected: bool = False) -> str:
    """A line a row, every metric with its spread and its interval against the reference, verdicts in words.

    A text that a spreadsheet would take for a formula has an apostrophe before it.
    """
    records = [list(_record(comparison, row, expected=expected)) for row in rows]
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow([column for column, _ in records[0]])
    writer.writerows([_cell(value) for _, value in record] for record in records)
    return written.getvalue()


def _record(comparison: Comparison, row: Row, *, expected: bool) -> Iterator[tuple[str, Any]]:
    """Column and value; the columns are the same for every row of a comparison."""
    for key in ("name", "label", "method", "model", "dense"):
        yield key, row[key]
    for key in dict.fromkeys(key for other in comparison["rows"] for key in other["point"]):
        yield _text(key), row["point"].get(key)
    yield "seeds", " ".join(str(run["seed"]) for run in row["seeds"] if run["error"] is None)
    yield "failed_seeds", " ".join(str(run["seed"]) for run in row["seeds"] if run["error"] is not None)
    requested = row["requested"] or {}
    yield "requested_metric", requested.get("metric")
    yield "requested", requested.get("ratio", requested.get("sparsity"))
    yield "requested_scope", " ".join(requested.get("scope") or [])
    for metric in dict.fromkeys(metric for other in comparison["rows"] for metric in other["quality"] or ()):
        yield from _metric(metric, (row["quality"] or {}).get(metric) or {})
    speed = row["speed"] or {}
    for key in _SPEED:
        yield "speed_verdict" if key == "verdict" else key, speed.get(key)
    for key in ("ratio", "low", "high", "verdict"):
        yield f"speed_vs_reference_{key}", (speed.get("vs_reference") or {}).get(key)
    for name, key in (("parameters", "params"), ("macs", "macs")):
        counted = row[key] or {}
        yield name, counted.get("pruned")
        yield f"{name}_dense", counted.get("dense")
    for key in _SHARES:
        yield key, row[key]
    if expected:
        for key in dict.fromkeys(key for other in comparison["rows"] for key in other["published"] or ()):
            yield _text(f"{key}_published"), (row["published"] or {}).get(key)
    yield "reference", comparison["reference"]
    yield "error", row["error"] or speed.get("error")


def _metric(name: str, figures: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    name = _text(name)
    yield name, figures.get("mean")
    for key in ("sd", "stderr"):
        yield f"{name}_{key}", figures.get(key)
    for key in ("difference", "low", "high", "verdict"):
        yield f"{name}_{key}", (figures.get("vs_reference") or {}).get(key)


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return _text(value) if isinstance(value, str) else value


def _text(text: str) -> str:
    """One line that no spreadsheet computes."""
    flat = printable(text)
    return f"'{flat}" if flat.startswith(_FORMULA) else flat
