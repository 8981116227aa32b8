"""The method keeps every rule of prunekit's suite, and weights decide what it removes."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from prunekit_magnitude import LpNorm, LpNormConfig

from prunekit.plugins import get_registry
from prunekit.pruning.target import PrunableModel, find_adapter
from prunekit.recipe import BudgetSpec
from prunekit.testing import parametrize_with_checks, tiny_model


@parametrize_with_checks([LpNorm])
def test_it_keeps_the_rules_of_every_method(check: Callable[[], None]) -> None:
    check()


@pytest.mark.parametrize("p", [1.0, 2.0])
def test_a_head_whose_weights_are_nearly_zero_goes_first(p: float) -> None:
    model = tiny_model("bert")
    target = PrunableModel(model, find_adapter(model, get_registry().adapters))
    heads = target.groups["encoder.1.self_attn.heads"]
    with torch.no_grad():
        for part in heads.slices:
            entries = model.get_parameter(part.parameter).movedim(part.axis, 0)
            entries[2 * heads.width : 3 * heads.width] *= 1e-3
    one_of_four = BudgetSpec(sparsity=0.2, scope=[heads.name])
    trainer = SimpleNamespace(seed=0, progress=None)
    plan = LpNorm(LpNormConfig(p=p)).plan(target, None, one_of_four, trainer)
    assert plan.keep == {heads.name: (0, 1, 3)}
