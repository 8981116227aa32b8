"""A hand-made run of a small encoder-decoder: what its plan keeps, and what its report says of that."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

KEEP: dict[str, list[int]] = {
    "encoder.0.self_attn.heads": [0, 3],
    "encoder.0.ffn.neurons": [1, 5, 9],
    "encoder.1.self_attn.heads": [],
    "encoder.1.ffn.neurons": [0, 1],
    "encoder.ffn": [0],
    "decoder.blocks": [1],
    "decoder.0.self_attn.heads": [1],
    "hidden": [0, 2, 4],
}
"""Encoder block 1 loses both sublayers, its FFN as a whole; decoder block 0 goes, and block 1 stays whole."""
KEPT = {
    "encoder.0.self_attn.heads": (2, 4),
    "encoder.0.ffn.neurons": (3, 10),
    "encoder.1.self_attn.heads": (0, 4),
    "encoder.1.ffn.neurons": (0, 10),
    "decoder.0.self_attn.heads": (0, 4),
    "decoder.0.cross_attn.heads": (0, 4),
    "decoder.0.ffn.neurons": (0, 10),
    "decoder.1.self_attn.heads": (4, 4),
    "decoder.1.cross_attn.heads": (4, 4),
    "decoder.1.ffn.neurons": (10, 10),
    "encoder.self_attn": (1, 2),
    "encoder.ffn": (1, 2),
    "encoder.blocks": (2, 2),
    "decoder.self_attn": (1, 2),
    "decoder.cross_attn": (1, 2),
    "decoder.ffn": (1, 2),
    "decoder.blocks": (1, 2),
    "hidden": (3, 6),
}


def structure(**changed: tuple[int, int]) -> list[dict[str, Any]]:
    """What ``report.json`` has under that key, with other counts for some groups (dots as ``__``)."""
    kept = {**KEPT, **{name.replace("__", "."): counts for name, counts in changed.items()}}
    return [{"group": group, "kept": count, "size": size} for group, (count, size) in kept.items()]


def write_run(
    folder: Path,
    *,
    keep: dict[str, list[int]] | None = None,
    rows: list[dict[str, Any]] | None = None,
    **facts: Any,
) -> Path:
    """A finished run's ``plan.json`` and ``report.json``; ``facts`` go into the report."""
    folder.mkdir()
    report = {
        "method": "nash",
        "label": "nash-2",
        "model": "embedded:tiny",
        "task": "echo",
        "seed": 0,
        "achieved": {"sparsity": 0.625},
        "structure": structure() if rows is None else rows,
        **facts,
    }
    (folder / "plan.json").write_text(json.dumps({"keep": KEEP if keep is None else keep}))
    (folder / "report.json").write_text(json.dumps(report))
    return folder
