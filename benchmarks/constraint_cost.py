"""What the sparsity constraint costs a training step at t5-base's shape, on one core.

    python benchmarks/constraint_cost.py

A step is the masks' probabilities, the expected sparsity, the penalty, and its gradient for the logits
and multipliers, with masks on heads, neurons, sublayers and hidden units of both stacks. The claim to support
or refute: under 10 ms. Beside it, in turn, the same expectation by outer products of the hidden vector with
every unit of every sublayer, as in the released code of CoFi; the two sparsities must agree.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor
from transformers import T5Config, T5ForConditionalGeneration

from prunekit.learned.goal import Goal
from prunekit.measure.statistics import ratio_interval, summary
from prunekit.plugins import get_registry
from prunekit.pruning.target import PrunableModel, find_adapter
from prunekit.pruning.units import HIDDEN, sublayer_group
from prunekit.training.l0 import L0Masks
from prunekit.training.lagrangian import Lagrangian

CLAIM_MS = 10.0
KINDS = ("head", "neuron", "sublayer", "hidden")


def t5_base() -> PrunableModel:
    """t5-base's shape, without memory for its weights."""
    sizes = {"d_model": 768, "d_kv": 64, "d_ff": 3072, "num_heads": 12, "num_layers": 12}
    with torch.device("meta"):
        model = T5ForConditionalGeneration(T5Config(**sizes))
    return PrunableModel(model, find_adapter(model, get_registry().adapters))


def by_outer_products(target: PrunableModel, goal: Goal) -> Callable[[dict[str, Tensor]], Tensor]:
    """The expected sparsity with one product for each pair of a hidden unit and a unit."""

    def sparsity(probabilities: dict[str, Tensor]) -> Tensor:
        kept = []
        for name, cost in goal.costs.items():
            sub = target.structure.sublayers[name]
            units = probabilities[sub.units.name]
            units = units * probabilities[sublayer_group(sub.stack, sub.role)][sub.block]
            kept.append(cost.unit_per_hidden * torch.outer(probabilities[HIDDEN], units).sum())
        return 1 - torch.stack(kept).sum() / goal.total

    return sparsity


def main() -> None:
    """Measure and print medians, the ratio, and whether the claim holds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    target = t5_base()
    names = tuple(name for name, group in target.groups.items() if group.kind in KINDS)
    goal = Goal("model", target.parameter_costs(), names, 0.6)
    masks = L0Masks(
        {name: (target.groups[name].size, target.groups[name].kind) for name in names},
        generator=torch.Generator().manual_seed(0),
    )
    lagrangian = Lagrangian(goal.sparsity, warmup_steps=100, lambda_2=1e4)
    ways = {
        "prunekit": goal.expected_size(target.structure, "exact").sparsity,
        "outer products": by_outer_products(target, goal),
    }
    samples: dict[str, list[float]] = {name: [] for name in ways}
    for count in range(rounds + 1):
        for name, expected in ways.items():
            started = time.perf_counter()
            sparsity = expected(masks.probabilities())
            lagrangian.penalty(sparsity, 10).backward()  # type: ignore[no-untyped-call]
            elapsed = 1000 * (time.perf_counter() - started)
            masks.zero_grad()
            if count:
                samples[name].append(elapsed)
            else:
                print(f"{name}: sparsity {sparsity.item():.6f}")
    for name, times in samples.items():
        found = summary(times)
        low, high = found["p10_ms"], found["p90_ms"]
        print(f"{name}: median {found['median_ms']:.2f} ms, p10 {low:.2f}, p90 {high:.2f}")
    ratio, low, high = ratio_interval(samples["outer products"], samples["prunekit"], seed=0)
    print(f"outer products / prunekit: {ratio:.0f} [{low:.0f}, {high:.0f}]")
    holds = summary(samples["prunekit"])["median_ms"] < CLAIM_MS
    print(f"under {CLAIM_MS:g} ms: {'holds' if holds else 'does not hold'} (median)")


if __name__ == "__main__":
    main()
