"""How the cost of training, scoring and evaluating grows with layers, heads, neurons, data and processes.

    python benchmarks/scaling.py --rounds 5 --processes 1 2 --out benchmarks/results/scaling.json
    python benchmarks/scaling.py --operations fisher --axes layers heads

A curve is one operation on models that differ in one number. All its models are in one process and have their
turns in rounds, in changing order, the smallest one twice as a control. A growth is the ratio of two medians
to the smallest model's, with a 95 % bootstrap interval over the rounds. The exponent is the slope of a
straight line through the logarithms: 1 where twice the size takes twice the time. Beside it stand the same
slope of the multiply-adds that torch counts in the same calls, which is what theory promises, fixed parts
such as the head included, and that of the bytes of tensors alive at once, weights included.

With ``--processes`` each operation is also run on its middle model by so many processes over gloo, each with
``--threads`` of its own, launched by turns; the examples of a batch are dealt out to them. Everything is run
on the CPU, in float32.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bench
import numpy as np
import scaling_work as work
import torch

from prunekit import ranks
from prunekit.measure.environment import environment_record
from prunekit.measure.rounds import turn_order
from prunekit.measure.statistics import LEVEL, RESAMPLES, ratio_interval, summary
from prunekit.progress import Progress

LAUNCHES = 3  # of each number of processes
CONTROL = "again"
MIB = 1024 * 1024


@dataclass(frozen=True)
class Operation:
    """One kind of work, the middle of its curves, and what theory says of each.

    Args:
        call: does it once.
        batch: examples of a batch.
        examples: see ``scaling_work.Shape``.
        theory: by axis, how time should grow; a, b and c are constants.
    """

    call: work.Call
    batch: int
    examples: int
    theory: Mapping[str, str]


LAYER = {"layers": "a + b L", "heads": "a + b H", "neurons": "a + b F"}
OPERATIONS = {
    "training step": Operation(work.training_step, 16, 64, {**LAYER, "batch": "a + b B"}),
    "training epoch": Operation(work.training_epoch, 16, 64, {"examples": "b N"}),
    "fisher": Operation(work.fisher, 16, 32, {**LAYER, "examples": "b N"}),
    "optin, heads": Operation(
        work.optin,
        2,
        4,
        {"layers": "a L + b L²", "heads": "a H + b H²", "neurons": "a + b F", "examples": "b N"},
    ),
    "evaluation": Operation(work.evaluation, 32, 64, {**LAYER, "examples": "b N"}),
}
MIDDLE = {"layers": 4, "heads": 8, "neurons": 1024}
FACTORS = (0.5, 1, 2, 4)  # of the middle


def shape_of(operation: Operation, tiny: bool, **changes: int) -> work.Shape:
    """The middle of an operation's curves, with changes."""
    middle = {**MIDDLE, "batch": operation.batch, "examples": operation.examples}
    if tiny:
        middle = {"layers": 2, "heads": 2, "neurons": 8, "batch": 2, "examples": 4}
    return work.Shape(**{**middle, **changes}, tiny=tiny)


def sizes_of(operation: Operation, axis: str, tiny: bool) -> list[int]:
    """The sizes of a curve, smallest first."""
    middle = getattr(shape_of(operation, tiny), axis)
    return [int(middle * factor) for factor in (FACTORS[1:3] if tiny else FACTORS)]


def in_turns(
    jobs: Mapping[str, Callable[[], float]], *, rounds: int, warmup: int, label: str
) -> dict[str, list[float]]:
    """Milliseconds of every job, one a round, in changing order; the first rounds are thrown away."""
    samples: dict[str, list[float]] = {name: [] for name in jobs}
    names = list(jobs)
    with Progress(quiet=not ranks.is_first()).task(label, total=warmup + rounds) as advance:
        for number in range(warmup + rounds):
            for index in turn_order(len(names), number):
                taken = 1000 * jobs[names[index]]()
                if number >= warmup:
                    samples[names[index]].append(taken)
            advance(1)
    return samples


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Slope of the straight line through the logarithms, by least squares."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def exponent_interval(
    sizes: Sequence[float], samples: Sequence[Sequence[float]], seed: int
) -> tuple[float, float, float]:
    """The exponent of the medians, with its bootstrap interval over the rounds.

    Args:
        sizes: one a curve's point.
        samples: the times of each point in the same rounds.
        seed: of the bootstrap.
    """
    times = np.asarray(samples)  # [P, R]
    rounds = times.shape[1]
    drawn = np.random.default_rng(seed).integers(0, rounds, size=(RESAMPLES, rounds))
    medians = np.log(np.median(times[:, drawn], axis=2))  # [P, resamples]
    slopes = np.polyfit(np.log(sizes), medians, 1)[0]
    low, high = np.quantile(slopes, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return exponent(sizes, np.median(times, axis=1).tolist()), float(low), float(high)


def growth(first: Sequence[float], samples: Sequence[float], seed: int) -> tuple[float, float, float]:
    """How many times as long as the first one a point takes, with its interval over the rounds."""
    ratio, low, high = ratio_interval(first, samples, seed)
    return 1 / ratio, 1 / high, 1 / low


def curve(name: str, axis: str, options: argparse.Namespace) -> dict[str, Any]:
    """One operation on models that differ along one axis."""
    operation = OPERATIONS[name]
    sizes = sizes_of(operation, axis, options.smoke)
    shapes = [shape_of(operation, options.smoke, **{axis: size}) for size in sizes]
    works = [work.Work(shape, options.seed) for shape in shapes]
    jobs: dict[str, Callable[[], float]] = {CONTROL: lambda: operation.call(works[0])}
    for size, each in zip(sizes, works, strict=True):
        jobs[str(size)] = lambda each=each: operation.call(each)  # type: ignore[misc]
    label = f"{name}, {axis}"
    samples = in_turns(jobs, rounds=options.rounds, warmup=options.warmup, label=label)
    first = samples[str(sizes[0])]
    points = []
    for size, each in zip(sizes, works, strict=True):
        points.append(
            {
                "size": size,
                **summary(samples[str(size)]),
                "growth": growth(first, samples[str(size)], options.seed),
                "tensor_mib": work.tensor_bytes(operation.call, each) / MIB,
                "macs": work.counted_macs(operation.call, each),
            }
        )
    return {
        "operation": name,
        "axis": axis,
        "theory": operation.theory[axis],
        "weights_mib": works[0].weight_bytes / MIB,
        "points": points,
        "control": growth(first, samples[CONTROL], options.seed),
        "exponents": {
            "time": exponent_interval(sizes, [samples[str(size)] for size in sizes], options.seed),
            "macs": exponent(sizes, [point["macs"] for point in points]),
            "memory": exponent(sizes, [point["tensor_mib"] for point in points]),
        },
    }


def row_of(found: Mapping[str, Any]) -> list[str]:
    """A curve's line of the table."""
    points, exponents = found["points"], found["exponents"]
    first, last = points[0], points[-1]
    return [
        f"{found['operation']}: {found['axis']}",
        f"{first['size']} to {last['size']}",
        f"{first['median_ms']:.0f}",
        bench.interval(*last["growth"]),
        found["theory"],
        bench.interval(*exponents["time"]),
        f"{exponents['macs']:.2f}",
        f"{first['tensor_mib']:.0f} to {last['tensor_mib']:.0f}",
        f"{exponents['memory']:.2f}",
    ]


CURVES_HEADER = ["operation: axis", "sizes", "ms at first", "times as long at last", "theory"]
CURVES_HEADER += ["exponent of time", "of MACs", "MiB of tensors", "exponent of MiB"]
PROCESSES_HEADER = ["operation", "processes", "ms", "times as fast as one"]


def together(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Every operation by each number of processes; launches take turns."""
    counts = list(options.processes)
    samples: dict[str, dict[int, list[float]]] = {
        name: {n: [] for n in counts} for name in options.operations
    }
    for number in range(1 if options.smoke else LAUNCHES):
        for index in turn_order(len(counts), number):
            for name, times in launched(counts[index], options).items():
                samples[name][counts[index]] += times
    found = []
    for name, by_count in samples.items():
        for count, times in by_count.items():
            speedup = ratio_interval(by_count[counts[0]], times, options.seed)
            found.append({"operation": name, "processes": count, **summary(times), "speedup": speedup})
    return found


def launched(count: int, options: argparse.Namespace) -> dict[str, list[float]]:
    """Milliseconds of each operation in a fresh launch of so many processes, by the first one's clock."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    command += [__file__, "--child", "--operations", *options.operations]
    for name in ("rounds", "warmup", "threads", "seed"):
        command += [f"--{name}", str(getattr(options, name))]
    command += ["--smoke"] if options.smoke else []
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
    return found


def as_child(options: argparse.Namespace) -> None:
    """One of several processes: run each operation on its middle model; the first one prints the times."""
    ranks.begin()
    found = {}
    for name in options.operations:
        operation = OPERATIONS[name]
        middle = work.Work(shape_of(operation, options.smoke), options.seed)

        def once(operation: Operation = operation, middle: work.Work = middle) -> float:
            ranks.wait()
            return operation.call(middle)

        label = f"{name}, {ranks.count()} processes"
        found |= in_turns({name: once}, rounds=options.rounds, warmup=options.warmup, label=label)
    if ranks.is_first():
        print(json.dumps(found))


def parsed(given: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    made = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    made.add_argument("--smoke", action="store_true", help="tiny shapes and two rounds: does it run at all?")
    made.add_argument("--out", type=Path, help="write settings, environment and every sample as JSON")
    made.add_argument("--operations", nargs="+", choices=[*OPERATIONS], default=[*OPERATIONS], metavar="NAME")
    axes = [*MIDDLE, "batch", "examples"]
    made.add_argument("--axes", nargs="*", choices=axes, default=axes, metavar="AXIS")
    made.add_argument("--processes", nargs="*", type=int, default=[], help="the first is compared with")
    made.add_argument("--rounds", type=int, help="[default: 5; smoke: 2]")
    made.add_argument("--warmup", type=int, default=1)
    made.add_argument("--threads", type=int, default=1, help="of each process")
    made.add_argument("--seed", type=int, default=0, help="of weights, data and the bootstrap")
    made.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = made.parse_args(given)
    options.rounds = options.rounds or (2 if options.smoke else 5)
    return options


def main(given: Sequence[str] | None = None) -> None:
    """Measure, print the tables, and write the JSON."""
    options = parsed(given)
    os.environ["ACCELERATE_USE_CPU"] = "true"
    torch.set_num_threads(options.threads)
    if options.child:
        as_child(options)
        return
    load = [os.getloadavg()[0]]
    wanted = [(n, axis) for n in options.operations for axis in options.axes if axis in OPERATIONS[n].theory]
    curves = [curve(name, axis, options) for name, axis in wanted]
    processes = together(options) if options.processes else []
    load.append(os.getloadavg()[0])
    if options.smoke:
        print("Smoke test: tiny shapes, two rounds. These figures mean nothing.\n")
    tables = {"curves": bench.table(CURVES_HEADER, [row_of(found) for found in curves])} if curves else {}
    if processes:
        rows = [
            [p["operation"], str(p["processes"]), f"{p['median_ms']:.0f}", bench.interval(*p["speedup"])]
            for p in processes
        ]
        tables["processes"] = bench.table(PROCESSES_HEADER, rows)
    print("\n\n".join(tables.values()))
    environment = environment_record()
    print(
        f"\nCPU: {environment['cpu'] or environment['system']}, {options.threads} threads a process; torch "
        f"{environment['torch']}, transformers {environment['transformers']}; {options.rounds} rounds; load "
        f"average {load[0]:.1f} before, {load[1]:.1f} after"
    )
    if options.out is None:
        return
    content = {
        "benchmark": "scaling",
        "command": " ".join(["python benchmarks/scaling.py", *(sys.argv[1:] if given is None else given)]),
        "options": {key: value for key, value in vars(options).items() if key not in ("out", "child")},
        "environment": environment,
        "load_average": load,
        "curves": curves,
        "processes": processes,
        "tables": {name: text.splitlines() for name, text in tables.items()},
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
