"""A good recipe for the fake plugins, ways to spoil it, and what loading says then."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fake_plugins import fake_registry

from prunekit.errors import RecipeError
from prunekit.recipe import Recipe, load_recipe

GOOD = """\
version: 1
description: trims
model: embedded:tiny
task: {name: echo, words: 7}
budget: {metric: macs, sparsity: 0.3, scope: ["encoder.*"]}
methods:
  trim: {decoder_layers: 3}
  trim-2:
    method: trim
    budget: {sparsity: 0.6}
    recover: {epochs: 0.5, distill: {logits: 1}}
  default:
    method: trim
train: {epochs: 4, learning_rate: 3e-4}
recover: {batch_size: 8, distill: {temperature: 2}}
seed: 3
"""


def changed(old: str, new: str) -> str:
    """The good recipe with one place changed."""
    assert GOOD.count(old) == 1
    return GOOD.replace(old, new)


def load_text(folder: Path, text: str | bytes, *overrides: str) -> Recipe:
    """The text, loaded from a file ``recipe.yaml`` in the folder."""
    path = folder / "recipe.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_recipe(path, overrides, registry=fake_registry())


def fault_in(folder: Path, text: str | bytes, *overrides: str) -> str:
    """The message with which the text is refused, runs of blanks as one."""
    with pytest.raises(RecipeError) as caught:
        load_text(folder, text, *overrides)
    return re.sub(" +", " ", str(caught.value))
