"""What models predict, whatever their head: logits whose last axis is the distribution."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

MASKED = -1e9
"""A logit of probability 0 that is still finite: differences of infinities would not be numbers."""


def predictions(output: Any, inputs: Mapping[str, Tensor]) -> Tensor | None:
    """Return what a model predicts, as logits whose last axis is one distribution each.

    A model that marks the answer in a text gives two distributions over its S tokens, where the answer starts
    and where it ends. Padding is no place for either: its logits are -1e9.

    Args:
        output: of a transformers model.
        inputs: what the model was called with.

    Returns:
        ``[B, V]`` for a label, ``[B, T, V]`` for tokens, ``[B, 2, S]`` for start and end (in float32 at
        least); none if the model has no head, or another one.
    """
    logits: Tensor | None = getattr(output, "logits", None)
    if logits is not None:
        return logits
    start, end = getattr(output, "start_logits", None), getattr(output, "end_logits", None)
    if start is None or end is None:
        return None
    both = torch.stack([start, end], dim=1)  # [B, 2, S]
    mask = inputs.get("attention_mask")
    if mask is None:
        return both
    # -1e9 is beyond float16.
    both = both.to(torch.promote_types(both.dtype, torch.float32))
    return both.masked_fill((mask == 0).unsqueeze(1), MASKED)
