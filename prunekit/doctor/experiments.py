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
_UNITS: Mapping[Kind, tuple[str, str]] = {
    "neuron": ("feed-forward width", "ffn.neurons"),
    "head": ("number of heads", "heads"),
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
    """Copies without half of a stack's blocks, neurons or heads; none where that is nothing.

    Each cut is of one stack, so that its depth and its widths are compared on the same ground: half the
    blocks take half of that stack's neurons and heads along.

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
    several = len(target.structure.stacks) > 1
    for stack in reversed(list(target.structure.stacks)):
        for kind, (factor, pattern) in _UNITS.items():
            sizes = _sizes(target.structure, kind, stack)
            plan = _halved(sizes, draw)
            if not plan.keep:
                continue
            total = sum(sizes.values())
            kept = sum(len(plan.keep.get(group, range(size))) for group, size in sizes.items())
            sparsity = 1 - kept / sum(_sizes(origin, kind, stack).values())
            scope = f"{stack}.*.{pattern}" if several else f"*.{pattern}"
            yield Experiment(
                f"half the {stack}'s {kind}s" if several else f"half the {kind}s",
                "cut",
                f"{stack} {factor}" if several else factor,
                f"{kept:,} of {total:,} {kind}s left",
                (f'budget: {{sparsity: {sparsity:.2f}, scope: ["{scope}"]}}  # with {_SCORERS}',),
                target.pruned(plan).model,
                spec,
                kept / total,
            )


def narrow_copy(target: PrunableModel, spec: SpeedSpec) -> PreTrainedModel | None:
    """A copy with half the neurons of every sublayer; none where there are none to lose."""
    plan = _halved(_sizes(target.structure, "neuron"), random.Random(spec.seed))
    return target.pruned(plan).model if plan.keep else None


def _halved(sizes: Mapping[str, int], draw: random.Random) -> PruningPlan:
    return PruningPlan(
        keep={
            group: tuple(sorted(draw.sample(range(size), size - size // 2)))
            for group, size in sizes.items()
            if size > 1
        }
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


def _sizes(structure: Structure, kind: Kind, stack: str | None = None) -> dict[str, int]:
    return {
        sub.units.name: sub.units.size
        for sub in structure.sublayers.values()
        if sub.units.kind == kind and stack in (None, sub.stack)
    }
