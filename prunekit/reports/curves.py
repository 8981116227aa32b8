"""Curves of a run's training: sparsity, losses, multipliers and quality on the way."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prunekit.reports.drawing import INK, LINE, MUTED, SERIES, drawing, svg
from prunekit.shown import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Log = Sequence[Mapping[str, Any]]
_Line = tuple[list[float], list[float]]  # steps, values

_POINTS = 160  # a line's most; more are invisible and make the page heavy
_NO_LOSS = re.compile(
    r"stage|step|n|(.*/)?n|grad_norm|learning_rate|milestone_.*|.*(sparsity|target|lambda_[12]|_stderr)"
)


@dataclass(frozen=True)
class Curves:
    """One panel.

    Attributes:
        kind: ``sparsity``, ``losses``, ``multipliers`` or ``quality``.
        drawing: an ``<svg>`` element.
        legend: name, CSS variable of the colour, and ``solid``, ``dashed`` or ``dotted``, of each line.
    """

    kind: str
    drawing: str
    legend: tuple[tuple[str, str, str], ...]


def training_curves(log: Log, colour: int = 0) -> dict[str, Curves]:
    """Panels by kind, of the rows of ``train.jsonl``; a kind that the log does not speak of is absent.

    Args:
        log: one mapping a step, with ``stage`` and ``step``; stages follow each other on the axis.
        colour: which of the page's series colours the first line has.
    """
    steps, stages = _timeline(log)
    keys = list(dict.fromkeys(key for row in log for key in row))
    measured = [key for key in keys if f"{key}_stderr" in keys]
    chosen = {
        "sparsity": [key for key in keys if re.fullmatch(r"(.*_)?(sparsity|target)", key)],
        "losses": [key for key in keys if not _NO_LOSS.fullmatch(key) and key not in measured],
        "multipliers": [key for key in keys if re.fullmatch(r"(.*_)?lambda_[12]", key)],
        "quality": measured,
    }
    panels = {kind: _panel(kind, _lines(log, steps, names), stages, colour) for kind, names in chosen.items()}
    return {kind: panel for kind, panel in panels.items() if panel is not None}


def _timeline(log: Log) -> tuple[list[float], list[tuple[str, float]]]:
    """Each row's place on an axis on which stages follow each other, and where each stage begins."""
    places: list[float] = []
    stages: list[tuple[str, float]] = []
    for row in log:
        if not stages or stages[-1][0] != row["stage"]:
            stages.append((row["stage"], places[-1] if places else 0.0))
        places.append(stages[-1][1] + row["step"])
    return places, stages


def _lines(log: Log, steps: Sequence[float], names: Sequence[str]) -> dict[str, _Line]:
    lines = {}
    for name in names:
        known = [
            (step, float(row[name]))
            for step, row in zip(steps, log, strict=True)
            if isinstance(row.get(name), int | float) and math.isfinite(row[name])
        ]
        if len(known) > 1:
            lines[name] = _thinned(known)
    return lines


def _thinned(points: Sequence[tuple[float, float]]) -> _Line:
    """Means of as many neighbours as bring a line down to a few points."""
    size = max(1, math.ceil(len(points) / _POINTS))
    parts = [points[start : start + size] for start in range(0, len(points), size)]
    xs, ys = ([math.fsum(point[axis] for point in part) / len(part) for part in parts] for axis in (0, 1))
    return xs, ys


def _panel(
    kind: str, lines: Mapping[str, _Line], stages: Sequence[tuple[str, float]], colour: int
) -> Curves | None:
    if not lines:
        return None
    looks, end = _looks(kind, list(lines), colour), max(xs[-1] for xs, _ in lines.values())
    with drawing(330, 200) as (figure, axes):
        for name, (xs, ys) in lines.items():
            ink, dash = looks[name]
            marks = {"marker": ".", "markersize": 5} if dash == "dotted" else {}
            axes.plot(xs, ys, color=ink, linestyle=_DASHES[dash], linewidth=1.4, zorder=3, **marks)  # type: ignore[arg-type]
        _scale(axes, kind, [value for _, ys in lines.values() for value in ys])
        _mark_stages(axes, [(stage, start) for stage, start in stages if start < end])
        axes.set_xlim(0, end)
        axes.set_xlabel("step", loc="right", fontsize=9)
        axes.tick_params(labelsize=9)
        ends = "; ".join(
            f"{visible(name)} from {ys[0]:.3g} to {ys[-1]:.3g}" for name, (_, ys) in lines.items()
        )
        drawn = svg(figure, f"{kind} over steps: {ends}.")
    legend = tuple((name.replace("_", " "), _variable(ink), dash) for name, (ink, dash) in looks.items())
    return Curves(kind, drawn, legend)


_DASHES = {"solid": "-", "dashed": (0, (4, 2)), "dotted": ":"}


def _looks(kind: str, names: Sequence[str], colour: int) -> dict[str, tuple[str, str]]:
    """Colour and dash of each line: what was aimed at is grey and dashed, the sum of losses black."""
    looks, used = {}, 0
    stacks = list(dict.fromkeys(name.partition("_")[0] for name in names if re.match("(en|de)coder_", name)))
    for name in names:
        if kind == "losses" and name == "loss":
            looks[name] = (INK, "solid")
            continue
        if kind == "losses":
            place = used
            used += 1
        else:
            stack = name.partition("_")[0]
            place = stacks.index(stack) if stack in stacks else names.index(name) if kind == "quality" else 0
        ink = SERIES[(colour + place) % len(SERIES)]
        if name.endswith("target"):
            looks[name] = (MUTED if not stacks else ink, "dashed")
        elif "realised" in name:
            looks[name] = (ink, "dotted")
        else:
            looks[name] = (ink, "dashed" if name.endswith("lambda_2") else "solid")
    return looks


def _variable(ink: str) -> str:
    return {INK: "ink", MUTED: "muted"}.get(ink) or f"series-{SERIES.index(ink)}"


def _scale(axes: Axes, kind: str, values: Sequence[float]) -> None:
    if kind == "sparsity":
        axes.set_ylim(min(0.0, *values), max(1.0, *values))
        axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g} %")
        return
    if kind == "losses" and min(values) > 0 and max(values) > 20 * min(values):
        axes.set_yscale("log")
    elif kind == "multipliers" and max(map(abs, values)) > 1000:
        axes.set_yscale("symlog")
    else:
        return
    # Their own labels are formulas, and no text here is read as one.
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(lambda value, _: "")


def _mark_stages(axes: Axes, stages: Sequence[tuple[str, float]]) -> None:
    for number, (stage, start) in enumerate(stages):
        if number:
            axes.axvline(start, color=LINE, linewidth=1, zorder=1)
        axes.annotate(
            visible(stage, 20),
            (start, 1),
            (3, 2),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            fontsize=9,
            color=MUTED,
        )
