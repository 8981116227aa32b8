"""A model together with its adapter: what methods are given to prune."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from copy import deepcopy
from typing import TYPE_CHECKING

from prunekit.adapters.base import Adapter, Structure
from prunekit.errors import BudgetError, UnsupportedModelError
from prunekit.pruning import checkpoint, cost
from prunekit.pruning.lengths import mac_lengths
from prunekit.pruning.masks import masked
from prunekit.pruning.plan import PruningPlan
from prunekit.pruning.units import HIDDEN, UnitGroup, block_group

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from prunekit.pruning.stopwatch import Stopwatch
    from prunekit.recipe import BudgetSpec, MacsSpec
    from prunekit.tasks.base import Task


class PrunableModel:
    """A model whose units have names.

    Args:
        model: the dense model; its weights may be trained, its shapes are never changed.
        adapter: its architecture.
        stopwatch: times it and what is cut of it; there where the budget is a latency.

    Attributes:
        structure: stacks, sublayers and groups as found in ``model``.
    """

    def __init__(self, model: PreTrainedModel, adapter: Adapter, stopwatch: Stopwatch | None = None) -> None:
        self.model = model
        self.adapter = adapter
        self.stopwatch = stopwatch
        self.structure: Structure = adapter.structure(model)

    @property
    def groups(self) -> Mapping[str, UnitGroup]:
        """All unit groups, by name."""
        return self.structure.groups

    def masked(self, values: Mapping[str, Tensor]) -> AbstractContextManager[None]:
        """Run the model under masks inside the context; see ``prunekit.pruning.masks``."""
        return masked(self.model, self.adapter, self.structure, values)

    def pruned(self, plan: PruningPlan) -> PrunableModel:
        """A new, smaller model; this one is left as it is.

        Raises:
            PlanError: if the plan does not fit this model.
            UnsupportedModelError: if the plan removes hidden units and this model's cannot be removed.
        """
        if HIDDEN in plan.keep and HIDDEN not in self.groups:
            raise UnsupportedModelError(
                f"hidden units of {type(self.model).__name__} cannot be removed: {self.structure.no_hidden}."
            )
        plan.check(self.groups)
        return PrunableModel(checkpoint.build_pruned(self.model, self.adapter, plan), self.adapter)

    def take_weights(self, pruned: PrunableModel, plan: PruningPlan) -> None:
        """Copy the weights of ``pruned`` back into this model, where ``plan`` removed whole blocks only.

        For methods that train a shortened copy: what they learned belongs to the blocks that the plan keeps.
        """
        pairs = []
        for name, stack in self.structure.stacks.items():
            theirs = pruned.model.get_submodule(pruned.structure.stacks[name].blocks)
            ours = self.model.get_submodule(stack.blocks)
            kept = plan.keep.get(block_group(name), range(stack.depth))
            pairs += [(ours[index], block) for index, block in zip(kept, theirs, strict=True)]
        shared = self.adapter.shared(self.model.base_model)
        pairs += [
            (shared[name], module) for name, module in self.adapter.shared(pruned.model.base_model).items()
        ]
        pairs.append((self.model, pruned.model))
        prefixes = tuple(stack.blocks for stack in self.structure.stacks.values())
        for own, other in pairs:
            targets = dict(own.named_parameters())
            for name, parameter in other.named_parameters():
                # Blocks are paired above; by name they would be the wrong ones.
                if name in targets and not (own is self.model and name.startswith(prefixes)):
                    targets[name].data.copy_(parameter.data)

    def copy(self) -> PrunableModel:
        """An independent copy, such as a teacher."""
        return PrunableModel(deepcopy(self.model), self.adapter, self.stopwatch)

    def costs(self, budget: BudgetSpec, task: Task | None = None) -> dict[str, cost.SublayerCost]:
        """What the sublayers in the budget's scope cost, in the budget's metric.

        Args:
            budget: metric, scope, and for MACs the lengths.
            task: where lengths that the budget does not state are measured.

        Raises:
            BudgetError: if the scope has patterns and none matches, if nothing says how long examples are,
                or if the metric is a latency, which is not a sum over units.
        """
        if budget.metric == "params":
            return self.parameter_costs(budget.scope)
        if budget.metric == "macs":
            lengths = self.lengths(budget.macs, task)
            return self._in_scope(cost.mac_costs(self.model, self.structure, lengths), budget.scope)
        raise BudgetError(
            f"budget.metric = {budget.metric}: units have costs in params and macs only. Write one of these, "
            f"or use a method that works with {budget.metric}."
        )

    def lengths(self, spec: MacsSpec, task: Task | None = None) -> cost.Lengths:
        """Tokens per example that this model's MACs are counted for; see ``prunekit.pruning.lengths``."""
        return mac_lengths(self.model, self.adapter, self.structure, spec, task)

    def parameter_costs(self, scope: Iterable[str] = ()) -> dict[str, cost.SublayerCost]:
        """Parameters of the sublayers in scope.

        Raises:
            BudgetError: if the scope has patterns and none matches.
        """
        return self._in_scope(cost.parameter_costs(self.model, self.structure), scope)

    def _in_scope(
        self, every: Mapping[str, cost.SublayerCost], scope: Iterable[str]
    ) -> dict[str, cost.SublayerCost]:
        patterns = list(scope)
        found = cost.scoped(every, self.structure, patterns)
        if patterns and not found:
            example = next(iter(self.structure.sublayers.values())).units.name
            raise BudgetError(
                f"the budget's scope {patterns} matches no heads or neurons. Write patterns for names such "
                f"as {example}; `prunekit adapters show {self.adapter.name}` prints them all."
            )
        return found


def find_adapter(model: PreTrainedModel, adapters: Mapping[str, Adapter]) -> Adapter:
    """The adapter for ``model``.

    Raises:
        UnsupportedModelError: naming the model type and the supported ones.
    """
    found = model.config.model_type
    for adapter in adapters.values():
        if found in (adapter.model_type, adapter.pruned_type):
            return adapter
    raise UnsupportedModelError(
        f"{type(model).__name__} has the model type {found!r}, for which there is no adapter. Adapters: "
        f"{', '.join(sorted(adapters))}. A plugin can add one (`prunekit adapters list`)."
    )
