"""The figures of docs/scaling.md, made of benchmarks/results/scaling.json, and their picture.

``python docs/scaling.py`` draws docs/results/scaling.svg anew.
"""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from prunekit.files import write_text
from prunekit.reports import markdown
from prunekit.reports.drawing import MUTED, SERIES, drawing, svg
from prunekit.reports.plots import standalone

DOCS = Path(__file__).parent
STORED = DOCS.parent / "benchmarks" / "results" / "scaling.json"
PICTURE = DOCS / "results" / "scaling.svg"
AXES = {
    "layers": "layers of each stack",
    "heads": "heads of each attention",
    "neurons": "neurons of each FFN",
    "examples": "examples",
}
STEP = "training step"
WIDTH, HEIGHT = 760, 270
LINE = 120
MIB = 1024 * 1024
GB = 1e9

# Vocabulary, width, head size, heads, neurons and blocks of each stack of the published T5s.
T5 = {
    "t5-small": (32128, 512, 64, 8, 2048, 6),
    "t5-base": (32128, 768, 64, 12, 3072, 12),
    "t5-large": (32128, 1024, 64, 16, 4096, 24),
    "t5-3b": (32128, 1024, 128, 32, 16384, 24),
    "t5-11b": (32128, 1024, 128, 128, 65536, 24),
}
# Bytes a parameter, by what a process does; docs/scaling.md says what they consist of.
BYTES = {"NASH": 24, "NASH, several processes": 28, "CoFi": 20, "recovery": 16, "evaluation": 8, "scores": 4}
HOST_BYTES = 28


def curves() -> str:
    """The command, the table of growths, and where they were measured."""
    return _shown(_stored(), "curves")


def processes() -> str:
    """The command, and how much faster several processes are."""
    return _shown(_stored(), "processes")


def memory() -> str:
    """What a training step holds whatever the batch is, and what each example adds, by the batch's curve."""
    found = _stored()
    curve = _curve(found, STEP, "batch")
    sizes = [point["size"] for point in curve["points"]]
    mib = [point["tensor_mib"] for point in curve["points"]]
    example, fixed = np.polyfit(sizes, mib, 1)
    weights = curve["weights_mib"]
    told = (
        f"Along the batch, a training step of the middle model ({weights:.1f} MiB of weights) holds "
        f"{fixed:.0f} MiB, {fixed / weights:.1f} times its weights, and {1024 * example:.0f} KiB more for "
        "each example."
    )
    return textwrap.fill(told, LINE, break_long_words=False, break_on_hyphens=False)


def devices() -> str:
    """What the weights of published T5s take on a device before any activation, in GB."""
    rows = []
    for name, shape in T5.items():
        count = parameters(*shape)
        cells = [f"{each * count / GB:.1f}" for each in (*BYTES.values(), HOST_BYTES)]
        rows.append((name, f"{count / 1e6:,.1f} M", *cells))
    header = ("model", "parameters", *(f"{name} ({each})" for name, each in BYTES.items()))
    return markdown.table((*header, f"check, on the host ({HOST_BYTES})"), rows)


def parameters(vocabulary: int, width: int, size: int, heads: int, neurons: int, depth: int) -> int:
    """Parameters of a T5 with ``depth`` blocks in each stack, embeddings tied."""
    attention, feed_forward = 4 * width * heads * size, 2 * width * neurons
    encoder = attention + feed_forward + 2 * width  # with its norms
    decoder = 2 * attention + feed_forward + 3 * width
    return vocabulary * width + depth * (encoder + decoder) + 2 * (32 * heads + width)


def picture() -> str:
    """Growth against size for each operation, a panel an axis, as a file of its own."""
    found = _stored()
    names = list(dict.fromkeys(curve["operation"] for curve in found["curves"]))
    with drawing(WIDTH, HEIGHT) as (figure, axes):
        axes.remove()
        panels = figure.subplots(1, len(AXES), sharey=True)
        handles: dict[str, Any] = {}
        for panel, (axis, title) in zip(panels, AXES.items(), strict=True):
            _frame(panel, axis, title)
            for curve in found["curves"]:
                on_batch = axis == "examples" and curve["axis"] == "batch"
                if curve["axis"] == axis or on_batch:
                    colour = SERIES[names.index(curve["operation"])]
                    label = f"{curve['operation']}, by its batch" if on_batch else curve["operation"]
                    handles.setdefault(label, _draw(panel, curve, colour, "--" if on_batch else "-"))
        panels[0].set_ylabel("times as long")
        labels = sorted(handles, key=lambda label: names.index(label.partition(", by")[0]))
        lines = [handles[label] for label in labels]
        figure.legend(lines, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
        ends = "; ".join(
            f"{curve['operation']} by {curve['axis']}: exponent {curve['exponents']['time'][0]:.2f}"
            for curve in found["curves"]
        )
        drawn = svg(figure, f"Times as long against times as large. {ends}.")
    return standalone(drawn, WIDTH, HEIGHT)


def _frame(panel: Any, axis: str, title: str) -> None:
    panel.patch.set_visible(False)
    panel.grid(axis="y")
    panel.set_xscale("log", base=2)
    panel.set_yscale("log", base=2)
    for each in (panel.xaxis, panel.yaxis):
        # Their own labels are formulas, and no text here is read as one.
        each.set_major_formatter(lambda value, _: f"{value:g}x")
        each.set_minor_formatter(lambda value, _: "")
    panel.set_title(title, loc="left", fontsize=10, color=MUTED)
    panel.axline((1, 1), (2, 2), color=MUTED, linewidth=1, linestyle=(0, (1, 2)), zorder=1)
    panel.tick_params(labelsize=9)


def _draw(panel: Any, curve: Mapping[str, Any], colour: str, dash: str) -> Any:
    first = curve["points"][0]["size"]
    xs = [point["size"] / first for point in curve["points"]]
    for x, point in zip(xs, curve["points"], strict=True):
        _, low, high = point["growth"]
        panel.plot([x, x], [low, high], color=colour, linewidth=1.1, alpha=0.5, zorder=2)
    ys = [point["growth"][0] for point in curve["points"]]
    (line,) = panel.plot(xs, ys, color=colour, linestyle=dash, linewidth=1.4, marker=".", zorder=3)
    return line


def _stored() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(STORED.read_text(encoding="utf-8"))
    return found


def _curve(found: Mapping[str, Any], operation: str, axis: str) -> dict[str, Any]:
    return next(c for c in found["curves"] if (c["operation"], c["axis"]) == (operation, axis))


def _shown(found: Mapping[str, Any], name: str) -> str:
    environment, load = found["environment"], found["load_average"]
    threads, rounds = found["options"]["threads"], found["options"]["rounds"]
    where = (
        f"CPU: {environment['cpu']}, {environment['cpu_count']} cores, {threads} "
        f"{'thread' if threads == 1 else 'threads'} a process; torch {environment['torch']}, transformers "
        f"{environment['transformers']}, float32; {rounds} rounds; load average {load[0]:.1f} before, "
        f"{load[1]:.1f} after."
    )
    if name == "curves":
        controls = [curve["control"][0] for curve in found["curves"]]
        where += (
            " The smallest model of a curve, run twice a round, took between "
            f"{min(controls):.2f} and {max(controls):.2f} times as long as itself."
        )
    table = "\n".join(found["tables"][name])
    filled = textwrap.fill(where, LINE, break_long_words=False, break_on_hyphens=False)
    return f"```sh\n{found['command']}\n```\n\n{table}\n\n{filled}"


if __name__ == "__main__":
    if sys.argv[1:]:
        sys.exit("docs/scaling.py takes no arguments: it draws what benchmarks/results/scaling.json holds.")
    write_text(PICTURE, picture())
