"""Accuracy of one-shot methods at several MAC budgets, over several draws of the calibration examples.

    python benchmarks/oneshot_accuracy.py --model embedded:bert-gloss --task gloss
    python benchmarks/oneshot_accuracy.py --model embedded:vit-fashion --task fashion-mnist

Every method prunes the same model on the same seeds at the same budgets, and every pruned model answers the
same test examples; nothing is trained. A row of the result is a line of ``benchmarks/results/<model>.jsonl``;
rows that are there already are not computed again. The table of mean and standard deviation goes to standard
output as Markdown.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from prunekit.models import load_model, load_processor
from prunekit.plugins import get_registry
from prunekit.pruning.cost import sparsity
from prunekit.pruning.target import PrunableModel, find_adapter
from prunekit.recipe import BudgetSpec, TaskSpec, TrainSpec
from prunekit.tasks.base import Task, make_task
from prunekit.training.loop import Trainer

RESULTS = Path(__file__).parent / "results"
RETAINED = (0.9, 0.8, 0.7, 0.6, 0.5, 0.3)
EXAMPLES = 2000  # of the test split, the same for every model
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "OPTIN": ("optin", {}),
    "OPTIN, probes alone": ("optin", {"scoring": "gauss-newton"}),
    "OPTIN, probes alone, sums": ("optin", {"scoring": "gauss-newton", "aggregate": "sum"}),
    "OPTIN, probes alone, 32 examples": ("optin", {"scoring": "gauss-newton", "examples": 32}),
    "OPTIN, probes alone, sums, 32 examples": (
        "optin",
        {"scoring": "gauss-newton", "aggregate": "sum", "examples": 32},
    ),
    "OPTIN + rearrange + tune": ("optin", {"rearrange": True, "tune": True}),
    "Fisher": ("fisher", {"examples": 1024, "rearrange": False, "tune": False}),
    "Fisher + rearrange": ("fisher", {"examples": 1024, "rearrange": True, "tune": False}),
    "Fisher + rearrange + tune": ("fisher", {"examples": 1024, "rearrange": True, "tune": True}),
    "magnitude": ("magnitude", {}),
    "random": ("random", {}),
}


def prune(target: PrunableModel, task: Task, row: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Plan, cut and evaluate one row."""
    method = get_registry().methods[row["method"]]
    config = method.Config.model_validate(row["settings"])
    budget = BudgetSpec(metric="macs", sparsity=1 - row["retained"])
    # Folders beside each other, so that a seed's scores serve all its budgets.
    trainer = Trainer(
        folder / f"{row['label']}-{row['seed']}-{row['retained']}", TrainSpec(), seed=row["seed"]
    )
    trainer.folder.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    plan = method(config).plan(target, task, budget, trainer)
    seconds = time.perf_counter() - started
    removed = sparsity(target.costs(budget, task), target.structure, plan.keep)
    found = task.evaluate(target.pruned(plan).model, "test", batch_size=256, limit=EXAMPLES).metrics
    return {**row, "macs": 1 - removed, "plan_s": round(seconds, 2), **found}


def rows(seeds: int) -> Iterator[dict[str, Any]]:
    """Every combination, seed by seed."""
    for seed in range(seeds):
        for label, (method, settings) in METHODS.items():
            for retained in RETAINED:
                yield {
                    "label": label,
                    "method": method,
                    "settings": settings,
                    "retained": retained,
                    "seed": seed,
                }


def table(found: list[dict[str, Any]], dense: dict[str, Any], metric: str) -> str:
    """Mean and standard deviation over seeds, one row a method."""
    lines = [
        "| method | " + " | ".join(f"{share:.0%}" for share in RETAINED) + " |",
        "| --- |" + " ---: |" * len(RETAINED),
    ]
    for label in METHODS:
        cells = []
        for retained in RETAINED:
            values = [row[metric] for row in found if row["label"] == label and row["retained"] == retained]
            spread = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
            cells.append(f"{mean(values):.1f}{spread}" if values else "")
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    error = dense[f"{metric}_stderr"]
    lines.append(f"\nDense: {dense[metric]:.1f} % (± {error:.1f}, standard error over {dense['n']} examples)")
    return "\n".join(lines)


def main() -> None:
    """Compute what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--task", required=True)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    registry = get_registry()
    task = make_task(TaskSpec(name=arguments.task), load_processor(arguments.model), registry)
    model = load_model(arguments.model)
    target = PrunableModel(model, find_adapter(model, registry.adapters))
    path = RESULTS / f"{arguments.model.replace(':', '-').replace('/', '-')}.jsonl"
    path.parent.mkdir(exist_ok=True)
    found = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    done = {(row["label"], row["retained"], row["seed"]) for row in found}
    with tempfile.TemporaryDirectory() as folder, path.open("a", buffering=1) as file:
        for row in rows(arguments.seeds):
            if (row["label"], row["retained"], row["seed"]) not in done:
                found.append(prune(target, task, row, Path(folder)))
                file.write(json.dumps(found[-1]) + "\n")
    dense = task.evaluate(model, "test", batch_size=256, limit=EXAMPLES).metrics
    print(table(found, dense, task.primary_metric))


if __name__ == "__main__":
    main()
