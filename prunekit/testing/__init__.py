"""Checks for plugins: the rules that every pruning method and adapter must keep, and tiny models."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prunekit.testing.outcome import CheckFailed, CheckWarning, Outcome
    from prunekit.testing.suite import check_adapter, check_plugin, parametrize_with_checks
    from prunekit.testing.tiny import tiny_inputs, tiny_model

__all__ = [
    "CheckFailed",
    "CheckWarning",
    "Outcome",
    "check_adapter",
    "check_plugin",
    "parametrize_with_checks",
    "tiny_inputs",
    "tiny_model",
]

# The names and where they are; tiny imports torch, so each is fetched when it is first used.
_HOMES = {
    "CheckFailed": "outcome",
    "CheckWarning": "outcome",
    "Outcome": "outcome",
    "check_adapter": "suite",
    "check_plugin": "suite",
    "parametrize_with_checks": "suite",
    "tiny_inputs": "tiny",
    "tiny_model": "tiny",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
