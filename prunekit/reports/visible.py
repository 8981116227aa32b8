"""Text of users, models and data: shown as characters, never obeyed by a terminal or a reader of tables."""

from __future__ import annotations

from prunekit.shown import printable as printable
from prunekit.shown import visible as visible
