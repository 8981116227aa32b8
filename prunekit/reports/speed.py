"""A speed measurement for people: a table for each batch size and length, with what limits its meaning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prunekit.reports.markdown import bullets, escape, table

FEW_ROUNDS = 5

_COLUMNS = (
    "model",
    "ms: median (p10 to p90)",
    "p99",
    "speedup, 95 % interval",
    "samples/s",
    "tokens/s",
    "parameters",
    "GMACs",
    "GFLOP/s",
    "peak MiB",
    "J a call",
)
_PARTS = {
    "encoder": "encoder",
    "decoder": "decoder",
    "lm_head": "LM head",
    "decoder_and_lm_head": "decoder and LM head",
    "rest": "rest",
    "first_token": "first token",
    "per_token": "each further token",
    "natural": "natural length",
}
_IDLE = ("idle", "application clocks", "display clocks")  # reasons that do not mean a GPU held back


@dataclass(frozen=True)
class SpeedTable:
    """One batch size at one length.

    ``parts`` are rows like ``rows``, of where the time of ``generate`` goes; empty for other models.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    parts_header: Sequence[str]
    parts: Sequence[Sequence[str]]
    notes: Sequence[str]


def speed_tables(result: Mapping[str, Any]) -> Iterator[SpeedTable]:
    """A table for each cell of a sweep; columns that no row fills are left out.

    Args:
        result: what `prunekit.measure.sweep.measure_sweep` returned.
    """
    for cell in result["cells"]:
        rows = _filled([_COLUMNS, *(_row(cell, name) for name in cell["models"])])
        parts = _parts(cell["models"])
        yield SpeedTable(_title(cell), rows[0], rows[1:], parts[0], parts[1:], _notes(cell))


def render_speed_markdown(result: Mapping[str, Any]) -> str:
    """The same tables as one Markdown text."""
    blocks = ["# Speed", escape(machine_sentence(result))]
    for found in speed_tables(result):
        blocks += [f"## {escape(found.title)}", table(found.header, found.rows)]
        if found.parts:
            blocks.append(table(found.parts_header, found.parts))
        blocks += bullets("", map(escape, found.notes))
    return "\n\n".join(blocks) + "\n"


def machine_sentence(result: Mapping[str, Any]) -> str:
    """What was timed, how, and on what."""
    measured = next((cell for cell in result["cells"] if "device" in cell), None)
    if measured is None:
        return "Nothing could be measured."
    environment = result["environment"]
    on_gpu = measured["device"] != "cpu"
    said = [environment["gpu" if on_gpu else "cpu"] or measured["device"]]
    said += [f"threads {measured['threads']}"] if not on_gpu else []
    said += [measured["dtype"], measured["attention"], f"torch {environment['torch']}"]
    call = "forward"
    if measured["mode"] == "generate":
        call = f"generate, {measured['new_tokens']} tokens forced, beams {measured['num_beams']}"
    said += [
        word for key, word in (("static_cache", "static cache"), ("compile", "compiled")) if measured[key]
    ]
    rounds = f"{measured['rounds']} interleaved rounds after {measured['warmup']} to warm up"
    return f"{', '.join(said)}: {call}; {rounds}; compared with {result['reference']}."


def _title(cell: Mapping[str, Any]) -> str:
    length = cell.get("input_tokens")
    return f"batch {cell['batch_size']}" + (f", {length} input tokens" if length else "")


def _row(cell: Mapping[str, Any], name: str) -> tuple[str, ...]:
    row = cell["models"][name]
    if "error" in row:
        return (name, "not measured", *[""] * (len(_COLUMNS) - 2))
    macs = row["macs"]
    return (
        name,
        f"{_ms(row['median_ms'])} ({_ms(row['p10_ms'])} to {_ms(row['p90_ms'])})",
        _ms(row["p99_ms"]),
        _speedup(row, is_reference=name == cell["reference"]),
        _figure(row["samples_per_s"]),
        _figure(row.get("tokens_per_s")),
        f"{row['parameters']:,}",
        _figure(None if macs is None else macs / 1e9),
        _figure(row["achieved_gflops"]),
        _figure(row["peak_mib"]),
        _figure(row["energy_j"]),
    )


def _speedup(row: Mapping[str, Any], *, is_reference: bool) -> str:
    if "speedup" in row:
        interval = f"[{row['speedup_low']:.2f}, {row['speedup_high']:.2f}]"
        return f"{row['speedup']:.2f}x {interval}, {row['verdict']}"
    return "reference" if is_reference else ""


def _parts(models: Mapping[str, Any]) -> list[tuple[str, ...]]:
    measured = {name: row["parts"] for name, row in models.items() if "parts" in row}
    if not measured:
        return [()]
    header = ("ms, median", *_PARTS.values())
    rows = ((name, *(_part(parts, key) for key in _PARTS)) for name, parts in measured.items())
    return _filled([header, *rows])


def _part(parts: Mapping[str, Any], key: str) -> str:
    if key not in parts:
        return ""
    tokens = parts[key].get("tokens")
    return _ms(parts[key]["median_ms"]) + (f" ({tokens} tokens)" if tokens else "")


def _filled(rows: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    """The rows without the columns in which only the header says something."""
    columns = [column for column in zip(*rows, strict=True) if any(column[1:])]
    return list(zip(*columns, strict=True))


def _notes(cell: Mapping[str, Any]) -> list[str]:
    notes = [f"{name}: {row['error']}" for name, row in cell["models"].items() if "error" in row]
    if "rounds" not in cell:
        return notes
    if "noise" in cell:
        says = cell["noise"]["says"]
        notes.append(says[0].upper() + says[1:])
    if cell["rounds"] < FEW_ROUNDS:
        notes.append(f"Only {cell['rounds']} timed rounds: too few for the interval to mean much.")
    notes += _gpu_notes([cell["state"][when]["gpu"] for when in ("before", "after")])
    return notes


def _gpu_notes(states: Sequence[Mapping[str, Any] | None]) -> list[str]:
    known = [state for state in states if state]
    reasons = {reason for state in known for reason in state["throttle_reasons"] or () if reason not in _IDLE}
    others = {found["pid"] for state in known for found in state["processes"] if not found["own"]}
    notes = []
    if reasons:
        notes.append(f"The GPU's clocks were held down: {', '.join(sorted(reasons))}.")
    if others:
        notes.append(f"Other processes were on the GPU: {', '.join(map(str, sorted(others)))}.")
    return notes


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:.1f}" if milliseconds >= 10 else f"{milliseconds:.3g}"


def _figure(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
