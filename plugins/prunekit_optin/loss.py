"""The two terms of the trajectory loss, exact to rounding also where the change is tiny."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

Aggregate = Literal["sum", "mean"]


def unit_rows(features: Tensor) -> Tensor:
    """Token vectors at length 1, ``[..., K, d]``."""
    return normalize(features, dim=-1)


def manifold_distance(changed: Tensor, dense: Tensor, *, aggregate: Aggregate = "sum") -> Tensor:
    """Squared distance of two cosine Gram matrices, for each variant.

    Manifold distillation on sampled tokens (Hao et al. 2022, arXiv:2107.01378), OPTIN's Eq. 2:
    ``sum((Y' Y'^T - Y Y^T) ** 2)``. With ``D = Y' - Y`` and ``C = (Y' + Y) / 2`` the difference of the Grams
    is ``A + A^T`` for ``A = D C^T``, in which nothing large cancels. Where d is small against K the same sum
    comes from d x d matrices: ``2 <D^T D, C^T C> + 2 <P, P^T>`` with ``P = C^T D``.

    Args:
        changed: ``Y'``, rows of length 1, ``[M, K, d]``.
        dense: ``Y``, rows of length 1, ``[K, d]``.
        aggregate: sum over the K * K entries, or their mean.

    Returns:
        ``[M]``, at least 0; exactly 0 where ``changed`` equals ``dense``.
    """
    tokens, width = dense.shape
    difference = changed - dense
    if 2 * width < tokens:
        spread = difference.mT @ difference  # D^T D, [M, d, d]
        cross = dense.T @ difference + spread / 2  # P = Y^T D + D^T D / 2
        # C^T C = Y^T Y + (P + P^T) / 2 - D^T D / 4
        centre = dense.T @ dense + (cross + cross.mT) / 2 - spread / 4
        total = 2 * (spread * centre + cross * cross.mT).flatten(1).sum(1)
        # The sum of two products of rounded matrices may fall below 0 where the Grams agree.
        total = total.clamp_min(0)
    else:
        half = difference @ (dense + difference / 2).mT  # A, [M, K, K]
        total = (half + half.mT).flatten(1).square().sum(1)
    return total / tokens**2 if aggregate == "mean" else total


def answer_divergence(changed: Tensor, dense: Tensor, *, temperature: float, soften: bool = True) -> Tensor:
    """KL(dense || changed) times ``temperature ** 2``, summed over answers, for each variant.

    OPTIN's Eq. 3. In float64 and term by term positive: float32 would lose changes of
    logits below 1e-3 to cancellation.

    Args:
        changed: logits, ``[M, n, C]``.
        dense: logits, ``[n, C]``.
        temperature: above 0.
        soften: divide the logits by the temperature; the released code only multiplies by its square.

    Returns:
        ``[M]``, float64, at least 0; 0 for a single class.
    """
    divisor = temperature if soften else 1.0
    log_teacher = torch.log_softmax(dense.double() / divisor, dim=-1)
    teacher = log_teacher.exp()
    found = []
    # One variant at a time: a language model's logits in float64 are the largest tensors of all.
    for logits in changed:
        shift = torch.log_softmax(logits.double() / divisor, dim=-1) - log_teacher
        # As both are distributions, sum(p * -shift) = sum(p * (exp(shift) - 1 - shift)): no negative terms.
        found.append((teacher * (torch.expm1(shift) - shift)).sum())
    return temperature**2 * torch.stack(found).clamp_min(0)
