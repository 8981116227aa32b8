"""Goals and masks on tiny models that the tests of learned masks share."""

from __future__ import annotations

import torch
from l0_calls import seeded

from prunekit.learned.goal import Goal
from prunekit.pruning import cost
from prunekit.training.l0 import L0Masks
from prunekit.training.lagrangian import Lagrangian

ALL_KINDS = ("hidden", "sublayer", "block", "head", "neuron")
COFI_KINDS = ("hidden", "sublayer", "head", "neuron")


def goal_of(target, kinds, *, sparsity=0.5, name="model", scope=()):
    """A goal with masks of these kinds on the sublayers of the scope."""
    costs = target.parameter_costs(scope)
    stacks = {target.structure.sublayers[sub].stack for sub in costs}
    units = {target.structure.sublayers[sub].units.name for sub in costs}
    masks = tuple(
        group.name
        for group in target.groups.values()
        if group.kind in kinds
        and (
            group.name in units
            or group.kind == "hidden"
            or (group.kind in ("sublayer", "block") and group.name.partition(".")[0] in stacks)
        )
    )
    return Goal(name, costs, masks, sparsity)


def masks_of(target, goal, *, seed=None, **logits):
    """The goal's masks: drawn widely from a seed, else all at 3; ``logits`` are by kind or group."""
    groups = target.groups
    masks = L0Masks({name: (groups[name].size, groups[name].kind) for name in goal.masks})
    with torch.no_grad():
        for offset, name in enumerate(goal.masks):
            parameter = masks.log_alpha(name)
            parameter.fill_(3.0)
            if seed is not None:
                parameter.copy_(2.5 * torch.randn(parameter.shape, generator=seeded(100 * seed + offset)))
                parameter.clamp_(-4.6, 4.6)
            for key in (masks.kinds[name], name.replace(".", "_")):
                if key in logits:
                    parameter.copy_(torch.as_tensor(logits[key]))
    return masks


def kept_by(masks):
    """Indices that masks keep, by group."""
    return {name: mask.nonzero().flatten().tolist() for name, mask in masks.items()}


def realised(target, goal, masks):
    """The goal's sparsity as the core counts it."""
    return cost.sparsity(goal.costs, target.structure, kept_by(masks))


def pursued(target, goal, config, steps, rate, *, seed=0):
    """The expected sparsity of each step with torch's AdamW on real masks and nothing but the constraint."""
    groups = target.groups
    masks = L0Masks(
        {name: (groups[name].size, groups[name].kind) for name in goal.masks},
        droprate_init=config.droprate_init,
        generator=seeded(seed),
    )
    size = goal.expected_size(target.structure, config.count)
    with torch.no_grad():
        first = float(size.sparsity(masks.probabilities()))
    start = min(first, goal.sparsity) if config.start_from_current else 0.0
    lagrangian = Lagrangian(goal.sparsity, int(config.sparsity_warmup * steps), start=start)
    optimiser = torch.optim.AdamW(
        [
            {"params": masks.parameters(), "lr": rate},
            {"params": lagrangian.parameters(), "lr": rate, "maximize": True},
        ],
        weight_decay=0.0,
    )
    found = []
    for step in range(steps):
        sparsity = size.sparsity(masks.probabilities())
        found.append(sparsity.item())
        lagrangian.penalty(sparsity, step).backward()
        optimiser.step()
        optimiser.zero_grad()
        masks.clamp_()
    with torch.no_grad():
        found.append(float(size.sparsity(masks.probabilities())))
    return found
