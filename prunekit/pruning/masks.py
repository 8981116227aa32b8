"""Masks on a running model: what the model would compute with units removed, differentiable in the masks.

Meaning of each kind (the pruned model inherits it):

- head, neuron: multiplies the input of the output projection, ``[B, T, N * width]``;
- sublayer: multiplies that projection's output, bias included; a dead sublayer (its own mask 0, or no unit
  left) is the identity, and in post-norm models its norm is skipped;
- block: ``x + z * (block(x) - x)``;
- hidden: dimensions of the residual stream; see ``prunekit.pruning.hidden``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from prunekit.adapters.base import Adapter, Structure
from prunekit.errors import PlanError
from prunekit.pruning.hidden import HiddenMask, KeptNorm, mask_stream, refuse_nested
from prunekit.pruning.units import HIDDEN, Sublayer, block_group, sublayer_group


@contextmanager
def masked(
    model: nn.Module, adapter: Adapter, structure: Structure, masks: Mapping[str, Tensor]
) -> Iterator[None]:
    """Run ``model`` under ``masks`` inside the context; nothing of it stays behind.

    Gradients reach the masks. With gradient checkpointing the backward pass must run inside the context too.

    Args:
        model: the dense model.
        adapter: its architecture.
        structure: its stacks, sublayers and groups.
        masks: for each group, ``[N]`` on the model's device; an absent group is left alone.

    Raises:
        PlanError: if a group is unknown or a mask has the wrong length.
    """
    for name, mask in masks.items():
        size = structure.groups[name].size if name in structure.groups else None
        if size != mask.numel():
            missing = "the model has no such group."
            if name == HIDDEN:
                missing = f"hidden units of this model cannot be masked: {structure.no_hidden}."
            raise PlanError(
                f"mask {name!r} has {mask.numel()} entries; "
                + (f"the group has {size} units." if size else missing)
            )
    hidden = HiddenMask(masks[HIDDEN]) if HIDDEN in masks else None
    handles: list[Any] = []
    try:
        if hidden is not None:
            handles += mask_stream(model, adapter, structure, hidden)
        for sublayer in structure.sublayers.values():
            handles += _mask_sublayer(model, adapter, sublayer, masks, hidden)
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


def _mask_sublayer(
    model: nn.Module,
    adapter: Adapter,
    sublayer: Sublayer,
    masks: Mapping[str, Tensor],
    hidden: HiddenMask | None,
) -> list[Any]:
    units = masks.get(sublayer.units.name)
    whole = masks.get(sublayer_group(sublayer.stack, sublayer.role))
    if units is None and whole is None and hidden is None:
        return []
    output: Any = model.get_submodule(sublayer.output)
    gate = None if whole is None else whole[sublayer.block]
    alive = None
    # Without units a pre-norm projection gives its bias, and a post-norm block would still normalise.
    can_die = units is not None or whole is not None
    if (sublayer.post_norm and can_die) or (output.bias is not None and units is not None):
        alive = _alive(units, gate, output.weight.device)
        gate = alive.to(torch.float32) if gate is None else gate * alive
    columns = None if units is None else units.repeat_interleave(sublayer.units.width)  # [N * width]
    rows = None if hidden is None else hidden.values  # [D]
    handles: list[Any] = [_Folded(sublayer.output, output, columns, rows, gate)]
    if hidden is not None:
        after = "mask" if sublayer.post_norm else "support"
        handles.append(KeptNorm(model, sublayer.norm, adapter, hidden, None, after))
    if alive is not None and sublayer.post_norm:
        norm = model.get_submodule(sublayer.norm)
        handles.append(norm.register_forward_hook(_skip_unless(alive)))
    return handles


def _alive(units: Tensor | None, gate: Tensor | None, device: torch.device) -> Tensor:
    alive = torch.ones((), dtype=torch.bool, device=device)
    if units is not None:
        alive = alive & (units != 0).any()
    if gate is not None:
        alive = alive & (gate != 0)
    return alive


class _Folded:
    """An output projection that computes with its masks multiplied into its weight, until removed.

    Multiplying activations instead gives the same, but a weight ``[d, N * width]`` is several times smaller
    than a training batch's activations ``[B, T, N * width]``, forward and backward.
    """

    def __init__(
        self, name: str, output: Any, columns: Tensor | None, rows: Tensor | None, gate: Tensor | None
    ) -> None:
        refuse_nested(name, output)
        self.output = output
        if gate is not None:
            columns = gate if columns is None else columns * gate

        def forward(inputs: Tensor) -> Tensor:
            weight, bias = output.weight, output.bias
            if columns is not None:
                weight = weight * columns.to(weight.dtype)
            if rows is not None:
                weight = weight * rows.to(weight.dtype).unsqueeze(-1)
            if bias is not None and gate is not None:
                bias = bias * gate.to(bias.dtype)
            if bias is not None and rows is not None:
                bias = bias * rows.to(bias.dtype)
            return functional.linear(inputs, weight, bias)

        output.forward = forward

    def remove(self) -> None:
        """Put the module's own ``forward`` back."""
        del self.output.forward


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
