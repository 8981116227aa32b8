"""A pruning method from outside prunekit: the units whose weights have the smallest norm are removed."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel, Field

from prunekit.method import MethodInfo, PruningMethod
from prunekit.plugins import hookimpl
from prunekit.scoring.config import OneShotConfig

if TYPE_CHECKING:
    from torch import Tensor

    from prunekit.pruning.plan import PruningPlan
    from prunekit.pruning.target import PrunableModel
    from prunekit.pruning.units import UnitGroup
    from prunekit.recipe import BudgetSpec
    from prunekit.tasks.base import Task
    from prunekit.training.loop import Trainer


class LpNormConfig(OneShotConfig):
    """Recipe keys of ``lp-norm``; examples are drawn only to tune."""

    p: float = Field(1.0, gt=0, description="exponent of the absolute weights that are added up")


class LpNorm:
    """Scores a head or a neuron by the sum of ``|w| ** p`` over all of its parameters."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="lp-norm",
        summary="removes the heads and neurons whose weights have the smallest Lp norm",
        paper="Li et al., ICLR 2017, arXiv:1608.08710, on heads and neurons in place of filters",
        kinds=("head", "neuron"),
        model_types=("*",),
        trains=False,
        data="none",
        deterministic=True,
    )
    Config: ClassVar[type[BaseModel]] = LpNormConfig

    def __init__(self, config: LpNormConfig) -> None:
        self.config = config

    def plan(self, target: PrunableModel, task: Task, budget: BudgetSpec, trainer: Trainer) -> PruningPlan:
        """Score every unit in the budget's scope; keep the best that it pays for."""
        # Imported here so that listing methods does not load torch.
        from prunekit.scoring.oneshot import calibration_batches, finish, unit_costs
        from prunekit.scoring.scores import Scores

        costs = unit_costs(target, budget, task)
        groups = [target.structure.sublayers[name].units for name in costs]
        scores = Scores({group.name: self._sums(target, group) for group in groups})
        batches = calibration_batches(task, self.config, trainer.seed) if self.config.tune else []
        return finish(target, scores, costs, budget, self.config, batches, progress=trainer.progress)

    def _sums(self, target: PrunableModel, group: UnitGroup) -> Tensor:
        """One sum a unit, ``[N]``, over its entries of every parameter that shrinks with the group."""
        import torch

        parts = [
            target.model.get_parameter(part.parameter).detach().movedim(part.axis, 0) for part in group.slices
        ]
        units = torch.cat([part.reshape(group.size, -1) for part in parts], dim=1)  # [N, entries]
        return units.double().abs().pow(self.config.p).sum(1).cpu()


@hookimpl
def prunekit_register_methods() -> list[type[PruningMethod]]:
    """The methods that this distribution adds."""
    return [LpNorm]
