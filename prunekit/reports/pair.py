"""The dense model's and the pruned one's times in a run's report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prunekit.reports.markdown import escape, table
from prunekit.reports.speed import FEW_ROUNDS

Report = Mapping[str, Any]

SPEED_HEADER = ("ms: median (p10 to p90)", "dense", "pruned", "speedup, 95 % interval")
_PART_WORDS = {
    "natural": "generate, natural length",
    "traced": "the same call with stamps inside, parts below",
    "encoder": "encoder",
    "decoder": "decoder",
    "decoder_and_lm_head": "decoder and LM head",
    "lm_head": "LM head",
    "rest": "rest (search, caches, set-up)",
    "first_token": "first token (encoder included)",
    "per_token": "each further token",
}


def speed_section(report: Report) -> list[str]:
    """Markdown blocks: the settings, a table of times, what to know; or that nothing was measured."""
    if not report.get("speed"):
        return ["Not measured in this run."]
    rows = speed_rows(report["speed"])
    return [escape(speed_settings(report)), table(SPEED_HEADER, rows), *speed_notes(report)]


def speed_rows(speed: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """What was timed, dense, pruned and speedup: the call, its parts, the control, then memory."""
    rows = [_speed_row(call_text(speed), speed["dense"], speed["pruned"], speed)]
    for part, dense in speed["dense"].get("parts", {}).items():
        pruned = speed["pruned"]["parts"][part]
        lengths = f" ({dense['tokens']} and {pruned['tokens']} tokens)" if "tokens" in dense else ""
        rows.append(_speed_row(_PART_WORDS.get(part, part) + lengths, dense, pruned, pruned))
    if "control" in speed:
        rows.append(
            _speed_row("control: dense a second time", speed["dense"], speed["control"], speed["control"])
        )
    for key, what in (("peak_mib", "peak memory, MiB"), ("weights_mib", "weights, MiB")):
        sides = [speed[side].get(key) for side in ("dense", "pruned")]
        if None not in sides:
            rows.append((what, *(f"{side:,.1f}" for side in sides), ""))
    return rows


def _speed_row(
    what: str, dense: Mapping[str, Any], pruned: Mapping[str, Any], compared: Mapping[str, Any]
) -> tuple[str, ...]:
    spread = (
        f"{ms_text(s['median_ms'])} ({ms_text(s['p10_ms'])} to {ms_text(s['p90_ms'])})"
        for s in (dense, pruned)
    )
    return (what, *spread, speedup_text(compared))


def speedup_text(compared: Mapping[str, Any]) -> str:
    """A speedup with its interval and verdict."""
    interval = f"{compared['speedup']:.2f}x [{compared['speedup_low']:.2f}, {compared['speedup_high']:.2f}]"
    return f"{interval}, {compared['verdict']}" if "verdict" in compared else interval


def ms_text(milliseconds: float) -> str:
    """Milliseconds to three digits or more."""
    return f"{milliseconds:.1f}" if milliseconds >= 10 else f"{milliseconds:.3g}"


def call_text(speed: Mapping[str, Any]) -> str:
    """What was timed."""
    forced = speed.get("new_tokens")
    return f"generate, {forced} tokens forced" if forced else "forward"


def device_text(speed: Mapping[str, Any]) -> str:
    """``CPU`` or ``GPU``."""
    return "CPU" if speed["device"] == "cpu" else "GPU"


def speed_settings(report: Report) -> str:
    """Machine and settings of the measurement in one line."""
    speed = report["speed"]
    machine = speed.get("environment") or report.get("environment") or {}
    name = machine.get("cpu" if speed["device"] == "cpu" else "gpu")
    said = [f"{device_text(speed)}: {name}" if name else device_text(speed)]
    said += [str(speed[key]) for key in ("dtype", "attention") if speed.get(key)]
    words = {
        "batch_size": "batch {}",
        "input_tokens": "{} input tokens",
        "num_beams": "beams {}",
        "threads": "threads {}",
        "rounds": "{} interleaved rounds",
        "warmup": "{} warm-up rounds before them",
    }
    said += [text.format(speed[key]) for key, text in words.items() if speed.get(key) is not None]
    return ", ".join(said) + "."


def speed_notes(report: Report) -> list[str]:
    """What limits the meaning of the times; nothing where none were taken."""
    speed = report.get("speed")
    if not speed:
        return []
    notes = []
    if speed["device"] == "cpu":
        notes.append("Times are of a CPU; a GPU may rank the models differently.")
    if speed.get("rounds", FEW_ROUNDS) < FEW_ROUNDS:
        notes.append(f"Only {speed['rounds']} timed rounds: too few for the interval to mean much.")
    return notes
