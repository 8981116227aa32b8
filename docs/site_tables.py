"""Tables that docs/generate.py takes for the pages on architectures and methods."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

KINDS = {
    "head": "heads",
    "neuron": "neurons",
    "sublayer": "sublayers",
    "block": "blocks",
    "hidden": "hidden dimensions",
}
DATA = {
    "train": "training data",
    "calibration": "some examples",
    "none": "none",
}


def unit_table(adapter: Any) -> str:
    """An architecture's unit groups, and the modules behind them."""
    rows = [(f"`{row['group']}`", row["kind"], row["modules"]) for row in adapter.describe()]
    return _table(("group", "kind", "modules"), rows)


def method_traits(methods: Mapping[str, Any], pages: Mapping[str, str]) -> str:
    """What each method removes, from which architectures, and what it needs.

    Args:
        methods: method classes by name.
        pages: where each is explained, from docs/.
    """
    rows = []
    for name, method in methods.items():
        info = method.info
        rows.append(
            (
                f"[{name}]({pages[name].removeprefix('methods/')})",
                ", ".join(KINDS.get(kind, kind) for kind in info.kinds),
                "all" if "*" in info.model_types else ", ".join(f"`{name}`" for name in info.model_types),
                DATA[info.data],
                "yes" if info.trains else "no",
            )
        )
    return _table(("method", "removes", "architectures", "data", "trains weights"), rows)


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
