"""What OPTIN's scores cost: exactly, by probes, and the naive way of masking each unit and running again.

    python benchmarks/optin_scoring.py --model embedded:bert-gloss --rounds 3
    python benchmarks/optin_scoring.py --model bert-base --units 1 --naive 1 --rounds 1 --probes 16

All three score the same model on the same calibration batch, in one process, taking turns. The naive way is
timed on a few units of every block, the exact one on one stacked call a block; both are extrapolated to all
units from their medians over the rounds. The probes run in full. The claims to support or refute: exact
scoring does at most half of the naive FLOPs and is at least 3 times faster; probes are at least 100 times
faster than the naive way at BERT-base's shape (32 x 128 tokens, random weights, no padding), and rank neurons
like exact scores with a Spearman correlation of at least 0.95; exact scoring at that shape stays under 4 GiB.
FLOPs are torch's count under eager attention. The peak is of the whole process (model, data and torch
included), read before anything but the exact scores has run.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import torch
from prunekit_optin.config import OptinConfig
from prunekit_optin.exact import exact_terms
from prunekit_optin.loss import answer_divergence, manifold_distance, unit_rows
from prunekit_optin.probes import Prober
from prunekit_optin.scorer import EXACT_CALL_TOKENS, PROBE_CALL_TOKENS, Scorer
from scipy.stats import spearmanr
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertForSequenceClassification

from prunekit.models import load_model, load_processor
from prunekit.plugins import get_registry
from prunekit.progress import Progress
from prunekit.pruning.target import PrunableModel, find_adapter
from prunekit.pruning.units import Sublayer
from prunekit.recipe import TaskSpec
from prunekit.scoring.frozen import frozen, to_model
from prunekit.scoring.oneshot import calibration_batches
from prunekit.tasks.base import make_task

TASKS = {"embedded:bert-gloss": "gloss", "embedded:vit-fashion": "fashion-mnist"}
BATCH, TOKENS = 32, 128
SHARED = 64  # units of a sublayer among which the pass that records it hardly counts
Batch = dict[str, Tensor]


def load(name: str, config: OptinConfig, seed: int) -> tuple[PrunableModel, Batch]:
    """A model and one calibration batch."""
    registry = get_registry()
    if name == "bert-base":
        torch.manual_seed(seed)
        model: Any = BertForSequenceClassification(BertConfig(num_labels=3))
        ids = torch.randint(999, 30000, (BATCH, TOKENS))
        batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    else:
        model = load_model(name)
        task = make_task(TaskSpec(name=TASKS[name]), load_processor(name), registry)
        batch = calibration_batches(task, config, seed)[0]
    return PrunableModel(model.eval(), find_adapter(model, registry.adapters)), batch


@dataclass
class Sample:
    """Some units of one sublayer, what scoring them took in seconds a unit, and naive scores of the first."""

    sub: Sublayer
    units: list[int]
    exact: list[float] = field(default_factory=list)
    naive: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)


class Naive:
    """Masks a unit, runs the whole padded batch again, and compares with the dense model's kept results."""

    def __init__(self, scorer: Scorer, batch: Batch) -> None:
        self.target, self.config, self.trajectory = scorer.target, scorer.config, scorer.trajectory
        self.batch = {
            name: value for name, value in to_model(batch, scorer.target.model).items() if name != "labels"
        }
        mask = self.batch.get("attention_mask")
        self.tokens = slice(None) if mask is None else mask.flatten().nonzero().flatten()
        features, self.logits = self._run()
        generator = torch.Generator().manual_seed(0)
        count = len(next(iter(features.values())))
        self.chosen = torch.randperm(count, generator=generator)[: self.config.tokens]
        self.features = {path: unit_rows(rows[self.chosen]) for path, rows in features.items()}

    @torch.inference_mode()
    def __call__(self, sub: Sublayer, unit: int) -> float:
        """The score of one unit."""
        width = sub.units.width

        def silence(module: Any, arguments: tuple[Tensor, ...]) -> tuple[Tensor]:
            inputs = arguments[0].clone()
            inputs[..., unit * width : (unit + 1) * width] = 0
            return (inputs,)

        handle = self.target.model.get_submodule(sub.output).register_forward_pre_hook(silence)
        features, logits = self._run()
        handle.remove()
        distance = sum(
            float(
                manifold_distance(
                    unit_rows(features[t.path][self.chosen])[None],
                    self.features[t.path],
                    aggregate=self.config.aggregate,
                )
            )
            for t in self.trajectory.behind(self.trajectory.position(sub))
        )
        divergence = answer_divergence(logits[None], self.logits, temperature=self.config.temperature)
        return distance + self.config.kl_weight * float(divergence)

    @torch.inference_mode()
    def _run(self) -> tuple[dict[str, Tensor], Tensor]:
        found: dict[str, Tensor] = {}

        def keep(path: str) -> Callable[..., None]:
            def hook(module: Any, arguments: Any, output: Any) -> None:
                found[path] = output.flatten(0, 1)[self.tokens]

            return hook

        handles = [
            self.target.model.get_submodule(t.path).register_forward_hook(keep(t.path))
            for t in self.trajectory.tensors
        ]
        logits = self.target.model(**self.batch).logits
        for handle in handles:
            handle.remove()
        return found, logits


def seconds(work: Callable[[], Any]) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def exact_flops(scorer: Scorer, batch: Batch) -> tuple[float, float]:
    """FLOPs of all exact scores, and of as many naive runs, counted under eager attention."""
    target = scorer.target
    kernel = target.model.config._attn_implementation
    target.model.set_attn_implementation("eager")
    with torch.inference_mode():
        reference = scorer._reference(batch, 0, EXACT_CALL_TOKENS)
    naive = Naive(scorer, batch)
    total = 0.0
    units = 0
    for sub in target.structure.sublayers.values():
        counts = []
        for some in (1, 2):
            with FlopCounterMode(display=False) as counter:
                exact_terms(target, reference, scorer.trajectory, {sub.units.name: range(some)})
            counts.append(counter.get_total_flops())
        # What one more unit costs, and what recording costs whatever the number.
        total += counts[0] + (sub.units.size - 1) * (counts[1] - counts[0])
        units += sub.units.size
    with FlopCounterMode(display=False) as counter:
        naive(next(iter(target.structure.sublayers.values())), 0)
    target.model.set_attn_implementation(kernel)
    return total, float(units * counter.get_total_flops())


def take_turns(
    scorer: Scorer, batch: Batch, most: int, naive_units: int, rounds: int
) -> tuple[list[Sample], dict[str, Tensor], float]:
    """Times of both ways on every block, the exact scores, and the peak memory of the first exact round."""
    target = scorer.target
    generator = torch.Generator().manual_seed(0)
    samples = []
    for sub in target.structure.sublayers.values():
        count = min(most, sub.units.size)
        units = torch.randperm(sub.units.size, generator=generator)[:count].sort().values.tolist()
        samples.append(Sample(sub, units))
    with torch.inference_mode():
        reference = scorer._reference(batch, 0, EXACT_CALL_TOKENS)
    scores: dict[str, Tensor] = {}

    def exactly(sample: Sample) -> None:
        units = {sample.sub.units.name: sample.units}
        terms = exact_terms(target, reference, scorer.trajectory, units)[sample.sub.units.name]
        scores[sample.sub.units.name] = terms.distance + scorer.config.kl_weight * terms.divergence

    for sample in samples:
        exactly(sample)  # warm-up
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    naive = Naive(scorer, batch)
    for sample in samples:
        sample.scores = [naive(sample.sub, unit) for unit in sample.units[:naive_units]]
    for _ in range(rounds):
        for sample in samples:
            sample.exact.append(seconds(lambda sample=sample: exactly(sample)) / len(sample.units))
            for unit in sample.units[:naive_units]:
                sample.naive.append(seconds(lambda sub=sample.sub, unit=unit: naive(sub, unit)))
    return samples, scores, peak


def probe(scorer: Scorer, batch: Batch, groups: Sequence[str]) -> tuple[float, dict[str, Tensor]]:
    """Wall time of all probes, forward passes and the dense pass included, and the scores."""
    started = time.perf_counter()
    with torch.no_grad():
        reference = scorer._reference(batch, 0, PROBE_CALL_TOKENS)
    drawn = Prober(scorer.target, reference, scorer.trajectory, groups, seed=0).draw(scorer.config.probes)
    return time.perf_counter() - started, {name: g.double().square().mean(0) for name, g in drawn.items()}


def report(label: str, seconds_: float, naive: float) -> None:
    """One line of the table."""
    print(f"  {label:<34} {seconds_:>12,.1f} s   {naive / seconds_:>8.1f}x")


def main() -> None:
    """Measure, and print times, FLOPs, memory, rank correlation, and whether the claims hold."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="embedded:bert-gloss", choices=["bert-base", *TASKS])
    parser.add_argument("--units", type=int, default=256, help="units of each sublayer scored exactly")
    parser.add_argument("--naive", type=int, default=2, help="units of each sublayer scored the naive way")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--probes", type=int, default=64)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    config = OptinConfig(probes=arguments.probes)
    target, batch = load(arguments.model, config, arguments.seed)
    tokens = int(batch["attention_mask"].sum()) if "attention_mask" in batch else "image"
    print(
        f"{arguments.model}, {BATCH} examples, {tokens} tokens without padding, {arguments.threads} threads, "
        f"torch {torch.__version__}, {arguments.rounds} rounds"
    )
    groups = [sub.units.name for sub in target.structure.sublayers.values()]
    neurons = [name for name in groups if name.endswith("neurons")]
    with frozen(target.model):
        scorer = Scorer(target, config, [batch], [batch], seed=arguments.seed, progress=Progress(quiet=True))
        samples, exact, peak = take_turns(scorer, batch, arguments.units, arguments.naive, arguments.rounds)
        lasted, probed = probe(scorer, batch, groups)
        alone, _ = probe(scorer, batch, neurons)
        flops, naive_flops = exact_flops(scorer, batch)
    sizes = [sample.sub.units.size for sample in samples]
    naive = sum(size * median(sample.naive) for size, sample in zip(sizes, samples, strict=True))
    exactly = sum(size * median(sample.exact) for size, sample in zip(sizes, samples, strict=True))
    heads = [sample for sample in samples if sample.sub.role != "ffn"]
    report(f"naive, {sum(sizes):,} runs (extrapolated)", naive, naive)
    if arguments.units >= SHARED:
        report("exact (extrapolated)", exactly, naive)
        report("  of which heads", sum(s.sub.units.size * median(s.exact) for s in heads), naive)
    else:
        print(f"  exact: no time, as fewer than {SHARED} units would each pay for the pass that records")
    report(f"gauss-newton, {arguments.probes} probes, all units", lasted, naive)
    report(f"gauss-newton, {arguments.probes} probes, neurons", alone, naive)
    print(
        f"  FLOPs: naive {naive_flops / 1e12:,.1f} T, exact {flops / 1e12:,.1f} T: {naive_flops / flops:.2f}x"
    )
    print(f"  peak memory of the process after exact scoring: {peak:.2f} GiB")
    pairs = [(n, float(e)) for s in samples for n, e in zip(s.scores, exact[s.sub.units.name], strict=False)]
    largest = max(score for score, _ in pairs)
    apart = max(abs(a - b) for a, b in pairs) / largest
    print(f"  naive against exact, {len(pairs)} units: largest difference {apart:.1e} of the largest score")
    if arguments.units < SHARED:
        return
    found = torch.cat([exact[s.sub.units.name] for s in samples if s.sub.role == "ffn"])
    estimate = torch.cat([probed[s.sub.units.name][s.units] for s in samples if s.sub.role == "ffn"])
    print(
        f"  Spearman, {len(found)} neurons, probes against exact: {spearmanr(found, estimate).statistic:.4f}"
    )
    print(f"  median ratio of probes to exact: {float((estimate / found).median()):.3f}")


if __name__ == "__main__":
    main()
