"""OPTIN (Khaki & Plataniotis, ICLR 2024): one-shot pruning by the trajectory that a unit's removal bends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunekit.plugins import hookimpl

if TYPE_CHECKING:
    from prunekit.method import PruningMethod


@hookimpl
def prunekit_register_methods() -> list[type[PruningMethod]]:
    """Return the method."""
    from prunekit_optin.method import Optin

    return [Optin]
