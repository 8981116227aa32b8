"""Numbers that are not finite, found before they are kept, and told with the first tensor that has them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from prunekit.recipe import StageSpec

Named = Iterable[tuple[str, Tensor]]


def count_bad(tensor: Tensor) -> int:
    """How many entries are NaN or infinite."""
    return int((~tensor.isfinite()).sum()) if tensor.is_floating_point() else 0


def first_bad(tensors: Named) -> str | None:
    """The first tensor with entries that are not finite, as ``NAME: 3 of 24 entries are NaN or infinite``."""
    for name, tensor in tensors:
        if bad := count_bad(tensor):
            return f"{name}: {bad} of {tensor.numel()} entries are NaN or infinite"
    return None


def parameters(modules: Mapping[str, nn.Module]) -> list[tuple[str, nn.Parameter]]:
    """Every parameter of the modules by name; those of ``model`` as the model names them itself."""
    return [
        (name if prefix == "model" else f"{prefix}.{name}", parameter)
        for prefix, module in modules.items()
        for name, parameter in module.named_parameters()
    ]


def gradient_norm(trained: Iterable[nn.Parameter]) -> Tensor:
    """Norm of all the gradients together, a scalar; it is finite only if all of them are."""
    gradients = [parameter.grad for parameter in trained if parameter.grad is not None]
    return torch.nn.utils.get_total_norm(gradients)


def symptom(figures: Mapping[str, float], norm: float, own_norm: float) -> str | None:
    """What of a step is not finite, as a claim; none if all of it is.

    Args:
        figures: ``loss`` and its terms.
        norm: of the weights' gradients.
        own_norm: of the gradients of masks, multipliers and whatever else has a rate of its own.
    """
    terms = ", ".join(f"{name} {value:g}" for name, value in figures.items() if name != "loss")
    if not math.isfinite(figures["loss"]):
        return f"the loss is {figures['loss']:g}" + (f" (terms: {terms})" if terms else "")
    bad = [name for name, value in figures.items() if not math.isfinite(value)]
    if bad:
        return f"the loss is {figures['loss']:g}, but its term {bad[0]} is {figures[bad[0]]:g}"
    if not math.isfinite(norm):
        return f"the loss is {figures['loss']:g}, but the norm of its gradient is {norm:g}"
    if not math.isfinite(own_norm):
        return (
            f"the loss is {figures['loss']:g}, but the norm of its gradient by masks and multipliers is "
            f"{own_norm:g}"
        )
    return None


IN_DATA = "in the data"
"""What ``place`` says where the fault lies there."""


def place(named: Sequence[tuple[str, nn.Parameter]], batches: Iterable[Mapping[str, Tensor]]) -> str:
    """The first tensor of a step that is not finite, and what to do about it: weights, data, then gradients.

    Args:
        named: every parameter, trained or not, with the step's gradients.
        batches: what the step was computed from.
    """
    if found := first_bad(named):
        return f"First among the weights: {found}."
    data = ((f"the batch's {name}", tensor) for batch in batches for name, tensor in batch.items())
    if found := first_bad(data):
        return f"The weights are finite; {IN_DATA} {found}: look for it there."
    gradients = ((f"the gradient of {name}", p.grad) for name, p in named if p.grad is not None)
    if found := first_bad(gradients):
        return f"Weights and data are finite; {found}."
    sizes = {name: float(p.grad.abs().max()) for name, p in named if p.grad is not None and p.grad.numel()}
    if not sizes:
        return "Weights and data are finite."
    largest = max(sizes, key=lambda name: sizes[name])
    return (
        "Weights, data and each gradient are finite; the largest gradient is that of "
        f"{largest}, {sizes[largest]:.3g}."
    )


def advice(spec: StageSpec, kept: str, *, bf16: bool, masks: bool) -> str:
    """What is kept, and which settings to lower.

    Args:
        spec: how the stage trains.
        kept: of the stage's steps, as a sentence.
        bf16: whether it trains under bfloat16.
        masks: whether parameters are trained at a rate of their own.
    """
    lower = [f"learning_rate ({spec.learning_rate:g})", f"max_grad_norm ({spec.max_grad_norm:g})"]
    if masks and (rate := getattr(spec, "mask_learning_rate", None)) is not None:
        lower.append(f"mask_learning_rate ({rate:g})")
    precision = ", or use precision: fp32" if bf16 else ""
    return f"{kept} Lower {' or '.join(lower)}{precision}, and give that run another folder."
