"""What a pruning method is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

if TYPE_CHECKING:
    from pydantic import BaseModel

    from prunekit.pruning.plan import PruningPlan
    from prunekit.pruning.target import PrunableModel
    from prunekit.recipe import BudgetSpec
    from prunekit.tasks.base import Task
    from prunekit.training.loop import Trainer


@dataclass(frozen=True)
class MethodInfo:
    """What a method declares about itself.

    Args:
        name: as recipes say it, kebab-case.
        summary: one line for listings.
        paper: citation or address.
        kinds: the unit kinds that its plans may name.
        model_types: adapters' names that it works on.
        trains: whether planning changes the model's weights.
        data: the data that planning needs.
        deterministic: whether one seed gives one plan on one machine.
    """

    name: str
    summary: str
    paper: str
    kinds: tuple[str, ...]
    model_types: tuple[str, ...]
    trains: bool
    data: Literal["train", "calibration", "none"]
    deterministic: bool


class PruningMethod(Protocol):
    """Chooses the units to keep; everything after the plan is prunekit's.

    Attributes:
        info: the declaration.
        Config: the method's recipe keys.
    """

    info: ClassVar[MethodInfo]
    Config: ClassVar[type[BaseModel]]

    def __init__(self, config: Any) -> None:
        """Keep a validated ``Config``; no work here."""
        ...

    def plan(self, target: PrunableModel, task: Task, budget: BudgetSpec, trainer: Trainer) -> PruningPlan:
        """Decide what to keep.

        Args:
            target: the dense model; its weights may be trained, its shapes must stay.
            task: training and validation data; the test split is not for methods.
            budget: what to remove.
            trainer: runs training stages; ``trainer.spec`` holds the recipe's ``train`` section.

        Returns:
            The plan. Weights that were trained are left in ``target``.

        Raises:
            BudgetError: if the budget is not one that the method can meet.
            UnsupportedModelError: if the method does not work on this model.
            TrainingError: if training missed its target.
        """
        ...
