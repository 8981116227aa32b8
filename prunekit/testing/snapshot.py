"""The state that planning must leave as it was: the model's, and the process's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from prunekit.testing.process import modes, random_states

_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)
_GLOBAL_HOOKS = (
    "_global_forward_hooks",
    "_global_forward_pre_hooks",
    "_global_backward_hooks",
    "_global_backward_pre_hooks",
)


@dataclass(frozen=True)
class Snapshot:
    """A model and the process at one moment.

    Attributes:
        weights: copies of parameters and saved buffers, by name.
        layout: shape, dtype and device of each of them, and the class of each module, by name.
        training: mode of each module, by name.
        learning: whether each parameter asks for gradients, by name.
        gradients: names of parameters that hold a gradient.
        hooks: how many hooks and replaced methods there are, by place; places without are left out.
        modes: of the process.
        random: states of the process's random number generators.
    """

    weights: Mapping[str, Tensor]
    layout: Mapping[str, str]
    training: Mapping[str, bool]
    learning: Mapping[str, bool]
    gradients: frozenset[str]
    hooks: Mapping[str, int]
    modes: Mapping[str, Any]
    random: Mapping[str, Any]

    @classmethod
    def of(cls, model: nn.Module) -> Snapshot:
        """Take it now."""
        parameters = dict(model.named_parameters(remove_duplicate=False))
        state = model.state_dict()
        layout = {name: f"{tuple(t.shape)} {t.dtype} on {t.device.type}" for name, t in state.items()}
        layout |= {name: type(module).__name__ for name, module in model.named_modules() if name}
        return cls(
            weights={name: tensor.detach().clone() for name, tensor in state.items()},
            layout=layout,
            training={name or "the model": module.training for name, module in model.named_modules()},
            learning={name: parameter.requires_grad for name, parameter in parameters.items()},
            gradients=frozenset(name for name, p in parameters.items() if p.grad is not None),
            hooks={place: count for place, count in _hooks(model) if count},
            modes=modes(),
            random=random_states(),
        )


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Names whose values differ or that only one side has, in order."""
    names = dict.fromkeys([*before, *after])
    return [name for name in names if not same(before.get(name), after.get(name))]


def same(first: Any, second: Any) -> bool:
    """Whether two values are equal; tensors and arrays inside tuples and lists entry by entry, NaN to NaN."""
    if type(first) is not type(second):
        return False
    if isinstance(first, Tensor):
        if first.shape != second.shape or first.dtype != second.dtype:
            return False
        return torch.equal(first, second) or bool(
            ((first == second) | (first.isnan() & second.isnan())).all()
        )
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(same(a, b) for a, b in zip(first, second, strict=True))
    found = first == second
    return bool(found.all()) if hasattr(found, "all") else bool(found)


def _hooks(model: nn.Module) -> Iterator[tuple[str, int]]:
    for path, module in model.named_modules():
        where = path or "the model"
        yield from ((f"{where}{name}", len(getattr(module, name, ()) or ())) for name in _HOOKS)
        # A method set on the instance hides the class's: nothing is registered, but it stays all the same.
        replaced = [
            name for name, value in vars(module).items() if callable(value) and hasattr(type(module), name)
        ]
        yield from ((f"{where}.{name} replaced", 1) for name in replaced)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        yield f"{name}._backward_hooks", len(parameter._backward_hooks or ())
    for name in _GLOBAL_HOOKS:
        yield f"torch.nn.modules.module.{name}", len(getattr(torch_module, name))
