"""Hypothesis strategies: recipes, budgets, structures, masks and plans of small models, all well formed."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import settings
from hypothesis import strategies as st

from prunekit.pruning.plan import PruningPlan
from prunekit.pruning.units import UnitGroup

SETTINGS = settings(max_examples=50, deadline=None, derandomize=True, database=None)

names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
"""Any text that a file can hold."""
fractions = st.floats(0, 0.99)


@st.composite
def structures(draw: st.DrawFn) -> dict[str, UnitGroup]:
    """Groups of heads, neurons and blocks, as a model has them."""
    depth = draw(st.integers(1, 4))
    groups = [UnitGroup("encoder.blocks", "block", depth)]
    for block in range(depth):
        groups.append(UnitGroup(f"encoder.{block}.self_attn.heads", "head", draw(st.integers(1, 6)), 4))
        groups.append(UnitGroup(f"encoder.{block}.ffn.neurons", "neuron", draw(st.integers(1, 12))))
    return {group.name: group for group in groups}


@st.composite
def masks(draw: st.DrawFn, groups: dict[str, UnitGroup]) -> dict[str, torch.Tensor]:
    """A mask for some of the groups; of blocks, hard ones that keep at least one."""
    found = {}
    for name in draw(st.lists(st.sampled_from(sorted(groups)), unique=True)):
        group = groups[name]
        hard = group.kind == "block"
        value = st.sampled_from([0.0, 1.0]) if hard else st.sampled_from([0.0, 1.0, 0.5, 1.75, -2.0])
        values = draw(st.lists(value, min_size=group.size, max_size=group.size))
        if hard and not any(values):
            values[0] = 1.0
        found[name] = torch.tensor(values, dtype=torch.float64)
    return found


@st.composite
def plans(draw: st.DrawFn, groups: dict[str, UnitGroup]) -> PruningPlan:
    """A plan that fits the groups."""
    plan = PruningPlan.from_masks(draw(masks(groups)), groups)
    return plan.model_copy(update={"method": draw(names), "base_model": draw(names)})


@st.composite
def budgets(draw: st.DrawFn) -> dict[str, Any]:
    """A recipe's ``budget``."""
    scope = draw(st.lists(st.sampled_from(["encoder.*", "decoder.*", "*.heads"]), max_size=2))
    if draw(st.booleans()):
        return {"metric": "latency", "ratio": draw(st.floats(0.01, 1)), "scope": scope}
    metric = draw(st.sampled_from(["params", "macs"]))
    return {"metric": metric, "sparsity": draw(fractions), "scope": scope}


@st.composite
def recipes(draw: st.DrawFn) -> dict[str, Any]:
    """A recipe for the fake plugins' method ``trim`` and task ``echo``, as a mapping."""
    labels = draw(st.lists(st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True), unique=True, max_size=3))
    return {
        "version": 1,
        "description": draw(names),
        "model": draw(names),
        "task": {"name": "echo", "words": draw(st.integers(1, 10**6))},
        "budget": draw(budgets()),
        "methods": {label: {"method": "trim", "warmup_share": draw(st.floats(0, 1))} for label in labels},
        "train": {"epochs": draw(st.floats(0.01, 1e6)), "learning_rate": draw(st.floats(1e-8, 10))},
        "seed": draw(st.integers(0, 2**63 - 1)),
    }
