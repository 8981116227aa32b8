"""Figures drawn by matplotlib as inline SVG whose colours the page's style decides."""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from prunekit.shown import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Stand-ins that matplotlib writes and `svg` turns into the variables of style.css.
INK, MUTED, LINE, PAPER = "#010101", "#020202", "#030303", "#040404"
SERIES = tuple(f"#0500{number:02x}" for number in range(8))
_VARIABLES = {INK: "ink", MUTED: "muted", LINE: "line", PAPER: "paper"} | {
    colour: f"series-{number}" for number, colour in enumerate(SERIES)
}
_SVG = "http://www.w3.org/2000/svg"
_HREF = "{http://www.w3.org/1999/xlink}href"
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",  # letters stay letters: they can be read, searched and take the page's font
    "svg.hashsalt": "prunekit",
    "font.family": "DejaVu Sans",  # ships with matplotlib, and wider than most: what fits in it fits
    "font.size": 10,
    "text.color": INK,
    "text.parse_math": False,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": LINE,
    "axes.formatter.use_mathtext": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "ytick.major.size": 0,
    "xtick.major.size": 3,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
}

Box = tuple[float, float, float, float]  # left, bottom, right, top


@contextmanager
def drawing(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    """A figure of so many CSS pixels and its axes, in the style of the pages; draw and convert it inside."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_SETTINGS), warnings.catch_warnings():
        # A name in a script that the measuring font lacks is still drawn, by the reader's fonts.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=(width / 72, height / 72), dpi=72, layout="constrained")
        figure.get_layout_engine().set(w_pad=0.03, h_pad=0.03)  # type: ignore[union-attr, call-arg]
        axes = figure.add_subplot()
        axes.grid(axis="y")
        for patch in (figure.patch, axes.patch):
            patch.set_visible(False)
        yield figure, axes


def svg(figure: Figure, description: str, tips: Mapping[str, str] | None = None) -> str:
    """The figure as an ``<svg>`` element with text as text and colours as CSS variables.

    Args:
        figure: one that :func:`drawing` gave.
        description: what a reader who cannot see it is told.
        tips: text shown on hovering an artist, by its gid.
    """
    written = io.StringIO()
    figure.savefig(written, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    ElementTree.register_namespace("", _SVG)
    root = ElementTree.fromstring(written.getvalue())
    # Matplotlib's own style sheet would hold for the whole page.
    for found in (*root.findall(f"{{{_SVG}}}metadata"), *root.findall(f"{{{_SVG}}}defs[{{{_SVG}}}style]")):
        root.remove(found)
    prefix = "d" + hashlib.sha256((description + written.getvalue()).encode()).hexdigest()[:8]
    for element in root.iter():
        _tidy(element, prefix, tips or {})
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.attrib |= {"role": "img", "aria-label": visible(description)}
    text = ElementTree.tostring(root, encoding="unicode")
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var(--{variable})")
    return text


def _tidy(element: ElementTree.Element, prefix: str, tips: Mapping[str, str]) -> None:
    """Make names unique on a page with several drawings, fonts the page's, and tips of artists' names."""
    name = element.attrib.pop("id", None)
    if name is not None and name in tips:
        tip = ElementTree.Element(f"{{{_SVG}}}title")
        tip.text = visible(tips[name])
        element.insert(0, tip)
    elif name and re.fullmatch(r"[a-z]*[0-9a-f]{10}", name):
        element.set("id", f"{prefix}-{name}")
    if link := element.attrib.pop(_HREF, None):
        element.set("href", link.replace("#", f"#{prefix}-"))
    if "clip-path" in element.attrib:
        element.set("clip-path", element.attrib["clip-path"].replace("#", f"#{prefix}-"))
    if element.tag == f"{{{_SVG}}}text":
        style = element.attrib.get("style", "")
        style = re.sub(r"font: ([\d.]+px) [^;]*", r"font-size: \1", style)
        element.set("style", re.sub(r"font-family: [^;]*;? ?", "", style))


def place_labels(axes: Axes, points: Sequence[tuple[float, float, str, str]], taken: Sequence[Box]) -> None:
    """Write a name beside each point where it hides nothing; far from it, with a line to it.

    Args:
        axes: with its limits and its layout final.
        points: x, y, name and colour.
        taken: what else is drawn, in pixels of the figure.
    """
    inside, occupied = axes.get_window_extent(), list(taken)
    axes.autoscale(False)  # the lines drawn here must not move what is there
    frame = (inside.x0, inside.y0, inside.x1, inside.y1)
    figure = axes.get_figure(root=True)
    assert figure is not None
    for x, y, name, colour in points:
        here = tuple(axes.transData.transform((x, y)).tolist())
        text = figure.text(0, 0, name, color=colour, fontsize=9.5, va="center", ha="left")
        extent = text.get_window_extent()
        size = (extent.width, extent.height)
        spot = min(_spots(here, size), key=lambda spot: spot[0] + _cost(spot[1], frame, occupied))[1]
        occupied.append(spot)
        start = figure.transFigure.inverted().transform((spot[0], (spot[1] + spot[3]) / 2))
        text.set_position((float(start[0]), float(start[1])))
        nearest = [min(max(here[axis], spot[axis]), spot[axis + 2]) for axis in (0, 1)]
        if (nearest[0] - here[0]) ** 2 + (nearest[1] - here[1]) ** 2 > 12**2:
            ends = axes.transData.inverted().transform([list(here), nearest])
            axes.plot(ends[:, 0], ends[:, 1], color=colour, linewidth=0.7, alpha=0.6, zorder=2)


def _spots(here: tuple[float, ...], size: tuple[float, float]) -> Iterator[tuple[float, Box]]:
    """Places for a label around a point, each with what it costs to be there: near and right come first."""
    width, height = size
    for distance in (7, 13, 22, 34, 48):
        across, up = distance + width / 2, distance + height / 2
        sides = [(across, 0.0), (-across, 0.0), (0.0, up), (0.0, -up)]
        sides += [(a * across * 0.85, b * up * 0.85) for a in (1, -1) for b in (1, -1)]
        for rank, (right, above) in enumerate(sides):
            x, y = here[0] + right - width / 2, here[1] + above - height / 2
            yield distance + rank, (x, y, x + width, y + height)


def _cost(spot: Box, frame: Box, occupied: Sequence[Box]) -> float:
    area = (spot[2] - spot[0]) * (spot[3] - spot[1])
    hidden = sum(_overlap(spot, other) for other in occupied)
    return 400 * (hidden + 2 * (area - _overlap(spot, frame))) / area


def _overlap(a: Box, b: Box) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0) * max(height, 0)
