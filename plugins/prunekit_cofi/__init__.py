"""CoFi (Xia et al., ACL 2022): coarse and fine units pruned at once, on encoders and encoder-decoders."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunekit.plugins import hookimpl

if TYPE_CHECKING:
    from prunekit.method import PruningMethod


@hookimpl
def prunekit_register_methods() -> list[type[PruningMethod]]:
    """Return the method."""
    from prunekit_cofi.method import Cofi

    return [Cofi]
