"""Fisher pruning (Kwon et al., NeurIPS 2022): one-shot mask search, rearrangement and tuning."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunekit.plugins import hookimpl

if TYPE_CHECKING:
    from prunekit.method import PruningMethod


@hookimpl
def prunekit_register_methods() -> list[type[PruningMethod]]:
    """Return the method."""
    from prunekit_fisher.method import Fisher

    return [Fisher]
