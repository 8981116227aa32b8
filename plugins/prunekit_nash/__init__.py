"""NASH (Ko et al., Findings of EMNLP 2023): a narrowed encoder and a shortened decoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunekit.plugins import hookimpl

if TYPE_CHECKING:
    from prunekit.method import PruningMethod


@hookimpl
def prunekit_register_methods() -> list[type[PruningMethod]]:
    """Return the method."""
    from prunekit_nash.method import Nash

    return [Nash]
