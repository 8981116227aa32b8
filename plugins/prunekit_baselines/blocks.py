"""Whole blocks, left out by their place alone."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import BaseModel

from prunekit.errors import BudgetError, UnsupportedModelError
from prunekit.method import MethodInfo
from prunekit.pruning.layers import select_layers
from prunekit.pruning.plan import PruningPlan
from prunekit.pruning.units import block_group
from prunekit_baselines.config import HIGH, LOW, UNIFORM, BlocksConfig

if TYPE_CHECKING:
    from prunekit.pruning.cost import SublayerCost
    from prunekit.pruning.target import PrunableModel
    from prunekit.recipe import BudgetSpec
    from prunekit.tasks.base import Task
    from prunekit.training.loop import Trainer

# The share of the total by which float arithmetic may exceed a budget.
_ROUNDING = 1e-9


class _Blocks:
    """Keeps so many blocks of each stack as the recipe says, or as the budget pays for.

    With a number for either stack the budget is not asked, and a stack without one stays whole. With none,
    every stack in scope keeps the same share of its blocks, rounded down to whole blocks and never to none:
    the largest share within the budget.
    """

    Config: ClassVar[type[BaseModel]] = BlocksConfig
    selection: ClassVar[Literal["uniform", "low", "high"]]

    def __init__(self, config: BlocksConfig) -> None:
        self.config = config

    def plan(self, target: PrunableModel, task: Task, budget: BudgetSpec, trainer: Trainer) -> PruningPlan:
        """Choose the blocks.

        Raises:
            BudgetError: if the model has fewer blocks than are to be kept, if not even one block of each
                stack fits the budget, if its scope holds part of a stack, or if it is a latency.
            UnsupportedModelError: if a number is given for a stack that the model does not have.
            PrunekitError: if the model's weights are not finite.
        """
        # Imported here so that listing methods does not load torch.
        from prunekit.scoring.frozen import check_finite

        check_finite(target.model)
        depths = {name: stack.depth for name, stack in target.structure.stacks.items()}
        keep = self._asked(target, depths) or self._affordable(target, depths, task, budget)
        return PruningPlan(
            keep={block_group(name): kept for name, kept in keep.items() if len(kept) < depths[name]}
        )

    def _asked(self, target: PrunableModel, depths: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
        """Blocks by the recipe's numbers; empty if there are none."""
        given = {"encoder": self.config.encoder_layers, "decoder": self.config.decoder_layers}
        counts = {name: count for name, count in given.items() if count is not None}
        for name in counts:
            if name not in depths:
                raise UnsupportedModelError(
                    f"{self.selection}: {name}_layers is given, but {type(target.model).__name__} has only "
                    f"{', '.join(depths)} blocks. Leave {name}_layers out."
                )
        return self._selected(depths, counts)

    def _affordable(
        self, target: PrunableModel, depths: Mapping[str, int], task: Task, budget: BudgetSpec
    ) -> dict[str, tuple[int, ...]]:
        """The largest share of the blocks of every stack in scope that fits the budget."""
        costs = target.costs(budget, task)
        scoped = {name: depths[name] for name in depths if _in_scope(target, name, costs, self.selection)}
        total = sum(cost.prunable for cost in costs.values())
        shares = {Fraction(kept, depth) for depth in scoped.values() for kept in range(1, depth + 1)}
        spent = total
        for share in sorted(shares, reverse=True):
            counts = {name: max(1, int(share * depth)) for name, depth in scoped.items()}
            keep = self._selected(depths, counts)
            spent = sum(
                costs[sub.name].prunable
                for sub in target.structure.sublayers.values()
                if sub.name in costs and sub.block in keep[sub.stack]
            )
            if spent <= (1 - budget.share + _ROUNDING) * total:
                return keep
        raise BudgetError(
            f"{self.selection}: a sparsity of {budget.share:g} cannot be reached: with one block left in "
            f"{' and '.join(scoped)}, {1 - spent / total:.4f} is removed. Ask for at most "
            f"{int((1 - spent / total) * 1e4) / 1e4:g}."
        )

    def _selected(self, depths: Mapping[str, int], counts: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
        return {
            name: select_layers(depths[name], count, self.selection, stack=name)
            for name, count in counts.items()
        }


def _in_scope(target: PrunableModel, stack: str, costs: Mapping[str, SublayerCost], selection: str) -> bool:
    """Whether the budget counts a stack; it must count all of it or nothing."""
    subs = [sub for sub in target.structure.sublayers.values() if sub.stack == stack]
    outside = [sub.units.name for sub in subs if sub.name not in costs]
    if 0 < len(outside) < len(subs):
        raise BudgetError(
            f"{selection} removes whole blocks, but the budget's scope leaves out {outside[0]} and "
            f"{len(outside) - 1} more of the {stack}. Write budget.scope: ['{stack}.*']."
        )
    return not outside


class Uniform(_Blocks):
    """Keeps evenly spaced blocks, the first and the last among them."""

    info: ClassVar[MethodInfo] = UNIFORM
    selection = "uniform"


class Low(_Blocks):
    """Keeps the first blocks."""

    info: ClassVar[MethodInfo] = LOW
    selection = "low"


class High(_Blocks):
    """Keeps the last blocks."""

    info: ClassVar[MethodInfo] = HIGH
    selection = "high"
