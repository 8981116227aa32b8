"""The columns of a comparison's table: what each says of a row, and what it sorts by."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prunekit.reports.pair import ms_text

Row = Mapping[str, Any]
Comparison = Mapping[str, Any]
Key = float | str | None

MARKS = {"better": "↑", "worse": "↓", "higher": "↑", "lower": "↓", "no difference": "="}
_UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        name: what ``--sort`` calls it.
        header: what a reader sees.
        text: a row's cell; empty where it does not apply.
        key: what the cell sorts by; none goes last.
        is_highest_first: whether the best, or the longest, is the highest.
    """

    name: str
    header: str
    text: Callable[[Row], str]
    key: Callable[[Row], Key]
    is_highest_first: bool = False


def columns(comparison: Comparison, *, expected: bool = False) -> list[Column]:
    """All columns, those that decide first.

    Args:
        comparison: the content of ``comparison.json``.
        expected: also those of the figures that the recipe says a paper printed.
    """
    has_peak = any(_speed(row, "peak_mib") is not None for row in comparison["rows"])
    memory = "peak_mib" if has_peak else "weights_mib"
    return [
        Column("name", "method", lambda row: str(row["name"]), lambda row: str(row["name"])),
        *_quality_columns(comparison["quality"], comparison["rows"]),
        Column(
            "speedup", "speedup", _speedup_text, lambda row: _speed(row, "speedup"), is_highest_first=True
        ),
        *(_published(comparison) if expected else ()),
        _figure("ms", "ms", lambda row: _speed(row, "median_ms"), ms_text),
        Column("parameters", "parameters", *_counted("params")),
        Column("macs", "MACs", *_counted("macs")),
        _figure("encoder", "encoder removed", lambda row: row["encoder_sparsity"], _percent),
        _figure("decoder", "decoder removed", lambda row: row["decoder_sparsity"], _percent),
        Column("achieved", "requested -> achieved", _budget_text, lambda row: row["sparsity"]),
        _figure("memory", memory.replace("_mib", " MiB"), lambda row: _speed(row, memory), "{:,.1f}".format),
        _figure("prune_time", "time to prune", _prune_s, duration),
        _figure("steps", "training steps", _train_steps, "{:,.0f}".format),
        Column("frontier", "frontier", _frontier_text, _frontier_key, is_highest_first=True),
    ]


def _figure(
    name: str, header: str, value: Callable[[Row], float | None], show: Callable[[float], str]
) -> Column:
    def text(row: Row) -> str:
        found = value(row)
        return "" if found is None else show(found)

    return Column(name, header, text, value)


def _quality_columns(quality: Mapping[str, Any] | None, rows: Sequence[Row]) -> list[Column]:
    if not quality:
        return []
    primary, higher = quality["primary"], quality["higher_is_better"]
    means = [abs(row["quality"][primary]["mean"]) for row in rows if (row["quality"] or {}).get(primary)]
    decimals = _decimals(max(means, default=0.0))

    def text(row: Row) -> str:
        if row["error"]:
            return "failed"
        figures = (row["quality"] or {}).get(primary)
        return "" if figures is None else _quality_text(figures, decimals)

    def key(row: Row) -> Key:
        figures = (row["quality"] or {}).get(primary)
        return None if figures is None else float(figures["mean"])

    header = f"{primary} ({'higher' if higher else 'lower'} is better)"
    return [Column("quality", header, text, key, is_highest_first=higher)]


def _quality_text(figures: Mapping[str, Any], decimals: int) -> str:
    """A metric's mean, its standard deviation over seeds, and the mark of its verdict."""
    said = [f"{figures['mean']:.{decimals}f}"]
    if figures["sd"] is not None:
        said.append(f"± {figures['sd']:.{decimals}f}")
    if figures["vs_reference"]:
        said.append(MARKS[figures["vs_reference"]["verdict"]])
    return " ".join(said)


def _decimals(value: float) -> int:
    """Decimals that show four digits of a positive value, leading zeros not counted."""
    return max(0, 3 - math.floor(math.log10(value))) if value else 3


def _speed(row: Row, key: str) -> Any:
    return (row["speed"] or {}).get(key)


def _speedup_text(row: Row) -> str:
    speed = row["speed"] or {}
    if "error" in speed:
        return "not measured"
    if "speedup" not in speed:
        return ""
    if row["dense"]:
        return "1x"
    text = f"{speed['speedup']:.2f}x [{speed['speedup_low']:.2f}, {speed['speedup_high']:.2f}]"
    return f"{text} {MARKS['no difference']}" if speed["verdict"] == "no difference" else text


def _published(comparison: Comparison) -> list[Column]:
    names = dict.fromkeys(name for row in comparison["rows"] for name in row["published"] or ())
    return [_printed(name) for name in names]


def _printed(name: str) -> Column:
    show = {"parameters": _short, "speedup": "{:g}x".format}.get(name, "{:g}".format)
    return _figure(
        f"{name}_published", f"{name}, published", lambda row: (row["published"] or {}).get(name), show
    )


def _counted(what: str) -> tuple[Callable[[Row], str], Callable[[Row], Key]]:
    """Text and key of a count; the text also says how far it is from the dense model's."""

    def text(row: Row) -> str:
        if not row[what]:
            return ""
        dense, pruned = row[what]["dense"], row[what]["pruned"]
        return _short(pruned) if row["dense"] else f"{_short(pruned)} ({100 * (pruned / dense - 1):+.0f} %)"

    return text, lambda row: row[what]["pruned"] if row[what] else None


def _short(count: float) -> str:
    for size, unit in _UNITS:
        if count >= size:
            return f"{count / size:#.3g}".rstrip(".") + unit
    return f"{count:.0f}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _budget_text(row: Row) -> str:
    requested = row["requested"]
    if not requested:
        return ""
    if "ratio" in requested:
        asked = f"{100 * requested['ratio']:g} % of the time"
        speedup = _speed(row, "speedup")
        return asked if not speedup else f"{asked} -> {100 / speedup:.1f} %"
    of = " and ".join(requested.get("scope") or [])
    asked = f"{100 * requested['sparsity']:g} %"
    if requested.get("metric") == "macs":
        asked += f" of the MACs of {of}" if of else " of MACs"
    elif of:
        asked += f" of {of}"
    return asked if row["sparsity"] is None else f"{asked} -> {_percent(row['sparsity'])}"


def _prune_s(row: Row) -> float | None:
    # That the dense model takes no time to prune is not worth a cell.
    seconds: float | None = None if row["dense"] else row["prune_s"]
    return seconds


def _train_steps(row: Row) -> float | None:
    steps: float | None = None if row["dense"] else row["train_steps"]
    return steps


def duration(seconds: float) -> str:
    """Seconds up to two minutes, then minutes."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def _frontier_text(row: Row) -> str:
    return {None: "", True: "yes", False: "no"}[row["frontier"]]


def _frontier_key(row: Row) -> Key:
    return None if row["frontier"] is None else float(row["frontier"])
