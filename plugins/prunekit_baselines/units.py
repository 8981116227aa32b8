"""Magnitude and random scores of heads and neurons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel

from prunekit.method import MethodInfo
from prunekit_baselines.config import MAGNITUDE, RANDOM, UnitsConfig

if TYPE_CHECKING:
    from torch import Tensor

    from prunekit.pruning.cost import SublayerCost
    from prunekit.pruning.plan import PruningPlan
    from prunekit.pruning.target import PrunableModel
    from prunekit.pruning.units import UnitGroup
    from prunekit.recipe import BudgetSpec
    from prunekit.tasks.base import Task
    from prunekit.training.loop import Trainer


class Magnitude:
    """Keeps the weights with the largest sum of squares.

    A unit's score is the sum of squares of all its parameters: its rows of the projections in, biases
    included, and its columns of the projection out. So what is removed, over all groups together, has the
    smallest L2 norm that the budget allows, and a head is weighed against as many neurons as cost the same.
    """

    info: ClassVar[MethodInfo] = MAGNITUDE
    Config: ClassVar[type[BaseModel]] = UnitsConfig

    def __init__(self, config: UnitsConfig) -> None:
        self.config = config

    def plan(self, target: PrunableModel, task: Task, budget: BudgetSpec, trainer: Trainer) -> PruningPlan:
        """Score by squares, allocate.

        Raises:
            BudgetError: if the budget cannot be met.
            PrunekitError: if the model's weights are not finite, or ``rearrange`` is asked for.
        """
        # Imported here so that listing methods does not load torch.
        from prunekit.scoring.oneshot import unit_costs

        costs = unit_costs(target, budget, task)
        values = {
            sub.units.name: _squares(target, sub.units)
            for name, sub in target.structure.sublayers.items()
            if name in costs
        }
        return _planned(values, self.config, target, task, costs, budget, trainer)


class Random:
    """Keeps random units.

    A unit's score is its cost times a number drawn evenly from 0 to 1 by the run's seed: so that a head is
    no less likely to stay than the many neurons that cost the same.
    """

    info: ClassVar[MethodInfo] = RANDOM
    Config: ClassVar[type[BaseModel]] = UnitsConfig

    def __init__(self, config: UnitsConfig) -> None:
        self.config = config

    def plan(self, target: PrunableModel, task: Task, budget: BudgetSpec, trainer: Trainer) -> PruningPlan:
        """Draw scores, allocate.

        Raises:
            BudgetError: if the budget cannot be met.
            PrunekitError: if the model's weights are not finite, or ``rearrange`` is asked for.
        """
        import torch

        from prunekit.scoring.oneshot import unit_costs

        costs = unit_costs(target, budget, task)
        generator = torch.Generator().manual_seed(trainer.seed)
        values = {
            target.structure.sublayers[name].units.name: cost.unit
            * torch.rand(cost.units, generator=generator, dtype=torch.float64)
            for name, cost in costs.items()
        }
        return _planned(values, self.config, target, task, costs, budget, trainer)


def _squares(target: PrunableModel, group: UnitGroup) -> Tensor:
    """Sum of squares of each unit's parameters, ``[N]``."""
    parts: list[Any] = [
        target.model.get_parameter(part.parameter)
        .detach()
        .double()
        .movedim(part.axis, 0)
        .reshape(group.size, -1)  # [N, entries]
        .square()
        .sum(1)
        for part in group.slices
    ]
    total: Tensor = sum(parts[1:], start=parts[0]).cpu()
    return total


def _planned(
    values: Mapping[str, Tensor],
    config: UnitsConfig,
    target: PrunableModel,
    task: Task,
    costs: Mapping[str, SublayerCost],
    budget: BudgetSpec,
    trainer: Trainer,
) -> PruningPlan:
    # Imported here so that listing methods does not load torch.
    from prunekit.scoring.frozen import check_finite
    from prunekit.scoring.oneshot import calibration_batches, finish
    from prunekit.scoring.scores import Scores

    check_finite(target.model)
    batches = calibration_batches(task, config, trainer.seed) if config.tune else []
    return finish(target, Scores(values), costs, budget, config, batches, progress=trainer.progress)
