"""Masks and arithmetic that the tests of L0 masks and of their expected size share."""

from __future__ import annotations

import numpy as np
import torch

from prunekit.training.l0 import L0Masks


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, dtype=np.float64)))


def spread(masks, seed=0):
    """The masks with logits spread widely, so that every factor of a size matters."""
    with torch.no_grad():
        for parameter in masks.parameters():
            parameter.copy_(3 * torch.randn(parameter.shape, generator=seeded(seed + parameter.numel())) - 1)
    return masks


def small_masks(seed=0, *, without=()):
    """Masks of three sublayers in two blocks with a hidden width of 6, but for the kinds left out."""
    groups = {
        "enc.0.attn.heads": (2, "head"),
        "enc.0.ffn.neurons": (4, "neuron"),
        "enc.1.ffn.neurons": (4, "neuron"),
        "enc.attn": (1, "sublayer"),
        "enc.ffn": (2, "sublayer"),
        "enc.blocks": (2, "block"),
        "hidden": (6, "hidden"),
    }
    return spread(L0Masks({name: group for name, group in groups.items() if group[1] not in without}), seed)
