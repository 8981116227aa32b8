"""A model held still: nothing that scoring does to it outlasts the scoring."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from prunekit.errors import PrunekitError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@contextmanager
def frozen(model: PreTrainedModel) -> Iterator[None]:
    """Inside: evaluation mode, weights without gradients, no TF32; all as before afterwards.

    Raises:
        PrunekitError: if the weights are in less than float32, or one of them is NaN or infinite.
    """
    _check(model)
    training = [module for module in model.modules() if module.training]
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    kernels: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    tf32 = [kernel.allow_tf32 for kernel in kernels]
    try:
        model.eval()
        for parameter in learning:
            parameter.requires_grad_(False)
        for kernel in kernels:
            kernel.allow_tf32 = False
        yield
    finally:
        for kernel, allowed in zip(kernels, tf32, strict=True):
            kernel.allow_tf32 = allowed
        for parameter in learning:
            parameter.requires_grad_(True)
        for module in training:
            module.training = True


def _check(model: PreTrainedModel) -> None:
    check_finite(model)
    if model.dtype not in (torch.float32, torch.float64):
        raise PrunekitError(
            f"{type(model).__name__} is in {str(model.dtype).removeprefix('torch.')}, in which the small "
            "differences that scores are made of are lost to rounding. Load it in float32."
        )


def check_finite(model: PreTrainedModel) -> None:
    """Refuse a model that no importance can be measured on.

    Raises:
        PrunekitError: if a weight is NaN or infinite, naming the first such tensor.
    """
    broken = [name for name, parameter in model.named_parameters() if not parameter.isfinite().all()]
    if broken:
        more = f" (and {len(broken) - 1} more)" if len(broken) > 1 else ""
        raise PrunekitError(
            f"the weights of {broken[0]}{more} are NaN or infinite. The model cannot be pruned; load a "
            "checkpoint from before its training diverged."
        )


def to_model(batch: Mapping[str, Tensor], model: PreTrainedModel) -> dict[str, Tensor]:
    """``batch`` on the model's device, its floating-point tensors in the model's dtype."""
    return {
        name: tensor.to(model.device, model.dtype if tensor.is_floating_point() else None)
        for name, tensor in batch.items()
    }
