"""Quality against speed, one point a row of a comparison, with the frontier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from prunekit.reports.drawing import INK, MUTED, PAPER, SERIES, Box, drawing, place_labels, svg
from prunekit.shown import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = Mapping[str, Any]

_MARKERS = ("o", "s", "^", "D", "v", "P", "X")


@dataclass(frozen=True)
class Style:
    """How a row is drawn, in every plot and map of a page.

    Attributes:
        colour: which of the page's series colours; the dense model has none.
        marker: matplotlib's name of the point's shape.
    """

    colour: int | None
    marker: str

    @property
    def variable(self) -> str:
        """The CSS variable of the colour."""
        return "ink" if self.colour is None else f"series-{self.colour}"

    @property
    def ink(self) -> str:
        """The colour as drawings name it."""
        return INK if self.colour is None else SERIES[self.colour]


def row_styles(rows: Sequence[Row]) -> dict[str, Style]:
    """Each row's style by its name: one a method, or one a label where all rows are of one method."""
    pruned = [row for row in rows if not row["dense"]]
    key = "method" if len({row["method"] for row in pruned}) > 1 else "label"
    order = list(dict.fromkeys(row[key] for row in pruned))
    styles = {
        row["name"]: Style(
            order.index(row[key]) % len(SERIES), _MARKERS[order.index(row[key]) % len(_MARKERS)]
        )
        for row in pruned
    }
    return styles | {row["name"]: Style(None, "*") for row in rows if row["dense"]}


def quality_against_speed(comparison: Mapping[str, Any], width: float = 400, height: float = 320) -> str:
    """An ``<svg>`` with a point a row: speedup to the right, primary quality up, better always up.

    Bars are 95 % intervals of the speedup and the quality's sd over seeds (its standard error with one seed);
    filled points are on the frontier, which the grey steps follow. Empty where no row has both figures.
    """
    rows = [row for row in comparison["rows"] if _point(row, comparison) is not None]
    if not rows:
        return ""
    quality, styles = comparison["quality"], row_styles(comparison["rows"])
    with drawing(width, height) as (figure, axes):
        tips = {}
        for number, row in enumerate(rows):
            tips[f"row-{number}"] = _draw_row(axes, row, comparison, styles[row["name"]], f"row-{number}")
        _frontier(axes, rows, comparison)
        _sweeps(axes, rows, comparison, styles)
        axes.margins(0.09, 0.11)
        if not quality["higher_is_better"]:
            axes.invert_yaxis()
        better = "higher" if quality["higher_is_better"] else "lower"
        primary = visible(quality["primary"], 32)
        axes.set_title(f"{primary} ({better} is better)", loc="left", fontsize=10, color=MUTED, pad=10)
        axes.set_xlabel("speedup over the dense model (x)", loc="right")
        figure.draw_without_rendering()
        named = [(*_point(row, comparison), short_name(row), styles[row["name"]].ink) for row in rows]  # type: ignore[misc]
        figure.set_layout_engine("none")
        place_labels(axes, named, _drawn(axes, rows, comparison))
        described = f"{primary} against speedup: " + "; ".join(tips.values()) + "."
        return svg(figure, described, tips)


def frontier_picture(comparison: Mapping[str, Any]) -> str:
    """The same plot as a file of its own for documents, or nothing where there is no plot."""
    plot = quality_against_speed(comparison, width=680, height=430)
    return standalone(plot, 680, 430) if plot else ""


def standalone(plot: str, width: int, height: int) -> str:
    """An ``<svg>`` as a file of its own for documents: light and dark by the reader's preference.

    Args:
        plot: as :func:`prunekit.reports.drawing.svg` gives it.
        width: of the drawing, in CSS pixels.
        height: likewise.
    """
    light, dark = _palettes()
    style = (
        "<style>svg { background: var(--paper); "
        "font-family: system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif; }\n"
        f":root {{ {light} }}\n@media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}</style>"
    )
    # A margin of its own, for no page gives it one; and a size, or documents stretch it.
    wide, high = width + 28, height + 24
    place = f'width="{wide}" height="{high}" viewBox="-14 -12 {wide} {high}"'
    plot = plot.replace(f'viewBox="0 0 {width} {height}"', place, 1)
    start = plot.index(">") + 1
    return f"{plot[:start]}\n{style}{plot[start:]}\n"


def short_name(row: Row) -> str:
    """What a row is called in a plot: its label, with the values of its point in a sweep."""
    values = (f"{value:g}" if isinstance(value, float) else str(value) for value in row["point"].values())
    return visible(" ".join([row["label"], *values]), 26)


def _palettes() -> tuple[str, str]:
    """The colour variables of the pages' style, for light and for dark."""
    import re
    from importlib.resources import files

    style = (files("prunekit.reports") / "templates" / "style.css").read_text(encoding="utf-8")
    blocks = re.findall(r":root \{(.*?)\}", style, re.DOTALL)[:2]
    light, dark = (" ".join(re.findall(r"--[\w-]+: #\w+;", block)) for block in blocks)
    return light, dark


def _point(row: Row, comparison: Mapping[str, Any]) -> tuple[float, float] | None:
    quality, speed = row.get("quality"), row.get("speed")
    primary = (comparison["quality"] or {}).get("primary")
    if not quality or primary not in quality or not speed or speed.get("speedup") is None:
        return None
    return speed["speedup"], quality[primary]["mean"]


def _spread(row: Row, comparison: Mapping[str, Any]) -> float:
    values = row["quality"][comparison["quality"]["primary"]]
    sd: float | None = values["sd"]
    return values.get("stderr") or 0.0 if sd is None else sd


def _draw_row(axes: Axes, row: Row, comparison: Mapping[str, Any], style: Style, gid: str) -> str:
    """Draw a row's point and bars; returns its figures in words."""
    x, y = _point(row, comparison) or (0.0, 0.0)
    spread = _spread(row, comparison)
    low, high = (row["speed"].get(f"speedup_{end}") or x for end in ("low", "high"))
    axes.plot([low, high], [y, y], color=style.ink, linewidth=1.1, alpha=0.45, zorder=3)
    axes.plot([x, x], [y - spread, y + spread], color=style.ink, linewidth=1.1, alpha=0.45, zorder=3)
    filled = row["dense"] or row.get("frontier")
    (point,) = axes.plot(
        x,
        y,
        style.marker,
        color=style.ink,
        markersize=10 if row["dense"] else 7.5,
        markerfacecolor=style.ink if filled else PAPER,
        markeredgewidth=1.5,
        zorder=5,
    )
    point.set_gid(gid)
    primary = visible(comparison["quality"]["primary"])
    interval = f" [{low:.2f}, {high:.2f}]" if low != high else ""
    return f"{visible(row['name'])}: {primary} {y:.4g} ± {spread:.2g}, {x:.2f}x{interval}"


def _frontier(axes: Axes, rows: Sequence[Row], comparison: Mapping[str, Any]) -> None:
    if len(best := _best(rows, comparison)) > 1:
        axes.step(*zip(*best, strict=True), where="pre", color=MUTED, linewidth=1, alpha=0.55, zorder=1)


def _best(rows: Sequence[Row], comparison: Mapping[str, Any]) -> list[tuple[float, float]]:
    """The frontier's points, by speed."""
    return sorted(_point(row, comparison) or (0.0, 0.0) for row in rows if row.get("frontier"))


def _sweeps(
    axes: Axes, rows: Sequence[Row], comparison: Mapping[str, Any], styles: Mapping[str, Style]
) -> None:
    """Join the points of a label that a sweep ran at several budgets."""
    for label in dict.fromkeys(row["label"] for row in rows if row["point"]):
        swept = [row for row in rows if row["label"] == label and row["point"]]
        points = sorted(_point(row, comparison) or (0.0, 0.0) for row in swept)
        colour = styles[swept[0]["name"]].ink
        axes.plot(*zip(*points, strict=True), color=colour, linewidth=1.2, alpha=0.5, zorder=2)


def _drawn(axes: Axes, rows: Sequence[Row], comparison: Mapping[str, Any]) -> list[Box]:
    """Where points, bars and the frontier are, in pixels: no label goes there."""
    best = _best(rows, comparison)
    steps = [((x, b), (u, b)) for (x, _), (u, b) in pairwise(best)]
    steps += [((x, a), (x, b)) for (x, a), (_, b) in pairwise(best)]
    boxes = [_around(*axes.transData.transform(ends)) for ends in steps]
    for row in rows:
        x, y = _point(row, comparison) or (0.0, 0.0)
        spread, speed = _spread(row, comparison), row["speed"]
        ends = [
            (speed.get("speedup_low") or x, y),
            (speed.get("speedup_high") or x, y),
            (x, y - spread),
            (x, y + spread),
            (x, y),
        ]
        left, right, top, bottom, centre = axes.transData.transform(ends)
        boxes += [
            _around(left, right),
            _around(top, bottom),
            _around(centre, centre, 5),
        ]
    return boxes


def _around(one: Sequence[float], other: Sequence[float], margin: float = 1.5) -> Box:
    (left, right), (bottom, top) = (sorted(pair) for pair in zip(one, other, strict=True))
    return left - margin, bottom - margin, right + margin, top + margin
