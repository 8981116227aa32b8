"""The shape that meets a latency budget: how deep the decoder stays, and how much of the encoder goes.

Chosen from the stopwatch's table, cut and measured before anything is trained: what a shape is trained to
changes nothing about its time.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prunekit import ranks
from prunekit.errors import BudgetError
from prunekit.files import write_text
from prunekit.json_files import read_json
from prunekit.latency.meet import TOLERANCE, TRIES
from prunekit.pruning.layers import select_layers
from prunekit.pruning.plan import PruningPlan
from prunekit.pruning.rounding import bundle_size
from prunekit.pruning.stopwatch import Measured, Stopwatch
from prunekit.pruning.units import block_group, in_scope
from prunekit_nash.config import NashConfig

if TYPE_CHECKING:
    from prunekit.pruning.target import PrunableModel
    from prunekit.recipe import BudgetSpec

STEP = 0.01
"""Between the encoder sparsities that are looked at."""
KEPT_IN = "checkpoints/prune-shape.json"
"""Where a run folder keeps the choice."""
_DAMAGED = "Delete the folder that it is in to choose and train a shape again."

# The command line shows what loggers below "prunekit" have to tell.
_log = logging.getLogger("prunekit.nash")


@dataclass(frozen=True)
class Shape:
    """What decides the time: decoder blocks that stay, and the share of the encoder that goes."""

    decoder_layers: int
    encoder_sparsity: float

    def __str__(self) -> str:
        blocks = "1 decoder block" if self.decoder_layers == 1 else f"{self.decoder_layers} decoder blocks"
        return f"{blocks} and {self.encoder_sparsity:.0%} of the encoder removed"


@dataclass(frozen=True)
class Try:
    """A shape with the share of the dense model's time that the table predicts, and that was measured."""

    shape: Shape
    predicted: float
    measured: Measured


class TimedChoice:
    """The shape for a latency budget, with the record of how it was chosen.

    Args:
        stopwatch: what measured it, and will measure what is learned.
        record: what a run reports of it.
    """

    def __init__(self, stopwatch: Stopwatch, record: Mapping[str, Any]) -> None:
        self.stopwatch = stopwatch
        self.record = record

    @classmethod
    def kept_or_made(
        cls, target: PrunableModel, config: NashConfig, budget: BudgetSpec, folder: Path
    ) -> TimedChoice:
        """The choice of the run in ``folder``; a run that was interrupted goes on with the shape it trains.

        Raises:
            BudgetError: if nothing measures times, or no shape is fast enough, with the smallest ratio that
                one has.
            RunFolderError: if the file of the choice is damaged.
        """
        if target.stopwatch is None:
            raise BudgetError(
                "nash: a latency budget is chosen by measured times, and nothing here measures them. Run the "
                "recipe with `prunekit prune`, or give PrunableModel a stopwatch."
            )
        path = folder / KEPT_IN
        kept = ranks.from_first(lambda: read_json(path, _DAMAGED) if path.is_file() else None)
        if kept is not None:
            return cls(target.stopwatch, kept)
        return cls(target.stopwatch, _chosen(target, target.stopwatch, config, budget))

    @property
    def shape(self) -> Shape:
        """What is to be kept."""
        return Shape(self.record["decoder_layers"], self.record["encoder_sparsity"])

    def save(self, folder: Path) -> None:
        """Keep the choice for when the run goes on after an interruption."""
        write_text(folder / KEPT_IN, json.dumps(self.record, indent=1) + "\n")

    def recorded(self, plan: PruningPlan) -> PruningPlan:
        """The learned plan with its own measured time, beside that of the shape when it was chosen."""
        learned = self.stopwatch.ratio(plan)
        chosen = {name: self.record[name] for name in ("measured", "low", "high", "within")}
        within = _is_inside(learned.ratio, self.record["target"])
        latency = {**self.record, **_figures(learned), "within": within, "chosen": chosen}
        return plan.model_copy(update={"achieved": {**plan.achieved, "latency": latency}})


def shape_plan(target: PrunableModel, shape: Shape, budget: BudgetSpec) -> PruningPlan:
    """A plan of that shape; which units go says nothing."""
    structure = target.structure
    kept = kept_of(target, shape, budget)
    keep: dict[str, tuple[int, ...]] = {
        sub.units.name: tuple(range(kept[sub.name]))
        for sub in structure.sublayers.values()
        if sub.stack == "encoder" and kept[sub.name] < sub.units.size
    }
    depth = structure.stacks["decoder"].depth
    if shape.decoder_layers < depth:
        keep[block_group("decoder")] = select_layers(depth, shape.decoder_layers)
    return PruningPlan(keep=keep)


def kept_of(target: PrunableModel, shape: Shape, budget: BudgetSpec) -> dict[str, int]:
    """Units that a shape keeps of every sublayer, every kind of unit in scope cut evenly.

    What rounding takes from one sublayer it leaves to the next, so that the stack as a whole loses the share.
    """
    layers = select_layers(target.structure.stacks["decoder"].depth, shape.decoder_layers)
    owed: dict[str, float] = {}
    kept = {}
    for sub in target.structure.sublayers.values():
        group = sub.units
        if sub.stack == "decoder":
            kept[sub.name] = group.size if sub.block in layers else 0
        elif in_scope(group.name, budget.scope):
            gone = shape.encoder_sparsity * group.size + owed.get(group.kind, 0.0)
            bundle = bundle_size(group, budget.round_to)
            left = min(max(round((group.size - gone) / bundle), 0) * bundle, group.size)
            owed[group.kind] = gone - (group.size - left)
            kept[sub.name] = left
        else:
            kept[sub.name] = group.size
    return kept


def next_shape(predicted: Mapping[Shape, float], tries: Sequence[Try], ratio: float) -> Shape:
    """The deepest decoder that some encoder makes fast enough, with the widest such encoder.

    A depth that is too slow at every sparsity, but by no more than the tolerance, is taken with its fastest
    encoder. Where no depth is fast enough, the answer is the fastest shape of all.

    Args:
        predicted: share of the dense model's time, by shape.
        tries: what was measured; it corrects the predictions.
        ratio: the share that is asked for.
    """
    expected = {shape: share * _correction(shape, tries) for shape, share in predicted.items()}
    for depth in sorted({shape.decoder_layers for shape in expected}, reverse=True):
        shapes = sorted(
            (shape for shape in expected if shape.decoder_layers == depth),
            key=lambda shape: shape.encoder_sparsity,
        )
        for shape in shapes:
            if expected[shape] <= ratio:
                return shape
        fastest = min(shapes, key=lambda shape: expected[shape])
        if _is_met(expected[fastest], ratio):
            return fastest
    return min(expected, key=lambda shape: expected[shape])


def _correction(shape: Shape, tries: Sequence[Try]) -> float:
    """Measured over predicted: linear between the tries of a depth, then between depths; 1 without a try."""
    if not tries:
        return 1.0
    by_depth: dict[int, dict[float, float]] = {}
    for tried in tries:
        factors = by_depth.setdefault(tried.shape.decoder_layers, {})
        factors[tried.shape.encoder_sparsity] = tried.measured.ratio / tried.predicted
    depths = sorted(by_depth)
    at_depths = [_between(by_depth[depth], shape.encoder_sparsity) for depth in depths]
    return _between(dict(zip(depths, at_depths, strict=True)), shape.decoder_layers)


def _between(points: Mapping[Any, float], at: float) -> float:
    places = sorted(points)
    return float(np.interp(at, places, [points[place] for place in places]))


def _chosen(
    target: PrunableModel, stopwatch: Stopwatch, config: NashConfig, budget: BudgetSpec
) -> dict[str, Any]:
    """Choose, and give the record of it."""
    ratio = _ratio(budget)
    tries = _tries(target, stopwatch, config, budget)
    best = _best(tries, ratio, config)
    _tell(best, tries, ratio, config)
    return {
        "target": ratio,
        "predicted": best.predicted,
        **_figures(best.measured),
        "within": _is_inside(best.measured.ratio, ratio),
        "tries": [
            {**asdict(tried.shape), "predicted": tried.predicted, **_figures(tried.measured)}
            for tried in tries
        ],
        **asdict(best.shape),
    }


def _figures(measured: Measured) -> dict[str, float]:
    return {"measured": measured.ratio, "low": measured.low, "high": measured.high}


def _tries(target: PrunableModel, stopwatch: Stopwatch, config: NashConfig, budget: BudgetSpec) -> list[Try]:
    """Choose, cut, measure and correct, until a shape is inside the tolerance or nothing new is chosen."""
    ratio = _ratio(budget)
    target.parameter_costs(budget.scope)  # refuses a scope that names nothing
    shapes = _shapes(target, config)
    table = stopwatch.table()
    predicted = {shape: table.predict(kept_of(target, shape, budget)) / table.total_ms for shape in shapes}
    # The whole model is known to take its own time.
    whole = Try(Shape(target.structure.stacks["decoder"].depth, 0.0), 1.0, Measured(1.0, 1.0, 1.0))
    tries: list[Try] = []
    while len(tries) < TRIES:
        shape = next_shape(predicted, [whole, *tries], ratio)
        if shape in [tried.shape for tried in tries]:
            break
        measured = stopwatch.ratio(shape_plan(target, shape, budget))
        tries.append(Try(shape, predicted[shape], measured))
        _log.info(
            "nash: %s: predicted %.3f of the dense model's time, measured %.3f (asked for: %g)",
            *(shape, predicted[shape], measured.ratio, ratio),
        )
        if _is_inside(measured.ratio, ratio):
            break
    return tries


def _shapes(target: PrunableModel, config: NashConfig) -> list[Shape]:
    """Every shape that may be chosen."""
    depth = target.structure.stacks["decoder"].depth
    stated = config.decoder_layers
    if stated is not None:
        select_layers(depth, stated)  # refuses more blocks than there are
    steps = int(config.max_encoder_sparsity / STEP + 1e-9)
    sparsities = sorted({*(round(i * STEP, 2) for i in range(steps + 1)), config.max_encoder_sparsity})
    depths = range(1, depth + 1) if stated is None else [stated]
    return [Shape(layers, sparsity) for layers in depths for sparsity in sparsities]


def _best(tries: Sequence[Try], ratio: float, config: NashConfig) -> Try:
    """The try nearest to the ratio among those that meet it."""
    met = [tried for tried in tries if _is_met(tried.measured.ratio, ratio)]
    if met:
        return min(met, key=lambda tried: abs(tried.measured.ratio - ratio))
    fastest = min(tries, key=lambda tried: tried.measured.ratio)
    measured = fastest.measured
    advice = f"let more of the encoder go (max_encoder_sparsity, now {config.max_encoder_sparsity:g})"
    if config.decoder_layers is not None and config.decoder_layers > 1:
        advice = (
            f"keep fewer decoder_layers (now {config.decoder_layers}; left out, they are chosen), or "
            + advice
        )
    raise BudgetError(
        f"nash: no shape was found that has a latency ratio of {ratio:g}: the smallest of {len(tries)} "
        f"measured is {measured.ratio:.3f} [{measured.low:.3f}, {measured.high:.3f}], with {fastest.shape}. "
        f"Ask for a budget.ratio of {_rounded_up(measured.ratio):g} or more, or {advice}."
    )


def _tell(best: Try, tries: Sequence[Try], ratio: float, config: NashConfig) -> None:
    """Log the choice, with a warning where it is further from the budget than the tolerance."""
    measured = best.measured
    interval = f"{measured.ratio:.3f} [{measured.low:.3f}, {measured.high:.3f}]"
    found = f"nash: {best.shape}: chosen at {interval} of the dense model's time"
    if _is_inside(measured.ratio, ratio):
        _log.info("%s; asked for: %g", found, ratio)
        return
    if len(tries) == TRIES:
        why = f"it is the nearest of {TRIES} tries"
    elif best.shape.encoder_sparsity:
        why = "no other shape is predicted to come nearer"
    elif config.decoder_layers is not None:
        why = "with these decoder_layers nothing of the encoder need go"
    else:
        why = (
            "no deeper decoder is predicted to be fast enough, even with max_encoder_sparsity "
            f"({config.max_encoder_sparsity:g}) of the encoder removed"
        )
    if any(
        tried.measured.high - tried.measured.low > 2 * TOLERANCE * tried.measured.ratio for tried in tries
    ):
        why += (
            ". The intervals are wider than what is looked for, so the choice may be chance: raise "
            "speed.rounds, or keep other work off this machine"
        )
    off = f"{1 - measured.ratio / ratio:.1%} faster than the {ratio:g} asked for"
    _log.warning("%s, %s: %s.", found, off, why)


def _ratio(budget: BudgetSpec) -> float:
    if budget.ratio is None:
        raise TypeError("only a latency budget has a ratio")
    return budget.ratio


def _is_met(found: float, ratio: float) -> bool:
    return found <= ratio * (1 + TOLERANCE)


def _is_inside(found: float, ratio: float) -> bool:
    return abs(found - ratio) <= ratio * TOLERANCE


def _rounded_up(share: float) -> float:
    return -(-share * 1000 // 1) / 1000
