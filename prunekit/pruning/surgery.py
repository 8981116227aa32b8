"""Surgery: a plan becomes a smaller model, by selecting entries of axes and taking modules out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from prunekit.adapters.base import Adapter, find_module
from prunekit.pruning.hidden import cut_stream
from prunekit.pruning.units import HIDDEN, Sublayer, block_group, sublayer_group

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Keep = Mapping[str, Sequence[int]]


def cut(
    model: PreTrainedModel,
    adapter: Adapter,
    keep: Keep,
    scale: Mapping[str, Sequence[float]] | None = None,
) -> None:
    """Cut ``model`` in place, on real or meta tensors.

    Args:
        model: a model of the adapter's type; its config is not touched.
        adapter: the architecture.
        keep: for each group the sorted indices that stay; absent groups stay whole.
        scale: for each group one factor per kept unit, folded into the weights: of heads, neurons and
            sublayers into the output projections, of hidden units into all that writes the residual stream.
    """
    structure = adapter.structure(model)
    base = model.base_model
    shared = adapter.shared(base)
    dead = structure.dead(keep)
    blocks = {name: list(model.get_submodule(stack.blocks)) for name, stack in structure.stacks.items()}
    tables = {(s.name, t.role): t for s in adapter.stacks for t in s.sublayers}
    for sub in structure.sublayers.values():
        table = tables[sub.stack, sub.role]
        block = blocks[sub.stack][sub.block]
        if sub.name in dead:
            for path, replacement in table.dead:
                parent, _, name = path.rpartition(".")
                setattr(block.get_submodule(parent), name, replacement())
            continue
        _fold(model, sub, keep, scale or {})
        kept = keep.get(sub.units.name)
        if kept is not None and len(kept) < sub.units.size:
            _narrow(model, sub, kept)
            if table.attention is not None:
                attention = find_module(block, table.attention, adapter)
                adapter.set_heads(attention, tuple(kept), sub.units.size)
    if HIDDEN in keep:
        cut_stream(model, adapter, structure, dead, keep[HIDDEN], (scale or {}).get(HIDDEN))
    survivors = {}
    for name, stack in structure.stacks.items():
        survivors[name] = [blocks[name][i] for i in keep.get(block_group(name), range(stack.depth))]
        parent, _, attribute = stack.blocks.rpartition(".")
        setattr(model.get_submodule(parent), attribute, nn.ModuleList(survivors[name]))
    adapter.finish(base, survivors, shared)


def _fold(model: nn.Module, sub: Sublayer, keep: Keep, scale: Mapping[str, Sequence[float]]) -> None:
    """Multiply the scales into the output projection, at full width."""
    output: Any = model.get_submodule(sub.output)
    units = scale.get(sub.units.name)
    if units is not None:
        factors = torch.ones(sub.units.size, dtype=torch.float64)
        factors[list(keep[sub.units.name])] = torch.tensor(units, dtype=torch.float64)
        columns = factors.repeat_interleave(sub.units.width)
        _set(output, "weight", output.weight * columns.to(output.weight))
    group = sublayer_group(sub.stack, sub.role)
    if group in scale:
        factor = scale[group][list(keep[group]).index(sub.block)]
        _set(output, "weight", output.weight * factor)
        if output.bias is not None:
            _set(output, "bias", output.bias * factor)


def _narrow(model: nn.Module, sub: Sublayer, kept: Sequence[int]) -> None:
    width = sub.units.width
    entries = torch.tensor([j * width + i for j in kept for i in range(width)], dtype=torch.long)
    for part in sub.units.slices:
        path, _, name = part.parameter.rpartition(".")
        module: Any = model.get_submodule(path)
        tensor = getattr(module, name)
        _set(module, name, tensor.index_select(part.axis, entries.to(tensor.device)))
        if name == "weight":
            setattr(module, ("out_features", "in_features")[part.axis], len(entries))


def _set(module: nn.Module, name: str, tensor: Tensor) -> None:
    previous = getattr(module, name)
    setattr(module, name, nn.Parameter(tensor.detach(), requires_grad=previous.requires_grad))
