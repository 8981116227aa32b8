"""The figures of docs/results.md and README.md, made of what is stored in docs/results.

``python docs/results.py FOLDER ...`` takes over what ``prunekit compare`` left in each folder, and ``python
docs/results.py --run FOLDER COMMAND`` what a single command left in a run folder.
"""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path
from typing import Any

from prunekit.comparison import FILE
from prunekit.files import write_text
from prunekit.reports import markdown
from prunekit.reports.comparison import comparison_table
from prunekit.reports.plots import frontier_picture

STORED = Path(__file__).parent / "results"
SIDES = ("dense", "pruned")
WIDTH = 120
KEPT = ("achieved", "structure", "quality", "speed", "stages", "environment")
HEADLINE = ("method", "speedup", "parameters", "time to prune", "frontier")


def stored(name: str) -> dict[str, Any]:
    """The comparison of that name."""
    found: dict[str, Any] = json.loads((STORED / f"{name}.json").read_text(encoding="utf-8"))
    return found


def full(name: str) -> str:
    """The command that made a comparison, its whole table, and what to know of it."""
    comparison = stored(name)
    table = comparison_table(comparison)
    notes = markdown.bullets("", map(markdown.escape, table.notes))
    return "\n\n".join([_command(comparison), markdown.table(table.header, table.rows), *notes])


def headline(name: str) -> str:
    """The columns that decide."""
    comparison = stored(name)
    table = comparison_table(comparison)
    quality = f"{comparison['quality']['primary']} ("
    kept = [i for i, title in enumerate(table.header) if title in HEADLINE or title.startswith(quality)]
    rows = [[row[i] for i in kept] for row in table.rows]
    return f"{_command(comparison)}\n\n{markdown.table([table.header[i] for i in kept], rows)}"


def _command(comparison: dict[str, Any]) -> str:
    return f"```sh\n{comparison['command']}\n```"


def quickstart() -> str:
    """README's first table, and what the same takes at full length."""
    run, long = stored("quickstart-nash"), stored("t5-g2p-nash-3")
    minutes, seconds = divmod(round(sum(run["stages"].values())), 60)
    hours = sum(long["stages"].values()) / 3600
    environment, achieved, speed = run["environment"], run["achieved"], run["speed"]
    lengths = f"{achieved['macs']['length']} and {achieved['macs']['target_length']} tokens"
    blocks = next(row for row in run["structure"] if row["group"] == "decoder.blocks")
    call = f"generate, batch {speed['batch_size']}, beam {speed['num_beams']}, {speed['new_tokens']} tokens"
    interval = f"{speed['speedup']:.2f}x [{speed['speedup_low']:.2f}, {speed['speedup_high']:.2f}]"
    rows = [
        ("parameters", *(f"{achieved['params'][side]:,}" for side in SIDES)),
        ("encoder removed (asked for: 30 %)", "", f"{100 * achieved['encoder_sparsity']:.1f} %"),
        ("decoder blocks", str(blocks["size"]), str(blocks["kept"])),
        (f"MACs of a typical word ({lengths})", *(f"{achieved['macs'][side] / 1e6:.1f} M" for side in SIDES)),
        (f"phone error rate, {run['quality']['n']:,} test words (± one standard error)", *_rates(run)),
        (f"{call}, median", *(f"{speed[side]['median_ms']:.0f} ms" for side in SIDES)),
        ("speedup, 95 % interval", "", interval),
    ]
    dense, pruned = _rates(long)
    text = (
        f"This is a smoke test of a few minutes: the loss in quality is that of {run['train_steps']:,} steps "
        f"of training. At full length, `{long['command']}` takes {hours:.1f} hours on one thread; there the "
        f"rate goes from {dense} to {pruned} on all {long['quality']['n']:,} test words."
    )
    return "\n\n".join(
        [
            f"`{run['command']}` took {minutes} min {seconds} s on {environment['cpu_count']} cores of an "
            f"{environment['cpu']}, torch {environment['torch'].partition('+')[0]} (CPU):",
            markdown.table(("", *SIDES), rows),
            textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False),
        ]
    )


def _rates(run: dict[str, Any]) -> tuple[str, str]:
    dense, pruned = (run["quality"][side] for side in SIDES)
    return (
        f"{dense['per']:.2f} ± {dense['per_stderr']:.2f} %",
        f"{pruned['per']:.2f} ± {pruned['per_stderr']:.2f} %",
    )


def take_run(folder: Path, command: str) -> None:
    """Store what a run's report says in figures, without its samples and where it lay."""
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    kept = {key: report[key] for key in KEPT}
    kept["train_steps"] = len((folder / "train.jsonl").read_text(encoding="utf-8").splitlines())
    for side in SIDES:
        kept["speed"][side] = {"median_ms": report["speed"][side]["median_ms"]}
    kept["speed"].pop("control", None)
    write_text(STORED / f"{folder.name}.json", json.dumps({"command": command, **kept}, indent=1) + "\n")


def take(folder: Path) -> None:
    """Store what a comparison left in its folder, and its picture."""
    comparison = json.loads((folder / FILE).read_text(encoding="utf-8"))
    name = comparison["name"]
    write_text(STORED / f"{name}.json", json.dumps(comparison, indent=1) + "\n")
    write_text(STORED / f"{name}.svg", frontier_picture(comparison))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        take_run(Path(sys.argv[2]), sys.argv[3])
    else:
        for each in sys.argv[1:]:
            take(Path(each))
