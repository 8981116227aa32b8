"""The steps between scores and a plan, the same for every one-shot method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from prunekit.errors import PrunekitError
from prunekit.progress import Progress
from prunekit.pruning.allocate import allocate
from prunekit.pruning.cost import SublayerCost
from prunekit.pruning.plan import PruningPlan
from prunekit.scoring.config import OneShotConfig
from prunekit.scoring.rearrange import rearrange
from prunekit.scoring.scores import Scores
from prunekit.scoring.tune import tune

if TYPE_CHECKING:
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

    Args:
        target: the dense model, on any device; it is left as it was.
        scores: of unit groups in scope; groups that are not scored stay whole.
        costs: ``target.costs(budget, task)``.
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
    keep = allocate(scores.values, costs, target.structure, budget.sparsity, floor=config.floor)
    if config.rearrange:
        keep = rearrange(keep, scores.gradients)
    scale = tune(target, keep, batches, progress=progress) if config.tune else {}
    return PruningPlan(keep=keep, scale=scale)
