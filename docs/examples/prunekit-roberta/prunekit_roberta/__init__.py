"""RoBERTa for prunekit; the table itself is in ``prunekit_roberta.adapter``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunekit.plugins import hookimpl

if TYPE_CHECKING:
    from prunekit.adapters.base import Adapter


@hookimpl
def prunekit_register_adapters() -> list[Adapter]:
    """Return the one adapter."""
    # Imported here, so that listing plugins loads neither torch nor transformers.
    from prunekit_roberta.adapter import ROBERTA

    return [ROBERTA]
