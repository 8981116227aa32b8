"""Normalisation over the kept hidden dimensions, and norms that were narrowed to them."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional


def kept_layer_norm(norm: Any, states: Tensor, support: Tensor, kept: Tensor, after: Tensor) -> Tensor:
    """LayerNorm whose mean and variance are those of the kept dimensions.

    Filling removed dimensions with the kept ones' mean leaves the mean as it is and makes the variance too
    small by ``kept / D``; scaling by the root of ``D / kept`` before the stock kernel and back in its weight
    puts that right, epsilon included. With everything kept the result is the stock module's, bit for bit.

    Args:
        norm: the module, with ``normalized_shape``, ``weight``, ``bias`` and ``eps``.
        states: ``[..., D]``, zero in removed dimensions.
        support: ``[D]``, 1 for a kept dimension and 0 for a removed one, in the precision to compute in: that
            of ``states``, at least float32.
        kept: how many are kept, a scalar on the device.
        after: ``[D]``, multiplies the result; zero in removed dimensions.

    Returns:
        ``[..., D]`` in the dtype of ``states``, zero in removed dimensions.
    """
    dtype = support.dtype
    gain = (support.numel() / kept).sqrt()
    mean = states.to(dtype).sum(-1, keepdim=True) / kept  # [..., 1]
    filled = (states + mean * (1 - support)) * gain
    weight, bias = (norm.weight * (after / gain)).to(dtype), (norm.bias * after).to(dtype)
    result = functional.layer_norm(filled, norm.normalized_shape, weight, bias, norm.eps)
    return result.to(states.dtype)


def narrow_layer_norm(norm: Any, width: int) -> None:
    """Tell a LayerNorm whose parameters were cut that it is ``width`` wide."""
    norm.normalized_shape = (width,)
