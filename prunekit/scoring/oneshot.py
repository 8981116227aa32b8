"""The steps between scores and a plan, the same for every one-shot method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from prunekit.errors import BudgetError, PrunekitError
from prunekit.latency.meet import Met, meet
from prunekit.latency.plan import plan_by_time
from prunekit.progress import Progress
from prunekit.pruning.allocate import allocate
from prunekit.pruning.cost import SublayerCost
from prunekit.pruning.plan import PruningPlan
from prunekit.scoring.config import OneShotConfig
from prunekit.scoring.rearrange import rearrange
from prunekit.scoring.scores import Scores
from prunekit.scoring.tune import tune

if TYPE_CHECKING:
    from prunekit.pruning.stopwatch import Stopwatch
    from prunekit.pruning.target import PrunableModel
    from prunekit.recipe import BudgetSpec
    from prunekit.tasks.base import Task


def calibration_batches(task: Task, config: OneShotConfig, seed: int) -> list[dict[str, Tensor]]:
    """``config.examples`` calibration examples as batches on the CPU, in the order of the seeded draw.

    The last batch is smaller where the batch size does not divide the number of examples.

    Raises:
        DataError: if the task has no calibration data, or too little of it.
    """
    # Imported here so that the steps below can be used without a task.
    from prunekit.tasks.calibration import calibration_examples

    examples = calibration_examples(task, config.examples, seed)
    size = config.batch_size
    return [task.collate(examples[i : i + size]) for i in range(0, len(examples), size)]


def unit_costs(target: PrunableModel, budget: BudgetSpec, task: Task) -> dict[str, SublayerCost]:
    """Costs of the sublayers in the budget's scope: in its metric, under a latency budget in parameters.

    Raises:
        BudgetError: as ``target.costs``; or if the budget is a latency and the target has no stopwatch.
    """
    if budget.metric != "latency":
        return target.costs(budget, task)
    _stopwatch(target)
    return target.parameter_costs(budget.scope)


def _stopwatch(target: PrunableModel) -> Stopwatch:
    if target.stopwatch is None:
        raise BudgetError(
            "budget.metric = latency: the model has no stopwatch to be timed with. `prunekit prune` gives it "
            "one; in Python pass PrunableModel(model, adapter, stopwatch=MeasuredStopwatch(...))."
        )
    return target.stopwatch


def allocated(
    target: PrunableModel,
    values: Mapping[str, Tensor],
    costs: Mapping[str, SublayerCost],
    budget: BudgetSpec,
    floor: int,
) -> dict[str, tuple[int, ...]]:
    """The units that the budget pays for; under a latency budget by the table of times, not yet corrected.

    Raises:
        BudgetError: if the budget cannot be met.
    """
    structure = target.structure
    if budget.ratio is None:
        return allocate(values, costs, structure, budget.share, floor=floor, round_to=budget.round_to)
    table = _stopwatch(target).table()
    plan = plan_by_time(values, table, structure, budget.ratio, floor=floor, round_to=budget.round_to)
    return plan.keep


def finish(
    target: PrunableModel,
    scores: Scores,
    costs: Mapping[str, SublayerCost],
    budget: BudgetSpec,
    config: OneShotConfig,
    batches: Sequence[Mapping[str, Tensor]],
    *,
    progress: Progress | None = None,
) -> PruningPlan:
    """The plan: allocate within the budget, then rearrange and tune where ``config`` asks for it.

    Under a latency budget plans are measured and corrected until one is near enough, and that one is
    rearranged and tuned, which changes no shape; ``achieved["latency"]`` of the plan says what was measured.

    Args:
        target: the dense model, on any device; it is left as it was.
        scores: of unit groups in scope; groups that are not scored stay whole.
        costs: ``unit_costs(target, budget, task)``.
        budget: what to remove.
        config: the method's own settings.
        batches: calibration batches for tuning; their labels only mark a decoder's padding.
        progress: where to draw.

    Raises:
        BudgetError: if the budget cannot be met.
        PrunekitError: if a score is not finite, or rearrangement is asked for without gradient samples.
    """
    scores.check()
    missing = [name for name in scores.values if name not in scores.gradients]
    if config.rearrange and missing:
        raise PrunekitError(
            f"rearrange: true needs signed gradient samples, and these scores have none for {missing[0]}. "
            "Leave `rearrange` out, or use a method that samples gradients (fisher; optin with probes)."
        )
    met = _met(target, scores.values, budget, config.floor)
    keep = met.keep if met else allocated(target, scores.values, costs, budget, config.floor)
    if config.rearrange:
        keep = rearrange(keep, scores.gradients)
    scale = tune(target, keep, batches, progress=progress) if config.tune else {}
    if met is None:
        return PruningPlan(keep=keep, scale=scale)
    return PruningPlan(keep={**keep, **met.blocks}, scale=scale, achieved={"latency": met.record})


def _met(target: PrunableModel, values: Mapping[str, Tensor], budget: BudgetSpec, floor: int) -> Met | None:
    """What a latency budget came to; none under another."""
    if budget.ratio is None:
        return None
    return meet(
        _stopwatch(target),
        values,
        target.structure,
        budget.ratio,
        floor=floor,
        round_to=budget.round_to,
    )
