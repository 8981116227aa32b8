"""What the speed benchmarks share: options, the line of environment, intervals, a Markdown table, JSON.

Not a benchmark itself. Every time is taken by ``prunekit.measure``: models interleaved in one process, the
first one twice a round as a control, medians with 95 % bootstrap intervals over the rounds.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from prunekit.measure.speed import measure_speed
from prunekit.measure.statistics import LEVEL, RESAMPLES
from prunekit.progress import Progress
from prunekit.recipe import SpeedSpec

WARMUP = (2, 1)
Result = dict[str, Any]


def parser(doc: str | None) -> argparse.ArgumentParser:
    """The options that every script has."""
    made = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    made.add_argument("--smoke", action="store_true", help="tiny shapes and two rounds: does it run at all?")
    made.add_argument("--out", type=Path, help="write settings, environment and every sample as JSON")
    made.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    made.add_argument("--dtype", choices=["fp32", "bf16", "fp16"], default="fp32")
    made.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    made.add_argument("--seed", type=int, default=0, help="of weights, inputs and the bootstrap")
    return made


def sizes(made: argparse.ArgumentParser, **defaults: tuple[int, ...]) -> None:
    """Add numbers as options.

    Args:
        made: the parser.
        defaults: by name, the default on a CPU, the one under ``--smoke`` and, where it is another, the one
            on a GPU.
    """
    for name, values in {**defaults, "warmup": WARMUP}.items():
        on_cpu, smoke, on_gpu = (*values, values[0])[:3]
        shown = f"{on_cpu}" if on_cpu == on_gpu else f"{on_cpu}, on a GPU {on_gpu}"
        made.add_argument(f"--{name.replace('_', '-')}", type=int, help=f"[default: {shown}; smoke: {smoke}]")
    made.set_defaults(_sizes={**defaults, "warmup": WARMUP})


def parsed(made: argparse.ArgumentParser, given: Sequence[str] | None) -> argparse.Namespace:
    """The options, with sizes that were not given filled in for this device."""
    options = made.parse_args(given)
    on_gpu = torch.device(options.device).type == "cuda"
    for name, values in vars(options).pop("_sizes").items():
        if getattr(options, name) is None:
            setattr(options, name, values[1] if options.smoke else values[-1 if on_gpu and values[2:] else 0])
    return options


def spec_of(options: argparse.Namespace, **changes: Any) -> SpeedSpec:
    """How to measure, as the options say."""
    return SpeedSpec(
        **{
            "batch_size": options.batch,
            "rounds": options.rounds,
            "warmup": options.warmup,
            "dtype": options.dtype,
            "threads": options.threads,
            "seed": options.seed,
            **changes,
        }
    )


def measured(
    models: Mapping[str, Any], inputs: Mapping[str, Any], spec: SpeedSpec, *, parts: bool = False
) -> Result:
    """What ``measure_speed`` finds, with a progress bar.

    Args:
        models: by name, the reference first.
        inputs: one batch.
        spec: how to measure.
        parts: also time what ``generate`` consists of, which takes three times as long.

    Raises:
        SystemExit: if one of the models could not be measured, with the reason.
    """
    result = measure_speed(models, inputs, spec, parts=parts, progress=Progress())
    failed = [f"{name}: {entry['error']}" for name, entry in result["models"].items() if "error" in entry]
    if failed:
        raise SystemExit("\n".join(failed))
    return result


def where(result: Result) -> str:
    """One line: processor, threads, versions, number format, attention, rounds, clock."""
    found = result["environment"]
    machine = f"{found['gpu']}, driver {found['driver']}"
    if result["device"] != "cuda":
        machine = f"CPU: {found['cpu'] or found['system']}, {result['threads']} threads"
    return (
        f"{machine}; torch {found['torch']}, transformers {found['transformers']}, prunekit "
        f"{found['prunekit']}; {result['dtype']}, {result['attention']} attention; {result['rounds']} rounds"
        f"; {result['clock']} clock"
    )


def noise(result: Result) -> str:
    """One line: what was run, how far the reference was from itself, and what the measurement says of it."""
    shapes = ", ".join(f"{name} {shape}" for name, shape in result["input_shapes"].items())
    if result["num_beams"]:
        shapes += f", {result['num_beams']} beams, {result['new_tokens']} new tokens"
    return f"{shapes}; control {interval(*time_ratio(result['control']), 3)}; {result['noise']['says']}"


def speedup(entry: Result, digits: int = 2) -> str:
    """A speedup with its interval, and "no difference" where it is inside the noise."""
    text = interval(entry["speedup"], entry["speedup_low"], entry["speedup_high"], digits)
    return f"{text}, no difference" if entry["verdict"] == "no difference" else text


def time_ratio(entry: Result) -> tuple[float, float, float]:
    """Time of a model over that of the reference, with its interval: a speedup turned over."""
    return 1 / entry["speedup"], 1 / entry["speedup_high"], 1 / entry["speedup_low"]


def interval(value: float, low: float, high: float, digits: int = 2) -> str:
    """``1.23 [1.20, 1.26]``."""
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def rest_of(
    whole: Sequence[float], parts: Sequence[Sequence[float]], seed: int
) -> tuple[float, float, float]:
    """What parts leave of a whole, as a share of it, with its bootstrap interval over the rounds.

    Args:
        whole: one time a round.
        parts: the times of each part in the same rounds.
        seed: of the bootstrap.

    Returns:
        ``(share, low, high)``; below 0 where the parts by themselves took longer than the whole.
    """
    times = np.asarray([whole, *parts])  # [1 + P, R]
    count = times.shape[1]
    drawn = np.random.default_rng(seed).integers(0, count, size=(RESAMPLES, count))
    medians = np.median(times[:, drawn], axis=2)  # [1 + P, resamples]
    low, high = np.quantile(1 - medians[1:].sum(0) / medians[0], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    middle = np.median(times, axis=1)
    return float(1 - middle[1:].sum() / middle[0]), float(low), float(high)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, the first column to the left and the others to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def report(
    name: str, options: argparse.Namespace, results: Mapping[str, Result], shown: str, facts: Result
) -> None:
    """Print the table, the line of environment, inputs and control of each measurement; write the JSON.

    Args:
        name: of the benchmark.
        options: as parsed.
        results: what ``measure_speed`` found, by a name each.
        shown: the table.
        facts: what else the JSON should hold.
    """
    if options.smoke:
        print("Smoke test: tiny shapes, two rounds. These figures mean nothing.\n")
    print(shown)
    first = next(iter(results.values()))
    print(f"\n{where(first)}\n")
    for label, result in results.items():
        print(f"- {label}: {noise(result)}")
    if options.out is None:
        return
    content = {
        "benchmark": name,
        "options": {key: value for key, value in vars(options).items() if key != "out"},
        "environment": first["environment"],
        **facts,
        "results": {
            label: {key: value for key, value in result.items() if key != "environment"}
            for label, result in results.items()
        },
        "table": shown.splitlines(),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(content, indent=1) + "\n")
