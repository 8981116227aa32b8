"""A model together with its adapter: what methods are given to prune."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from copy import deepcopy
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from prunekit.adapters.base import Adapter, Structure
from prunekit.errors import BudgetError, UnsupportedModelError
from prunekit.plugins import get_registry
from prunekit.pruning import checkpoint, cost
from prunekit.pruning.lengths import mac_lengths
from prunekit.pruning.masks import masked
from prunekit.pruning.plan import PruningPlan
from prunekit.pruning.units import HIDDEN, UnitGroups, block_group

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from prunekit.pruning.stopwatch import Stopwatch
    from prunekit.recipe import BudgetSpec, MacsSpec
    from prunekit.tasks.base import Task


class PrunableModel:
    """A model whose units have names.

    Args:
        model: the dense model; its weights may be trained, its shapes are never changed.
        adapter: its architecture; by default the installed adapter for its type.
        stopwatch: times it and what is cut of it; there where the budget is a latency.

    Attributes:
        structure: stacks, sublayers and groups as found in ``model``.

    Raises:
        UnsupportedModelError: if there is no adapter for the model, or it refuses this variant.
        AdapterMismatchError: if the adapter names a module that the model does not have.
    """

    def __init__(
        self, model: PreTrainedModel, adapter: Adapter | None = None, stopwatch: Stopwatch | None = None
    ) -> None:
        self.model = model
        self.adapter = adapter or find_adapter(model, get_registry().adapters)
        self.stopwatch = stopwatch
        self.structure: Structure = self.adapter.structure(model)

    @classmethod
    def from_pretrained(cls, name: str | Path) -> PrunableModel:
        """The model of that name, in float32 and eval mode, on the CPU.

        Args:
            name: hub id, model folder, run folder or ``embedded:NAME``.

        Raises:
            CheckpointError: if there is no such model, or weights and config disagree.
            UnsupportedModelError: if there is no adapter for it, or that refuses this variant.
        """
        from prunekit.models import load_model

        return cls(load_model(str(name)))

    def __repr__(self) -> str:
        stacks = " and ".join(f"{s.name} of {s.depth} blocks" for s in self.structure.stacks.values())
        return (
            f"PrunableModel({type(self.model).__name__}, adapter {self.adapter.name}, {stacks}, "
            f"{self.model.num_parameters():,} parameters)"
        )

    @cached_property
    def groups(self) -> UnitGroups:
        """All unit groups, by name; shown as a table."""
        return UnitGroups(self.structure.groups)

    def masked(self, values: Mapping[str, Tensor | Sequence[float]]) -> AbstractContextManager[None]:
        """Run the model under masks inside the context; nothing of it stays behind.

        Args:
            values: for each group its mask, ``[N]``, 0 for a removed unit and 1 for a kept one: a tensor on
                the model's device, which gradients reach, or numbers. A group that is left out is whole. What
                a mask on each kind of unit means is told in ``prunekit.pruning.masks``.

        Raises:
            PlanError: if a group is unknown, or a mask has the wrong length.
        """
        like = {"dtype": self.model.dtype, "device": self.model.device}
        tensors = {
            name: value if isinstance(value, Tensor) else torch.tensor(value, **like)
            for name, value in values.items()
        }
        return masked(self.model, self.adapter, self.structure, tensors)

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
