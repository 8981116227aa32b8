"""From the two terms to a score: by the paper's sum, or as the released code combines and weights them."""

from __future__ import annotations

from math import log10, trunc
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from prunekit.errors import UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prunekit.pruning.target import PrunableModel
    from prunekit.pruning.units import Sublayer
    from prunekit_optin.config import OptinConfig
    from prunekit_optin.exact import Terms
    from prunekit_optin.trajectory import Trajectory

_ACTIVATION_KEYS = ("hidden_act", "activation_function", "dense_act_fn")


def combined(
    config: OptinConfig, sublayers: Sequence[Sublayer], terms: Sequence[Terms], last: int
) -> list[Tensor]:
    """One score per unit from both terms, before any weighting by kind or index.

    Args:
        config: the loss's settings.
        sublayers: of one kind of unit, in the order their units were scored.
        terms: of their units.
        last: how many of the sublayers, from the end, have only their own block's tensor to be compared.

    Returns:
        For each sublayer ``[n]``, float64.
    """
    distances = [each.distance for each in terms]
    if config.double_last_distance:
        first = len(distances) - last
        distances = [each * (2 if number >= first else 1) for number, each in enumerate(distances)]
    if not config.adaptive_kl:
        return [
            distance + config.kl_weight * each.divergence
            for distance, each in zip(distances, terms, strict=True)
        ]
    history: list[float] = []
    found = []
    for sub, distance, each in zip(sublayers, distances, terms, strict=True):
        one = sub.role == "ffn" and config.neuron_kl_fallback == "one"
        pairs = zip(distance.tolist(), each.divergence.tolist(), strict=True)
        scores = [d + k * _adaptive_scale(d, k, config.kl_weight, history, one=one) for d, k in pairs]
        found.append(torch.tensor(scores, dtype=torch.float64))
    return found


def _adaptive_scale(
    distance: float, divergence: float, weight: float, history: list[float], *, one: bool
) -> float:
    """The power of ten that takes the divergence to about ``weight`` times the distance, rounded toward 1.

    What was found before is the answer where the divergence is the larger term, or 0; this is how the order
    of the units enters the released scores.
    """
    if distance > divergence > 0:
        history.append(10.0 ** trunc(log10(distance / divergence) + log10(weight)))
        return history[-1]
    if one and divergence > 0:
        return 1.0
    return sum(history) / len(history) if history else 1.0


def factors(config: OptinConfig, target: PrunableModel, trajectory: Trajectory) -> dict[str, Tensor]:
    """What each unit's score is multiplied by, float64, ``[N]``; all 1 in the paper."""
    found = {}
    for sub in target.structure.sublayers.values():
        is_ffn = sub.role == "ffn"
        envelope = config.neuron_envelope if is_ffn else config.head_envelope
        factor = config.neuron_decay if is_ffn else config.head_decay
        if trajectory.position(sub) == trajectory.length - 1:
            factor *= config.neuron_last_decay if is_ffn else config.head_last_decay
        falling = torch.linspace(1, 0, sub.units.size, dtype=torch.float64)
        found[sub.units.name] = factor * envelope**falling
    return found


def activation_at_zero(target: PrunableModel, sublayer: Sublayer) -> float:
    """What a neuron gives whose pre-activation is set to 0, as the released masks do.

    Raises:
        UnsupportedModelError: if the sublayer is gated, or the model's activation is unknown.
    """
    from transformers.activations import ACT2FN

    config = target.model.config
    name = next((getattr(config, key) for key in _ACTIVATION_KEYS if hasattr(config, key)), None)
    if len(sublayer.inputs) > 1 or not isinstance(name, str):
        raise UnsupportedModelError(
            f"pre_activation_masks sets what a neuron's activation function reads, but {sublayer.name} of "
            f"{type(target.model).__name__} is gated or its function is unknown. Leave "
            "pre_activation_masks out."
        )
    return float(ACT2FN[name](torch.zeros(())))
