"""Architectures that prunekit can prune, registered through the same hook as anyone else's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunekit.plugins import hookimpl

if TYPE_CHECKING:
    from prunekit.adapters.base import Adapter


@hookimpl
def prunekit_register_adapters() -> list[Adapter]:
    """Return the built-in adapters."""
    # Imported here so that listing plugins does not load torch.
    from prunekit.adapters.bart import BART
    from prunekit.adapters.bert import BERT
    from prunekit.adapters.t5 import T5
    from prunekit.adapters.vit import DEIT, VIT

    return [T5, BART, BERT, VIT, DEIT]
