"""Masks on a running model: what the model would compute with units removed, differentiable in the masks.

Meaning of each kind (the pruned model inherits it):

- head, neuron: multiplies the input of the output projection, ``[B, T, N * width]``;
- sublayer: multiplies that projection's output, bias included; a dead sublayer (its own mask 0, or no unit
  left) is the identity, and in post-norm models its norm is skipped;
- block: ``x + z * (block(x) - x)``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from prunekit.adapters.base import Structure
from prunekit.errors import PlanError
from prunekit.pruning.units import Sublayer, block_group, sublayer_group


@contextmanager
def masked(model: nn.Module, structure: Structure, masks: Mapping[str, Tensor]) -> Iterator[None]:
    """Run ``model`` under ``masks`` inside the context; nothing of it stays behind.

    Gradients reach the masks. With gradient checkpointing the backward pass must run inside the context too.

    Args:
        model: the dense model.
        structure: its stacks, sublayers and groups.
        masks: for each group, ``[N]`` on the model's device; an absent group is left alone.

    Raises:
        PlanError: if a group is unknown or a mask has the wrong length.
    """
    for name, mask in masks.items():
        size = structure.groups[name].size if name in structure.groups else None
        if size != mask.numel():
            raise PlanError(
                f"mask {name!r} has {mask.numel()} entries; "
                + (f"the group has {size} units." if size else "the model has no such group.")
            )
    handles: list[Any] = []
    try:
        for sublayer in structure.sublayers.values():
            handles += _mask_sublayer(model, sublayer, masks)
        for stack in structure.stacks.values():
            z = masks.get(block_group(stack.name))
            if z is not None:
                for index, block in enumerate(model.get_submodule(stack.blocks).children()):
                    # First in line, so that transformers' recorders of hidden states see the blend.
                    hook = block.register_forward_hook(_blend(z[index]), with_kwargs=True, prepend=True)
                    handles.append(hook)
        yield
    finally:
        for handle in handles:
            handle.remove()


def _mask_sublayer(model: nn.Module, sublayer: Sublayer, masks: Mapping[str, Tensor]) -> list[Any]:
    units = masks.get(sublayer.units.name)
    whole = masks.get(sublayer_group(sublayer.stack, sublayer.role))
    if units is None and whole is None:
        return []
    output = model.get_submodule(sublayer.output)
    handles: list[Any] = []
    if units is not None:
        expanded = units.repeat_interleave(sublayer.units.width)  # [N * width]
        handles.append(output.register_forward_pre_hook(_scale_input(expanded)))
    gate = None if whole is None else whole[sublayer.block]
    # Without units a pre-norm projection gives its bias, and a post-norm block would still normalise.
    if sublayer.post_norm or (output.bias is not None and units is not None):
        alive = torch.ones((), dtype=torch.bool, device=(units if units is not None else gate).device)  # type: ignore[union-attr]
        if units is not None:
            alive = alive & (units != 0).any()
        if gate is not None:
            alive = alive & (gate != 0)
        gate = alive.to(torch.float32) if gate is None else gate * alive
        if sublayer.post_norm:
            norm = model.get_submodule(sublayer.norm)
            handles.append(norm.register_forward_hook(_skip_unless(alive)))
    if gate is not None:
        handles.append(output.register_forward_hook(_scale_output(gate)))
    return handles


def _scale_input(mask: Tensor) -> Any:
    def hook(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (args[0] * mask.to(args[0].dtype), *args[1:])

    return hook


def _scale_output(gate: Tensor) -> Any:
    def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output * gate.to(output.dtype)

    return hook


def _skip_unless(alive: Tensor) -> Any:
    # Arithmetic on the device, no branch: reading `alive` here would wait for the GPU in every sublayer.
    def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return torch.where(alive, output, args[0].to(output.dtype))

    return hook


def _blend(z: Tensor) -> Any:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        inputs = args[0] if args else kwargs["hidden_states"]
        first = output[0] if isinstance(output, tuple) else output
        # lerp gives either end exactly at 0 and 1.
        mixed = torch.lerp(inputs.to(first.dtype), first, z.to(first.dtype))
        return (mixed, *output[1:]) if isinstance(output, tuple) else mixed

    return hook
