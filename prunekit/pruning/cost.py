"""What units cost, in parameters and MACs, counted from a model's own tensors.

Prunable parameters are the weights and biases of attention and FFN projections; norms, embeddings, position
tables and task heads are not prunable, though a removed sublayer takes its norm along. One MAC is one
multiply-add; FLOPs are twice that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from torch import nn

from prunekit.adapters.base import Adapter, Structure
from prunekit.pruning.units import HIDDEN, Sublayer, in_scope

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Keep = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class SublayerCost:
    """Cost of one sublayer.

    Args:
        unit: of each head or neuron.
        units: how many there are.
        fixed: of what goes only when the whole sublayer goes and is prunable (the output bias).
        norm: of what goes along but is not prunable.
        unit_per_hidden: part of ``unit`` that goes with each hidden unit that is removed.
        fixed_per_hidden: part of ``fixed`` likewise.
        norm_per_hidden: part of ``norm`` likewise.
    """

    unit: float
    units: int
    fixed: float = 0
    norm: float = 0
    unit_per_hidden: float = 0
    fixed_per_hidden: float = 0
    norm_per_hidden: float = 0

    @property
    def prunable(self) -> float:
        """Cost of the whole sublayer without its norm."""
        return self.unit * self.units + self.fixed

    def kept(self, units: int, cut: int = 0) -> float:
        """Prunable cost with ``units`` left and ``cut`` hidden units gone; without units it is gone."""
        left = self.narrowed(cut)
        return left.unit * units + left.fixed if units else 0

    def narrowed(self, cut: int) -> SublayerCost:
        """The same sublayer with ``cut`` hidden units gone."""
        return replace(
            self,
            unit=self.unit - cut * self.unit_per_hidden,
            fixed=self.fixed - cut * self.fixed_per_hidden,
            norm=self.norm - cut * self.norm_per_hidden,
        )


@dataclass(frozen=True)
class Lengths:
    """Tokens per example: ``source`` for the encoder, ``target`` for the decoder."""

    source: int
    target: int = 0


def parameter_costs(model: nn.Module, structure: Structure) -> dict[str, SublayerCost]:
    """Parameters of each sublayer, by sublayer name."""
    costs = {}
    for name, sub in structure.sublayers.items():
        per_unit = sum(
            model.get_parameter(part.parameter).numel() // sub.units.size for part in sub.units.slices
        )
        output: Any = model.get_submodule(sub.output)
        bias = 0 if output.bias is None else output.bias.numel()
        norms = list(model.get_submodule(sub.norm).parameters())
        # Each weight matrix has one row or column per hidden unit; biases of the inputs have none.
        matrices = sub.units.width * (len(sub.inputs) + 1)
        costs[name] = SublayerCost(
            per_unit,
            sub.units.size,
            bias,
            sum(p.numel() for p in norms),
            unit_per_hidden=matrices,
            fixed_per_hidden=int(bias > 0),
            norm_per_hidden=len(norms),
        )
    return costs


def mac_costs(model: nn.Module, structure: Structure, lengths: Lengths) -> dict[str, SublayerCost]:
    """MACs of each sublayer for one example of ``lengths``, by sublayer name.

    A head costs its share of the four projections and ``2 * T_query * T_key * d_head`` for scores and
    context; a neuron its row and column of the FFN matrices, per token.
    """
    costs = {}
    for name, sub in structure.sublayers.items():
        queries = lengths.source if sub.stack == "encoder" else lengths.target
        keys = lengths.source if sub.role == "cross_attn" else queries
        hidden = model.get_parameter(f"{sub.output}.weight").shape[0]
        if sub.role == "ffn":
            per_hidden, scores = queries * (len(sub.inputs) + 1), 0
        else:
            per_hidden = sub.units.width * 2 * (queries + keys)
            scores = sub.units.width * 2 * queries * keys
        costs[name] = SublayerCost(
            float(per_hidden * hidden + scores), sub.units.size, unit_per_hidden=float(per_hidden)
        )
    return costs


def scoped(
    costs: Mapping[str, SublayerCost], structure: Structure, scope: Sequence[str]
) -> dict[str, SublayerCost]:
    """The costs of sublayers whose unit group matches ``scope``."""
    return {
        name: cost
        for name, cost in costs.items()
        if in_scope(structure.sublayers[name].units.name, list(scope))
    }


def kept_units(structure: Structure, keep: Keep) -> dict[str, int]:
    """Units left in each sublayer; 0 where it, its block or all its units are gone."""
    dead = structure.dead(keep)
    return {
        name: 0 if name in dead else len(keep.get(sub.units.name, range(sub.units.size)))
        for name, sub in structure.sublayers.items()
    }


def cut_hidden(structure: Structure, keep: Keep) -> int:
    """How many hidden units are gone."""
    return structure.groups[HIDDEN].size - len(keep[HIDDEN]) if HIDDEN in keep else 0


def kept_cost(costs: Mapping[str, SublayerCost], structure: Structure, keep: Keep) -> float:
    """Prunable cost of ``costs`` that ``keep`` leaves."""
    left, cut = kept_units(structure, keep), cut_hidden(structure, keep)
    return sum(cost.kept(left[name], cut) for name, cost in costs.items())


def sparsity(costs: Mapping[str, SublayerCost], structure: Structure, keep: Keep) -> float:
    """Removed share of the prunable cost of ``costs``; 0 where there is nothing to remove."""
    total = sum(cost.prunable for cost in costs.values())
    return 1 - kept_cost(costs, structure, keep) / total if total else 0.0


def parameters(model: PreTrainedModel, adapter: Adapter, structure: Structure, keep: Keep) -> int:
    """All parameters that ``keep`` leaves, norms and embeddings included; tied ones count once."""
    costs = parameter_costs(model, structure)
    left, cut = kept_units(structure, keep), cut_hidden(structure, keep)
    total = count_parameters(model)
    for name, cost in costs.items():
        total -= int(cost.prunable - cost.kept(left[name], cut))
        total -= int(cost.norm - cost.narrowed(cut).norm if left[name] else cost.norm)
    if cut:
        total -= _outside(model, structure, cut)
    # What the stack's self-attention shares (T5's position table) goes with the last of it.
    for stack, module in adapter.shared(model.base_model).items():
        if not any(left[s.name] for s in _self_attention(structure, stack)):
            total -= sum(p.numel() for p in module.parameters())
    return total


def _outside(model: nn.Module, structure: Structure, cut: int) -> int:
    """Parameters outside the sublayers that go with ``cut`` hidden units: embeddings, norms and heads."""
    inside = {path for sub in structure.sublayers.values() for path in sub.modules}
    group = structure.groups[HIDDEN]
    names = [part.parameter for part in group.slices if part.parameter.rpartition(".")[0] not in inside]
    gone = 0
    for name, axes in Counter(names).items():
        rest = model.get_parameter(name).numel() // group.size**axes
        gone += rest * (group.size**axes - (group.size - cut) ** axes)
    return gone


def _self_attention(structure: Structure, stack: str) -> Iterable[Sublayer]:
    return (s for s in structure.sublayers.values() if s.stack == stack and s.role == "self_attn")


def count_parameters(model: nn.Module) -> int:
    """Parameters of ``model``, tied ones once."""
    return sum(p.numel() for p in model.parameters())
