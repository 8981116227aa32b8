"""What ``prunekit doctor`` found, for people: on the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from prunekit.reports.markdown import bullets, escape, table

Found = Mapping[str, Any]
SHOWN_WIDTHS = 16
PART_WORDS = {
    "lm_head": "LM head",
    "decoder_and_lm_head": "decoder and LM head",
    "rest": "rest (beam bookkeeping, caches, set-up)",
}


@dataclass(frozen=True)
class _Section:
    """Lines, a table, and notes, under one title; each may be empty."""

    title: str
    lines: Sequence[str]
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    notes: Sequence[str] = ()


def gain(row: Found) -> str:
    """A speedup with its interval: ``1.52x [1.48, 1.57]``."""
    return f"{row['speedup']:.2f}x [{row['speedup_low']:.2f}, {row['speedup_high']:.2f}]"


def render_markdown(found: Found) -> str:
    """The whole diagnosis as Markdown.

    Args:
        found: what ``prunekit.doctor.diagnose`` returned.
    """
    blocks = [f"# {escape(found['model'])}", escape(settings_line(found))]
    for section in _sections(found):
        blocks.append(f"## {section.title}")
        blocks += bullets("", map(escape, section.lines))
        if section.rows:
            blocks.append(table(section.header, section.rows))
        blocks += bullets("", map(escape, section.notes))
    return "\n\n".join(blocks) + "\n"


def print_diagnosis(found: Found, console: Console) -> None:
    """Print the whole diagnosis; text from models and paths is never read as markup."""
    console.print(Text(found["model"]), soft_wrap=True)
    console.print(Text(settings_line(found)), soft_wrap=True)
    for section in _sections(found):
        console.print()
        console.print(Text(section.title, style="bold"))
        for line in section.lines:
            console.print(Text(line), soft_wrap=True)
        if section.rows:
            figures = Table(box=None, pad_edge=False, header_style="")
            for number, column in enumerate(section.header):
                figures.add_column(Text(column), overflow="fold", justify="right" if number else "left")
            for row in section.rows:
                figures.add_row(*map(Text, row))
            console.print(figures)
        for line in section.notes:
            console.print(Text(line), soft_wrap=True)


def settings_line(found: Found) -> str:
    """What was measured, and on what."""
    settings = found["settings"]
    on_cpu = settings["device"] == "cpu"
    machine = (settings.get("environment") or {}).get("cpu" if on_cpu else "gpu")
    kind = "CPU" if on_cpu else "GPU"
    said = [settings["mode"], f"{kind}: {machine}" if machine else kind]
    words = {
        "dtype": "{}",
        "attention": "{} attention",
        "batch_size": "batch {}",
        "input_tokens": "{} input tokens",
        "new_tokens": "{} new tokens",
        "num_beams": "beams {}",
        "threads": "threads {}",
        "rounds": "{} interleaved rounds",
    }
    said += [text.format(settings[key]) for key, text in words.items() if settings.get(key) is not None]
    return f"{', '.join(said)}: {found['median_ms']:.1f} ms a call."


def _sections(found: Found) -> list[_Section]:
    says = found["says"]
    noise = found["noise"]
    verdict = [
        noise["says"] if noise["too_noisy"] else None,
        *(says[key] for key in ("time", "bound", "width", "dominant", "cuts")),
    ]
    sections = [_Section("Diagnosis", [line for line in verdict if line]), _try_next(found)]
    if found["run"]:
        sections.append(_run(found))
    if found["time"]:
        sections.append(_time(found["time"]))
    return [*sections, _batches(found), _widths(found)]


def _try_next(found: Found) -> _Section:
    measured = [row for row in found["experiments"] if "speedup" in row]
    rows = [(f"{row['name']}: {row['change']}", gain(row), row["verdict"]) for row in measured]
    rows += [
        (f"{row['name']}: {row['change']}", "", f"not measured: {row['error']}")
        for row in found["experiments"]
        if "error" in row
    ]
    control = f"The model against itself: {gain(found['control'])}; gains inside that are no difference."
    header = ("change", "gain, 95 % interval", "verdict")
    notes = [
        f"In a recipe, {row['name']} ({gain(row)}): {'; '.join(row['how'])}"
        for row in measured
        if row["verdict"] == "faster"
    ]
    return _Section("What to try next, by measured gain", [control], header, rows, notes)


def _time(rows: Sequence[Found]) -> _Section:
    cells = [(part_name(row["part"]), f"{row['ms']:.2f}", f"{row['share']:.0%}") for row in rows]
    return _Section("Where the time goes", [], ("part", "ms", "share of the call"), cells)


def _run(found: Found) -> _Section:
    run, says = found["run"], found["says"]["run"]
    if "error" in run:
        return _Section("Against the dense model", [says])
    rows: list[Sequence[str]] = [("call", f"{run['dense_ms']:.2f}", f"{run['pruned_ms']:.2f}", gain(run))]
    rows += [
        (part_name(row["part"]), f"{row['dense_ms']:.2f}", f"{row['pruned_ms']:.2f}", _share(row))
        for row in run["parts"]
    ]
    for row in run["kept"]:
        rows += [
            (f"{row['stack']} {unit}s", f"{row[unit][0]:,}", f"{row[unit][1]:,}", "")
            for unit in ("block", "head", "neuron")
        ]
    for key, what in (("parameters", "parameters"), ("macs", "MACs")):
        if run[key]:
            rows.append((what, *(f"{count:,}" for count in run[key]), ""))
    header = ("ms, or count", "dense", "pruned", "speedup, or share of what went")
    return _Section(f"Against the dense model, {run['dense']}", [says], header, rows)


def _share(row: Found) -> str:
    return "" if row["removed_share"] is None else f"{row['removed_share']:.0%}"


def _batches(found: Found) -> _Section:
    costs = {pair["batch"]: pair for pair in found["doublings"]}
    rows, lines = [], []
    for row in found["batches"]:
        if "error" in row:
            lines.append(f"Batch {row['batch']} could not be measured, nor any larger one: {row['error']}.")
            continue
        pair, narrow = costs.get(row["batch"]), row.get("narrow")
        rows.append(
            (
                str(row["batch"]),
                f"{row['median_ms']:.2f}",
                f"{row['median_ms'] / row['batch']:.3f}",
                f"{pair['ratio']:.2f}x [{pair['low']:.2f}, {pair['high']:.2f}]" if pair else "",
                f"{gain(narrow)}, {narrow['verdict']}" if narrow else "",
            )
        )
    header = ("batch", "ms a call", "ms an example", "time of twice the batch", "half the neurons")
    return _Section("Batch sizes", lines, header, rows)


def _widths(found: Found) -> _Section:
    odd = found["widths"]["odd"]
    rows = [
        (row["name"], f"{row['units']:,}", f"{row['width']:,}", ", ".join(map(str, row["misses"])))
        for row in odd[:SHOWN_WIDTHS]
    ]
    lines = [found["says"]["widths"]]
    if len(odd) > SHOWN_WIDTHS:
        lines.append(f"The first {SHOWN_WIDTHS} are shown; --json lists all {len(odd)}.")
    return _Section("Widths", lines, ("units", "number", "width", "misses a multiple of"), rows)


def part_name(part: str) -> str:
    """A part of a call as tables call it."""
    return PART_WORDS.get(part, part)
