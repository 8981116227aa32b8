"""Stand-ins for removed sublayers: each makes its block compute the identity in that place."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class NoAttentionSublayer(nn.Module):
    """Replaces a whole attention sublayer, residual and norm included, that hands a position bias on (T5)."""

    def forward(
        self, hidden_states: Tensor, *args: Any, position_bias: Tensor | None = None, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None, None]:
        """``hidden_states`` and ``position_bias`` unchanged."""
        return hidden_states, position_bias, None


class NoAttentionWithResidual(nn.Module):
    """Replaces an attention module that contains its residual addition and norm (BERT)."""

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, None]:
        """``hidden_states`` unchanged."""
        return hidden_states, None


class NoAttention(nn.Module):
    """Replaces an attention module whose result is added to the residual by the block (BART, ViT)."""

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, None]:
        """Zeros."""
        return torch.zeros_like(hidden_states), None


class NoContribution(nn.Module):
    """Replaces a projection whose result is added to the residual by the block."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Zeros."""
        return torch.zeros_like(hidden_states)


class ResidualOnly(nn.Module):
    """Replaces an output module that is given the residual as its second argument (BERT)."""

    def forward(self, hidden_states: Tensor, residual: Tensor) -> Tensor:
        """``residual`` unchanged."""
        return residual
