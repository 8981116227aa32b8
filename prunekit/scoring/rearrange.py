"""Exchange of kept and removed units inside a group, by the loss of removing them together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

# An exchange must gain more than the rounding of its sums, as a share of the largest unit's own loss.
_ROUNDING = 1e-12


def rearrange(
    keep: Mapping[str, Sequence[int]], gradients: Mapping[str, Tensor]
) -> dict[str, tuple[int, ...]]:
    """Kept units, as many in each group as before, whose removed rest costs no more together than before.

    Kwon et al. 2022 (arXiv:2204.09656), mask rearrangement, the Fisher matrix block-diagonal: in each group,
    minimise the squared norm of ``sum(g_u for u in removed)``. Every kept unit, smallest first, joins the
    removed ones once, and the member without which the sum is shortest leaves. Unlike the paper, which
    starts from the smallest units, this starts from what ``keep`` removed (the same for Fisher scores):
    so the result is never worse than the start. Equal choices go to what was there first, then by index.

    Args:
        keep: for each group the sorted indices that stay.
        gradients: for each group the signed samples ``g_u`` as columns, ``[S, N]``; groups without stay.

    Returns:
        For each group of ``keep`` the sorted indices that stay.
    """
    return {
        name: _exchange(tuple(kept), gradients[name]) if name in gradients else tuple(kept)
        for name, kept in keep.items()
    }


def _exchange(kept: tuple[int, ...], samples: Tensor) -> tuple[int, ...]:
    units = samples.shape[1]
    if len(kept) in (0, units):
        return kept
    samples = samples.double()
    gram = samples.T @ samples  # [N, N]
    own = gram.diagonal().clone()
    margin = _ROUNDING * float(own.max())
    removed = torch.ones(units, dtype=torch.bool)
    removed[list(kept)] = False
    products = gram[:, removed].sum(1)  # [N]: of each unit with the sum over the removed ones
    for unit in sorted(kept, key=own.tolist().__getitem__):
        products += gram[unit]
        removed[unit] = True
        # |s - g_v|^2 = |s|^2 - (2 s.g_v - g_v^2), s the sum with the newcomer: what leaving gains.
        gains = torch.where(removed, 2 * products - own, -torch.inf)
        leaver = int(gains.argmax())
        if gains[leaver] <= gains[unit] + margin:
            leaver = unit
        products -= gram[leaver]
        removed[leaver] = False
    return tuple(torch.nonzero(~removed).flatten().tolist())
