"""What L0 masks cost in training: steps with and without them, interleaved in one process.

    python benchmarks/mask_overhead.py
    python benchmarks/mask_overhead.py --device cuda --rounds 100

A step is forward, label loss, backward, clipping and AdamW on a T5 of t5-small's shape with random weights,
under the precision that training chooses by itself (bfloat16 autocast on a GPU that has it). The same model
takes every kind of step in turn. Under masks it also samples them, adds the sparsity term, updates logits and
multipliers, and clamps. The claim to support or refute: at most 1.15 times the step without masks. The step
without masks runs twice a round, as a control. A ratio is that of two medians, with a 95 % bootstrap
interval over the rounds; the claim holds where the whole interval is at most 1.15.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import T5Config, T5ForConditionalGeneration

from prunekit.learned.goal import Goal
from prunekit.measure.statistics import ratio_interval, summary
from prunekit.plugins import get_registry
from prunekit.pruning.target import PrunableModel, find_adapter
from prunekit.pruning.units import in_scope
from prunekit.training.l0 import L0Masks
from prunekit.training.lagrangian import Lagrangian
from prunekit.training.loop import use_bf16

CLAIM = 1.15
CONTROL = "no masks, again"
WARMUP = 3
UNITS = ("head", "neuron")
BATCH, SOURCE, TARGET = 16, 128, 32
Step = Callable[[], None]


class Masked:
    """Masks of some groups of a model, with all that trains them."""

    def __init__(self, target: PrunableModel, kinds: Sequence[str], scope: Sequence[str] = ()) -> None:
        names = [
            name
            for name, group in target.groups.items()
            if group.kind in kinds and in_scope(name, list(scope))
        ]
        costs = target.parameter_costs(scope)
        goal = Goal("model", costs, tuple(names), 0.3)
        device = target.model.device
        self.target = target
        self.masks = L0Masks(
            {name: (target.groups[name].size, target.groups[name].kind) for name in names}
        ).to(device)
        self.lagrangian = Lagrangian(goal.sparsity, warmup_steps=100).to(device)
        self.size = goal.expected_size(target.structure, "exact", device)
        options: list[dict[str, Any]] = [
            {"params": list(self.masks.parameters())},
            {"params": list(self.lagrangian.parameters()), "maximize": True},
        ]
        self.optimizer = torch.optim.AdamW(options, lr=0.01, weight_decay=0.0)
        self.step = 0

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """The label loss under sampled masks, with the sparsity term."""
        with self.target.masked(self.masks.sample()):
            loss: Tensor = self.target.model(**batch).loss
        sparsity = self.size.sparsity(self.masks.probabilities())
        return loss + self.lagrangian.penalty(sparsity, self.step)

    def update(self) -> None:
        """One step of logits and multipliers."""
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.masks.clamp_()
        self.step += 1


def make_steps(device: torch.device) -> dict[str, Step]:
    """One training step of each kind, by name; the one without masks first."""
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(T5Config(decoder_start_token_id=0)).to(device).train()
    target = PrunableModel(model, find_adapter(model, get_registry().adapters))
    batch = {
        "input_ids": torch.randint(3, 32000, (BATCH, SOURCE), device=device),
        "attention_mask": torch.ones(BATCH, SOURCE, dtype=torch.long, device=device),
        "labels": torch.randint(3, 32000, (BATCH, TARGET), device=device),
    }
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)

    def step(masked: Masked | None) -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=use_bf16("auto", device)):
            loss = masked.loss(batch) if masked else model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if masked:
            masked.update()

    nash = Masked(target, UNITS, ["encoder.*"])
    blocks = Masked(target, (*UNITS, "sublayer", "block"))
    hidden = Masked(target, (*UNITS, "sublayer", "hidden"))
    return {
        "no masks": lambda: step(None),
        CONTROL: lambda: step(None),
        f"encoder heads and neurons, as NASH ({len(nash.masks.kinds)} groups)": lambda: step(nash),
        f"every kind but hidden, both stacks ({len(blocks.masks.kinds)} groups)": lambda: step(blocks),
        f"hidden units too, as CoFi ({len(hidden.masks.kinds)} groups)": lambda: step(hidden),
    }


def timed(step: Step, device: torch.device) -> float:
    """Milliseconds of one step."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - started)


def measure(steps: dict[str, Step], rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Milliseconds of every step; each round runs all kinds, starting with another one than the last."""
    samples: dict[str, list[float]] = {name: [] for name in steps}
    names = list(steps)
    for count in range(-WARMUP, rounds):
        first = count % len(names)
        for name in names[first:] + names[:first]:
            sample = timed(steps[name], device)
            if count >= 0:
                samples[name].append(sample)
    return samples


def verdict(low: float, high: float) -> str:
    """Whether the claim holds for an interval of the ratio."""
    if high <= CLAIM:
        return "holds"
    return "does not hold" if low > CLAIM else "the interval is too wide to tell"


def main() -> None:
    """Measure, and print times, ratios to the step without masks, and whether the claim holds."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    where = (
        torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    )
    precision = "bf16 autocast" if use_bf16("auto", device) else "fp32"
    print(f"t5-small's shape, batch {BATCH}, source {SOURCE}, target {TARGET}, {precision}")
    print(f"{device} ({where}), torch {torch.__version__}, {arguments.rounds} rounds")
    samples = measure(make_steps(device), arguments.rounds, device)
    plain = next(iter(samples.values()))
    for name, times in samples.items():
        found = summary(times)
        print(f"\n{name}\n  median {found['median_ms']:.1f} ms   ", end="")
        print(f"p10 {found['p10_ms']:.1f}   p90 {found['p90_ms']:.1f}")
        if times is not plain:
            ratio, low, high = ratio_interval(times, plain, seed=0)
            print(f"  ratio {ratio:.3f} [{low:.3f}, {high:.3f}]")
            if name != CONTROL:
                print(f"  <= {CLAIM}: {verdict(low, high)}")


if __name__ == "__main__":
    main()
