"""Outputs, masks and comparisons that the tests of the core share."""

from __future__ import annotations

from pathlib import Path

import torch

from prunekit.pruning.plan import PruningPlan
from prunekit.testing.adapter_rules import compare
from prunekit.testing.tiny import tiny_inputs

SEQ2SEQ = ("t5", "t5-gated", "t5-narrow", "bart")
OF_IMAGES = ("vit", "deit", "deit-distilled")
AUTO_CLASS = {
    "t5": "AutoModelForSeq2SeqLM",
    "t5-gated": "AutoModelForSeq2SeqLM",
    "t5-narrow": "AutoModelForSeq2SeqLM",
    "bart": "AutoModelForSeq2SeqLM",
    "bert": "AutoModelForSequenceClassification",
    "vit": "AutoModelForImageClassification",
    "deit": "AutoModelForImageClassification",
    "deit-distilled": "AutoModelForImageClassification",
}


def outputs(model, inputs):
    """Every floating-point tensor that the model returns: logits or states, and encoder states."""
    with torch.no_grad():
        found = model(**inputs)
    return [t for t in found.values() if isinstance(t, torch.Tensor) and t.is_floating_point()]


def difference(first, second):
    """Largest difference of two lists of tensors, relative to the largest value where that exceeds 1."""
    largest = max(1.0, *(float(t.abs().max()) for t in first))
    return max(float((a - b).abs().max()) for a, b in zip(first, second, strict=True)) / largest


def random_masks(groups, kinds, *, seed, soft=False):
    """Masks of the groups of these kinds: some units on, some off; soft values for those on."""
    chosen = [group for group in groups.values() if group.kind in kinds]
    return compare.random_masks(chosen, seed=seed, soft=soft)


def off(groups, *names):
    """Masks that close these groups wholly, and single units written ``group:index``."""
    masks = {}
    for entry in names:
        name, _, index = entry.partition(":")
        masks.setdefault(name, torch.ones(groups[name].size, dtype=torch.float64))
        masks[name][[int(index)] if index else slice(None)] = 0
    return masks


def compared(target, masks, inputs=None):
    """Differences (masked against pruned, dense against pruned) of a target under masks and cut to them."""
    inputs = tiny_inputs(target.model) if inputs is None else inputs
    plan = PruningPlan.from_masks(masks, target.groups)
    small = outputs(target.pruned(plan).model, inputs)
    with target.masked(plan.masks(target.groups)):
        masked = outputs(target.model, inputs)
    dense = outputs(target.model, inputs)
    return difference(narrowed(masked, small, plan), small), difference(narrowed(dense, small, plan), small)


def narrowed(states, small, plan):
    """The kept hidden units of those states that are wider than a pruned model's."""
    pairs = zip(states, small, strict=True)
    return [s if s.shape == o.shape else s[..., list(plan.keep["hidden"])] for s, o in pairs]


def irregular_plan(target):
    """A plan that no stock config can describe, with every kind of removal in every stack."""
    keep = {
        "encoder.0.self_attn.heads": (0, 2),
        "encoder.1.ffn.neurons": (1, 3, 4),
        "encoder.2.self_attn.heads": (),
    }
    if "decoder" in target.structure.stacks:
        keep |= {
            "decoder.blocks": (1, 2),
            "decoder.1.self_attn.heads": (),
            "decoder.2.self_attn.heads": (1,),
            "decoder.2.cross_attn.heads": (0, 2),
            "decoder.2.ffn.neurons": (7,),
        }
    return PruningPlan(keep=keep)


def same_tensors(model, other):
    """Whether two models hold the same names with bit-identical tensors."""
    first, second = model.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def folder_bytes(folder: Path) -> dict[str, bytes]:
    """Contents of a folder's files, by name."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
