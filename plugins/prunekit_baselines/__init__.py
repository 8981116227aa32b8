"""What any method should beat: magnitude, chance, and leaving out whole blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunekit.plugins import hookimpl

if TYPE_CHECKING:
    from prunekit.method import PruningMethod


@hookimpl
def prunekit_register_methods() -> list[type[PruningMethod]]:
    """Return the methods."""
    from prunekit_baselines.blocks import High, Low, Uniform
    from prunekit_baselines.units import Magnitude, Random

    return [Magnitude, Random, Uniform, Low, High]
