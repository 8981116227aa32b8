"""Hidden units: dimensions of the residual stream, masked while a model runs or cut out of it for good.

With a mask ``z`` and its support ``m`` (where it is not zero): the stream's first state and every
contribution to it are multiplied by ``z``; norms take their statistics over kept dimensions; what reads the
stream reads it as it is. Pre-norm residuals are not multiplied again. In post-norm models the norm's output
is the stream, so it is multiplied by ``z`` as well. Cutting folds ``z`` into the weights that write.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from prunekit.adapters.base import Adapter, Structure, has_module, parameters_of
from prunekit.errors import PlanError
from prunekit.pruning.units import HIDDEN, TiedHead

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class HiddenMask:
    """A hidden mask, made ready once for everything that it multiplies.

    Args:
        values: ``z``, ``[D]``, differentiable.
    """

    def __init__(self, values: Tensor) -> None:
        self.values = values
        self.support = (values != 0).to(values.dtype)  # [D]
        self.kept = self.support.sum()

    def factor(self, name: str) -> Tensor:
        """``z`` for ``mask``, ``m`` for ``support``."""
        return self.values if name == "mask" else self.support


def mask_stream(model: nn.Module, adapter: Adapter, structure: Structure, mask: HiddenMask) -> list[Any]:
    """Mask what is outside the blocks; the handles take it off again."""
    stream = structure.stream
    assert stream is not None  # the group `hidden` exists
    handles: list[Any] = []
    for path in stream.sources:
        handles.append(model.get_submodule(path).register_forward_hook(_times(mask.values)))
    for norm in stream.norms:
        before = None if norm.before == "nothing" else mask.factor(norm.before)
        handles.append(KeptNorm(model, norm.path, adapter, mask, before, norm.after))
    return handles


def _times(factor: Tensor) -> Any:
    def hook(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        return output * factor.to(output.dtype)

    return hook


def refuse_nested(path: str, module: nn.Module) -> None:
    """Refuse to mask a module that runs under masks already.

    Raises:
        PlanError: if so.
    """
    if "forward" in vars(module):
        raise PlanError(
            f"{path} already runs with a replaced forward: masks do not nest. Leave the other masks' context "
            "first, or put all masks into one."
        )


class KeptNorm:
    """A norm that takes its statistics over the kept dimensions, until removed."""

    def __init__(
        self,
        model: nn.Module,
        path: str,
        adapter: Adapter,
        mask: HiddenMask,
        before: Tensor | None,
        after: str,
    ) -> None:
        norm: Any = model.get_submodule(path)
        refuse_nested(path, norm)
        self.norm = norm
        factor = mask.factor(after)

        def forward(states: Tensor) -> Tensor:
            if before is not None:
                states = states * before.to(states.dtype)
            dtype = torch.promote_types(states.dtype, torch.float32)
            support, kept = mask.support.to(dtype), mask.kept.to(dtype)
            return adapter.kept_norm(norm, states, support, kept, factor.to(dtype))

        norm.forward = forward

    def remove(self) -> None:
        """Put the module's own ``forward`` back."""
        del self.norm.forward


def cut_stream(
    model: PreTrainedModel,
    adapter: Adapter,
    structure: Structure,
    dead: set[str],
    kept: Sequence[int],
    scale: Sequence[float] | None,
) -> None:
    """Fold the scales in and select the kept dimensions of every axis that is as wide as the stream.

    Args:
        model: changed in place; sublayers in ``dead`` are gone already.
        adapter: its architecture.
        structure: of the whole model.
        dead: sublayers that are gone.
        kept: sorted dimensions that stay.
        scale: one factor a kept dimension, or none.
    """
    if scale is not None:
        factors = torch.ones(structure.groups[HIDDEN].size, dtype=torch.float64)
        factors[list(kept)] = torch.tensor(scale, dtype=torch.float64)
        _fold(model, structure, dead, factors)
    if len(kept) == structure.groups[HIDDEN].size:
        return
    index = torch.tensor(list(kept), dtype=torch.long)
    for part in structure.groups[HIDDEN].slices:
        if has_module(model, part.parameter):  # a dead sublayer's parameters are gone
            old = model.get_parameter(part.parameter)
            for module in _replace(model, old, old.index_select(part.axis, index.to(old.device))):
                _resize(module, part.axis, len(kept))
    for path in _norm_paths(structure, dead):
        adapter.narrow_norm(model.get_submodule(path), len(kept))


def _fold(model: nn.Module, structure: Structure, dead: set[str], factors: Tensor) -> None:
    stream = structure.stream
    assert stream is not None
    axes = {(part.parameter, part.axis) for part in stream.written}
    written = [part for part in structure.groups[HIDDEN].slices if (part.parameter, part.axis) in axes]
    for part in written:
        _scale(model, part.parameter, part.axis, factors)
    alive = [sub for sub in structure.sublayers.values() if sub.name not in dead]
    norms = [norm.path for norm in stream.norms if norm.after == "mask"]
    norms += [sub.norm for sub in alive if sub.post_norm]
    for path in [*norms, *(sub.output for sub in alive)]:
        for name in parameters_of(model, path):
            _scale(model, name, 0, factors)
    if stream.head is not None and _is_tied(model, stream.head):
        # The head is the embedding, into which the factors went. It has to read the stream as it is.
        for name in parameters_of(model, _norm_before(stream.head, structure, dead)):
            _scale(model, name, 0, 1 / factors)


def _is_tied(model: nn.Module, head: TiedHead) -> bool:
    return model.get_parameter(head.weight) is model.get_parameter(head.embedding)


def _norm_before(head: TiedHead, structure: Structure, dead: set[str]) -> str:
    left = [sub for sub in structure.sublayers.values() if sub.stack == head.stack and sub.name not in dead]
    return left[-1].norm if left else head.norm


def _norm_paths(structure: Structure, dead: set[str]) -> list[str]:
    assert structure.stream is not None
    inside = [sub.norm for sub in structure.sublayers.values() if sub.name not in dead]
    return [norm.path for norm in structure.stream.norms] + inside


def _scale(model: nn.Module, name: str, axis: int, factors: Tensor) -> None:
    old = model.get_parameter(name)
    shape = [-1 if i == axis else 1 for i in range(old.ndim)]
    _replace(model, old, old * factors.to(old).view(shape))


def _replace(model: nn.Module, old: nn.Parameter, tensor: Tensor) -> list[nn.Module]:
    """Put a new tensor in the place of a parameter wherever the model has it: ties stay ties."""
    new = nn.Parameter(tensor.detach(), requires_grad=old.requires_grad)
    owners = []
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is old:
                module._parameters[name] = new
                owners.append(module)
    return owners


def _resize(module: Any, axis: int, size: int) -> None:
    """What a module says of its own shape, for people who print it and code that asks."""
    names = {nn.Linear: ("out_features", "in_features"), nn.Conv2d: ("out_channels", "in_channels")}
    for kind, attributes in names.items():
        if isinstance(module, kind):
            setattr(module, attributes[axis], size)
    if isinstance(module, nn.Embedding):
        module.embedding_dim = size
