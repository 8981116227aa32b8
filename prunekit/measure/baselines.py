"""What a user could do instead of pruning, timed beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prunekit.measure.contestants import Contestant
from prunekit.measure.prepare import generates

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from prunekit.recipe import SpeedSpec

_SETTINGS: dict[str, dict[str, Any]] = {
    "bf16": {"dtype": "bf16"},
    "compiled": {"compile": True},
    "static cache": {"static_cache": True},
}


def with_baselines(name: str, model: PreTrainedModel, spec: SpeedSpec) -> dict[str, Contestant]:
    """``model`` under its own name, then with each setting that ``spec`` does not have yet.

    Returns:
        ``name``, then ``"name (bf16)"``, ``"name (compiled)"`` and, where it generates,
        ``"name (static cache)"``.
    """
    specs = {label: spec.model_copy(update=settings) for label, settings in _SETTINGS.items()}
    if not generates(model):
        del specs["static cache"]
    others = {f"{name} ({label})": Contestant(model, own) for label, own in specs.items() if own != spec}
    return {name: Contestant(model)} | others
