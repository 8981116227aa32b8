"""Fisher pruning: score by labelled gradients, allocate, rearrange, tune."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel

from prunekit.method import MethodInfo
from prunekit_fisher.config import INFO, FisherConfig

if TYPE_CHECKING:
    from torch import Tensor

    from prunekit.pruning.plan import PruningPlan
    from prunekit.pruning.target import PrunableModel
    from prunekit.recipe import BudgetSpec
    from prunekit.scoring.scores import Scores
    from prunekit.tasks.base import Task
    from prunekit.training.loop import Trainer


class Fisher:
    """Kwon et al. 2022 on every model that has heads and neurons.

    Calibration examples are drawn without replacement; the released code draws with it, so that some of its
    examples count twice. Scores stay in the run folder, and a run beside it with another budget reuses them.
    Tuning aims at the dense model (see ``prunekit.scoring.tune``).
    """

    info: ClassVar[MethodInfo] = INFO
    Config: ClassVar[type[BaseModel]] = FisherConfig

    def __init__(self, config: FisherConfig) -> None:
        self.config = config

    def plan(self, target: PrunableModel, task: Task, budget: BudgetSpec, trainer: Trainer) -> PruningPlan:
        """Keep the units with the most Fisher information that the budget pays for.

        Raises:
            BudgetError: if the budget cannot be met.
            DataError: if the task has too few calibration examples, or no labels.
            PrunekitError: if the model's weights are not finite, or in less than float32.
        """
        # Imported here so that listing methods does not load torch.
        from prunekit.scoring.oneshot import calibration_batches, finish, unit_costs

        costs = unit_costs(target, budget, task)
        batches = calibration_batches(task, self.config, trainer.seed)
        groups = [target.structure.sublayers[name].units.name for name in costs]
        scores = _scores(target, batches, trainer).only(groups)
        return finish(target, scores, costs, budget, self.config, batches, progress=trainer.progress)


def _scores(target: PrunableModel, batches: Sequence[Mapping[str, Tensor]], trainer: Trainer) -> Scores:
    """Scores of all units, in scope or not: they cost no more, and runs with another scope reuse them."""
    from prunekit.scoring.cache import ScoreCache, fingerprint
    from prunekit_fisher.gradients import fisher_scores

    cache = ScoreCache(trainer.folder, fingerprint(INFO.name, target.model, batches, {}))
    scores = cache.load()
    trainer.reused_s += cache.reused_s
    if scores is None:
        groups = [sub.units.name for sub in target.structure.sublayers.values()]
        scores = fisher_scores(target, groups, batches, progress=trainer.progress)
        scores.check()
        cache.save(scores)
    return scores
