"""What is tried on a model: cut copies of equal share, and other settings of the same model.

Which units a copy loses is drawn at random: speed depends on how many are left, not on which.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from prunekit.doctor.widths import rounded_down
from prunekit.measure.prepare import generates
from prunekit.pruning.plan import PruningPlan
from prunekit.pruning.units import Kind, block_group

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from prunekit.adapters.base import Structure
    from prunekit.pruning.target import PrunableModel
    from prunekit.recipe import SpeedSpec

HALF_NEURONS = "half the neurons"
ROUND_TO = 8
_UNITS: Mapping[Kind, tuple[str, str, str]] = {
    "neuron": (HALF_NEURONS, "feed-forward width", "*.ffn.neurons"),
    "head": ("half the heads", "number of heads", "*.heads"),
}
_SCORERS = "magnitude, fisher or optin"


@dataclass(frozen=True)
class Experiment:
    """One thing to try, measured against the model as it is.

    Args:
        name: what is tried; unique among the experiments on one model.
        kind: ``cut`` is a copy of equal share (half), the only kind that is compared for the dominant factor;
            ``round`` is a copy with rounded widths; ``setting`` is the model itself, run otherwise.
        factor: what would be the dominant factor if this gains most.
        change: from what to what, in counts.
        how: how to get it for good: lines of a recipe, with a remark where they need one.
        model: what is timed.
        spec: how it is timed.
        left: share of the units that is left; 1 for settings.
    """

    name: str
    kind: Literal["cut", "round", "setting"]
    factor: str
    change: str
    how: tuple[str, ...]
    model: PreTrainedModel
    spec: SpeedSpec
    left: float = 1.0


def cut_experiments(
    target: PrunableModel, spec: SpeedSpec, *, origin: Structure | None = None
) -> list[Experiment]:
    """Copies without half of a stack's blocks, of all neurons and of all heads; none where that is nothing.

    Args:
        target: what is cut; it is left as it is.
        spec: how copies are timed; its seed draws the units.
        origin: structure of the model that recipes start from, where ``target`` is a pruned one: budgets are
            shares of its units.
    """
    draw = random.Random(spec.seed)
    return [*_block_cuts(target, spec, draw), *_unit_cuts(target, spec, draw, origin or target.structure)]


def _block_cuts(target: PrunableModel, spec: SpeedSpec, draw: random.Random) -> Iterator[Experiment]:
    stacks = target.structure.stacks
    for name, stack in reversed(list(stacks.items())):  # the decoder first, where there is one
        kept, depth = stack.depth - stack.depth // 2, stack.depth
        if kept == depth:
            continue
        keep = {block_group(name): tuple(sorted(draw.sample(range(depth), kept)))}
        # NASH shortens decoders, and only of models that have both stacks.
        method = "nash" if name == "decoder" and len(stacks) > 1 else "uniform"
        yield Experiment(
            f"half the {name}'s blocks",
            "cut",
            f"{name} depth",
            f"{kept} of {depth} blocks left",
            (f"{method}: {{{name}_layers: {kept}}}",),
            target.pruned(PruningPlan(keep=keep)).model,
            spec,
            kept / depth,
        )


def _unit_cuts(
    target: PrunableModel, spec: SpeedSpec, draw: random.Random, origin: Structure
) -> Iterator[Experiment]:
    for kind, (name, factor, pattern) in _UNITS.items():
        sizes = _sizes(target.structure, kind)
        keep = {
            group: tuple(sorted(draw.sample(range(size), size - size // 2)))
            for group, size in sizes.items()
            if size > 1
        }
        if not keep:
            continue
        total = sum(sizes.values())
        kept = total - sum(sizes[group] - len(units) for group, units in keep.items())
        sparsity = 1 - kept / sum(_sizes(origin, kind).values())
        yield Experiment(
            name,
            "cut",
            factor,
            f"{kept:,} of {total:,} {kind}s left",
            (f'budget: {{sparsity: {sparsity:.2f}, scope: ["{pattern}"]}}  # with {_SCORERS}',),
            target.pruned(PruningPlan(keep=keep)).model,
            spec,
            kept / total,
        )


def rounding_experiment(target: PrunableModel, spec: SpeedSpec) -> Experiment | None:
    """A copy whose widths are multiples of 8, rounded down; none where all are, or would have to go."""
    counts = rounded_down(target.structure, ROUND_TO)
    if not counts:
        return None
    gone = sum(target.groups[name].size - count for name, count in counts.items())
    plan = PruningPlan(keep={name: tuple(range(count)) for name, count in counts.items()})
    return Experiment(
        f"widths in multiples of {ROUND_TO}",
        "round",
        "rounded widths",
        f"{gone:,} units fewer in {len(counts)} sublayers",
        (f"budget: {{round_to: {ROUND_TO}}}  # beside its other keys",),
        target.pruned(plan).model,
        spec,
    )


def setting_experiments(model: PreTrainedModel, spec: SpeedSpec) -> list[Experiment]:
    """The model itself with greedy search in place of beams, and in bf16; what is so already is left out."""
    found = []
    if generates(model) and spec.num_beams > 1:
        found.append(
            Experiment(
                "greedy in place of beams",
                "setting",
                "beam search",
                f"1 of {spec.num_beams} beams",
                ("speed: {num_beams: 1}", "evaluate: {num_beams: 1}"),
                model,
                spec.model_copy(update={"num_beams": 1}),
            )
        )
    if spec.dtype != "bf16":
        found.append(
            Experiment(
                "bf16",
                "setting",
                "number format",
                f"{spec.dtype} to bf16",
                ("speed: {dtype: bf16}",),
                model,
                spec.model_copy(update={"dtype": "bf16"}),
            )
        )
    return found


def _sizes(structure: Structure, kind: Kind) -> dict[str, int]:
    return {s.units.name: s.units.size for s in structure.sublayers.values() if s.units.kind == kind}
