"""Trajectory distances of single units by running the model without each: exact, in large stacked calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from prunekit.pruning.units import Sublayer
from prunekit.scoring.replay import Prefix, idle_units, record, run
from prunekit_optin.reference import Reference
from prunekit_optin.released import activation_at_zero
from prunekit_optin.trajectory import Feature, Trajectory

if TYPE_CHECKING:
    from prunekit.pruning.target import PrunableModel

Advance = Callable[[int], None]
Units = Mapping[str, Sequence[int]]
MEMORY = 96 * 2**20
"""Bytes of activations that a stacked call may need. Much larger ones are slower on a CPU."""


@dataclass(frozen=True)
class Terms:
    """The two terms of single units, in the order they were asked for; float64, ``[n]``."""

    distance: Tensor
    divergence: Tensor


@torch.inference_mode()
def exact_terms(
    target: PrunableModel,
    reference: Reference,
    trajectory: Trajectory,
    units: Units,
    *,
    advance: Advance = lambda count: None,
    memory: int = MEMORY,
    leak: bool = False,
    pre_activation: bool = False,
) -> dict[str, Terms]:
    """Both terms for each unit, one unit removed at a time.

    Args:
        target: the dense model, in evaluation mode.
        reference: the batch, and what the dense model makes of it.
        trajectory: the compared tensors.
        units: for each unit group the indices to score.
        advance: called with the number of units done.
        memory: bytes of activations that a stacked call may need.
        leak: keep the last head of every earlier attention removed as well, as the released code does.
        pre_activation: set what a neuron's activation function reads to 0, and not what it gives.

    Returns:
        For each group the terms of its units, in the order given.
    """
    sublayers = {sub.units.name: sub for sub in target.structure.sublayers.values()}
    found = {}
    for name, sub, prefixes in _recorded(target, reference, sublayers, units, leak):
        indices = torch.tensor(units[name], dtype=torch.long)
        if pre_activation and sub.role == "ffn":
            rest = activation_at_zero(target, sub)
            prefixes = [replace(prefix, entering=prefix.entering - rest) for prefix in prefixes]
        terms = Terms(*torch.zeros(2, len(indices), dtype=torch.float64))
        tensors = trajectory.behind(trajectory.position(sub))
        idle = torch.stack([idle_units(target, prefix) for prefix in prefixes]).all(0).cpu()
        # Removed heads elsewhere change every variant, also those of units that contribute nothing.
        busy = torch.arange(len(indices)) if leak else (~idle[indices]).nonzero().flatten()
        advance(len(indices) - len(busy))
        if len(busy):
            stacked = _stacked(target, reference, sub, tensors, memory)
            # Equal chunks: a short last one would cost nearly as much as a full one.
            for chunk in busy.chunk(-(-len(busy) // stacked)):
                distance, divergence = _chunk(target, reference, prefixes, indices[chunk], tensors)
                terms.distance[chunk], terms.divergence[chunk] = distance.cpu(), divergence.cpu()
                advance(len(chunk))
        found[name] = terms
    return found


def _chunk(
    target: PrunableModel,
    reference: Reference,
    prefixes: Sequence[Prefix],
    indices: Tensor,
    tensors: Sequence[Feature],
) -> tuple[Tensor, Tensor]:
    """Both terms of a chunk of units of one group, ``[M]`` each."""
    indices = indices.to(target.model.device)
    rows: dict[str, list[Tensor]] = {tensor.path: [] for tensor in tensors}
    divergence = torch.zeros(len(indices), dtype=torch.float64, device=indices.device)
    for number, prefix in enumerate(prefixes):
        outcome = run(target, prefix, indices, reference.taps(number, tensors))
        for path, found in outcome.taps.items():
            rows[path].append(found)
        divergence += reference.divergence(number, outcome.logits)
    if not tensors:
        return torch.zeros_like(divergence), divergence
    return reference.distance({path: torch.cat(found, 1) for path, found in rows.items()}), divergence


def _recorded(
    target: PrunableModel,
    reference: Reference,
    sublayers: Mapping[str, Sublayer],
    units: Units,
    leak: bool,
) -> Iterator[tuple[str, Sublayer, list[Prefix]]]:
    """Each group with what was recorded of its sublayer on each part."""
    heads = [name for name in units if sublayers[name].role != "ffn"]
    # What attention needs is small: all of it fits beside each other, and one pass records it. A wide
    # feed-forward sublayer is recorded when its turn comes.
    together: list[dict[str, Prefix]] = []
    if heads and not leak:
        subs = [sublayers[name] for name in heads]
        together = [record(target, part.inputs, subs) for part in reference.parts]
    for name in units:
        sub = sublayers[name]
        if sub.role != "ffn" and together:
            yield name, sub, [found[sub.name] for found in together]
            continue
        # Masks must be off again while units are scored: what they did is in the record.
        with target.masked(_leaked(target, sub)) if leak else nullcontext():
            prefixes = [record(target, part.inputs, [sub])[sub.name] for part in reference.parts]
        yield name, sub, prefixes


def _leaked(target: PrunableModel, sublayer: Sublayer) -> dict[str, Tensor]:
    """Masks that remove the last head of every attention before ``sublayer``."""
    masks = {}
    for sub in target.structure.sublayers.values():
        if sub is sublayer:
            break
        if sub.role != "ffn":
            mask = torch.ones(sub.units.size, device=target.model.device)
            mask[-1] = 0
            masks[sub.units.name] = mask
    return masks


def _stacked(
    target: PrunableModel, reference: Reference, sub: Sublayer, tensors: Sequence[Feature], memory: int
) -> int:
    """How many variants a stacked call takes within ``memory``; at least 1."""
    model: Any = target.model
    structure = target.structure
    width = model.get_submodule(sub.output).weight.shape[0]
    widest = max(each.units.size * each.units.width for each in structure.sublayers.values())
    heads = max((each.units.size for each in structure.sublayers.values() if each.role != "ffn"), default=0)
    largest = 0
    for part, tokens, answers in zip(reference.parts, reference.computed, reference.answers, strict=True):
        is_eager = model.config._attn_implementation == "eager"
        attention = 2 * heads * tokens // len(part.rows) if is_eager else 0
        # Of wide tensors two are alive at once (before and after the activation), of narrow ones about six.
        largest = max(largest, tokens * (2 * widest + 6 * width + attention) + 3 * answers.numel())
    rows = [len(reference.features[tensor.path]) for tensor in tensors]
    kept = sum(rows) * width + 3 * max(rows, default=0) * (width + min(max(rows, default=0), width))
    return max(1, memory // int(model.dtype.itemsize * (largest + kept)))
