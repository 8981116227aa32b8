"""Whether time follows MACs: BERT-base and ViT-B cut to 0.9 to 0.4 of them by random scores.

    python benchmarks/encoder_macs.py --out benchmarks/results/encoder-macs.json
    python benchmarks/encoder_macs.py --models bert-base --batch 1 --length 384

The claim to support or refute: a model with a share of the multiply-adds takes that share of the time. Heads
and neurons are cut by the budget solver that OPTIN uses, on random scores in proportion to what a unit costs,
so that heads and neurons go alike and every layer ends up at a width of its own. The budget counts what can
be pruned; the share of the whole call also counts embeddings, poolers and classifiers.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import bench
import shapes
import torch

from prunekit.measure.speed import random_inputs
from prunekit.pruning import cost
from prunekit.pruning.allocate import allocate
from prunekit.pruning.plan import PruningPlan
from prunekit.pruning.target import PrunableModel
from prunekit.recipe import BudgetSpec

MODELS = ("bert-base", "vit-b")
RETAINED = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4)


def cut(target: PrunableModel, retained: float, length: int | None, seed: int) -> tuple[PrunableModel, float]:
    """A model at that share of its prunable MACs, and the share that it came to."""
    budget = BudgetSpec.model_validate(
        {"metric": "macs", "sparsity": 1 - retained, "macs": {"length": length}}
    )
    costs = target.costs(budget)
    generator = torch.Generator().manual_seed(seed)
    scores = {
        target.structure.sublayers[name].units.name: each.unit
        * torch.rand(each.units, generator=generator, dtype=torch.float64)
        for name, each in costs.items()
    }
    keep = allocate(scores, costs, target.structure, budget.sparsity or 0.0, floor=1)
    return target.pruned(PruningPlan(keep=keep)), 1 - cost.sparsity(costs, target.structure, keep)


def measure(name: str, options: argparse.Namespace) -> tuple[bench.Result, dict[str, Any]]:
    """Times of one architecture at every share, and the shares of MACs that each came to."""
    target = shapes.make_target(name, tiny=options.smoke, seed=options.seed, device=options.device)
    is_text = target.model.main_input_name == "input_ids"
    spec = bench.spec_of(options, input_tokens=options.length if is_text else None)
    inputs = random_inputs(target.model, spec, options.seed)
    models = {"dense": target.model}
    prunable = {"dense": 1.0}
    for retained in options.retained:
        small, share = cut(target, retained, spec.input_tokens, options.seed)
        models[f"{retained:g}"], prunable[f"{retained:g}"] = small.model, share
    result = bench.measured(models, inputs, spec)
    macs = {label: entry["macs"] for label, entry in result["models"].items()}
    return result, {
        label: {"prunable": share, "whole": macs[label] / macs["dense"]} for label, share in prunable.items()
    }


def main(given: Sequence[str] | None = None) -> None:
    """Measure, and print shares of MACs beside shares of time."""
    parser = bench.parser(__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=[*MODELS])
    parser.add_argument(
        "--retained", nargs="+", type=float, default=[*RETAINED], help="shares of MACs to keep"
    )
    bench.sizes(parser, rounds=(10, 2, 50), batch=(4, 2, 32), length=(128, 6))
    options = bench.parsed(parser, given)
    results, facts, rows = {}, {}, []
    for name in options.models:
        result, shares = measure(name, options)
        results[name], facts[name] = result, shares
        for label, entry in result["models"].items():
            is_dense = label == result["reference"]
            rows.append(
                [
                    f"{name}, {label}",
                    f"{shares[label]['prunable']:.3f}",
                    f"{shares[label]['whole']:.3f}",
                    f"{entry['median_ms']:.1f}",
                    "1" if is_dense else bench.interval(*bench.time_ratio(entry), 3),
                    "1" if is_dense else bench.speedup(entry),
                    f"{1 / shares[label]['whole']:.2f}",
                ]
            )
    header = ["model", "prunable MACs", "MACs of a call", "call (ms)", "time", "speedup", "if MACs were time"]
    bench.report("encoder_macs", options, results, bench.table(header, rows), {"shares": facts})


if __name__ == "__main__":
    main()
