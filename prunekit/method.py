"""What a pruning method is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from prunekit.errors import UnsupportedModelError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from prunekit.pruning.plan import PruningPlan
    from prunekit.pruning.target import PrunableModel
    from prunekit.recipe import BudgetSpec
    from prunekit.tasks.base import Task
    from prunekit.training.loop import Trainer

ANY_MODEL = "*"
"""In ``MethodInfo.model_types``: every architecture that has an adapter."""


@dataclass(frozen=True)
class MethodInfo:
    """What a method declares about itself.

    Args:
        name: as recipes say it, kebab-case.
        summary: one line for listings.
        paper: citation or address.
        kinds: the unit kinds that its plans may name.
        model_types: adapters' names that it works on; ``("*",)`` if it asks nothing of the architecture.
        trains: whether planning changes the model's weights.
        data: the data that planning needs.
        deterministic: whether one seed gives one plan on one machine.
        budget_units: by less than the cost of how many of the largest units that a plan cuts, or may cut, it
            may remove more than the budget asks for. It never removes less.
        budget_tolerance: by what share of the prunable total it may miss the budget besides, either way.
        check_entry: the recipe entry by which checks run the method on models of three blocks: its own keys,
            and ``budget`` and ``train`` where the defaults will not do for so small a model.
        exceptions: rules of the check suite that do not hold for it, each with the reason.
    """

    name: str
    summary: str
    paper: str
    kinds: tuple[str, ...]
    model_types: tuple[str, ...]
    trains: bool
    data: Literal["train", "calibration", "none"]
    deterministic: bool
    budget_units: int = 1
    budget_tolerance: float = 0.0
    check_entry: Mapping[str, Any] = field(default_factory=dict, hash=False)
    exceptions: Mapping[str, str] = field(default_factory=dict, hash=False)

    def check_model(self, target: PrunableModel) -> None:
        """Refuse a model of an architecture that is not declared; the first thing for ``plan`` to do.

        Raises:
            UnsupportedModelError: if so.
        """
        if ANY_MODEL not in self.model_types and target.adapter.name not in self.model_types:
            raise UnsupportedModelError(
                f"{self.name} does not work on {type(target.model).__name__} ({target.adapter.name}): it is "
                f"for {', '.join(self.model_types)}. `prunekit methods list` shows what works on what."
            )


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
