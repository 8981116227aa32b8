"""Widths of a model's matrices, and which of them are no multiple of what hardware works in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from prunekit.adapters.base import Structure
    from prunekit.pruning.units import UnitGroup

MULTIPLES = (8, 16, 64)


def sublayer_widths(structure: Structure) -> dict[str, Any]:
    """Widths of all sublayers (heads x head width, neurons), and which miss a multiple of 8, 16 or 64.

    Returns:
        ``sublayers`` (how many there are), ``missing`` (multiple to how many miss it), ``odd`` (a row for
        each sublayer that misses 64: ``name, units, unit_width, width, misses``) and ``rounding`` (a row
        for each multiple: ``round_to``, ``up`` and ``down``, units more or fewer in all sublayers together).
    """
    groups = [sub.units for sub in structure.sublayers.values()]
    odd = [
        {
            "name": group.name,
            "units": group.size,
            "unit_width": group.width,
            "width": _width(group),
            "misses": [multiple for multiple in MULTIPLES if _width(group) % multiple],
        }
        for group in groups
        if any(_width(group) % multiple for multiple in MULTIPLES)
    ]
    return {
        "sublayers": len(groups),
        "missing": _missing([_width(group) for group in groups]),
        "odd": odd,
        "rounding": [
            {
                "round_to": multiple,
                "up": sum(_rounded(group, multiple, up=True) - group.size for group in groups),
                "down": sum(group.size - _rounded(group, multiple, up=False) for group in groups),
            }
            for multiple in MULTIPLES
        ],
    }


def matrix_widths(model: PreTrainedModel) -> dict[str, Any]:
    """The same for a model without an adapter: output widths of all linear layers; nothing can be rounded."""
    found = {
        name: module.out_features for name, module in model.named_modules() if isinstance(module, nn.Linear)
    }
    odd = [
        {
            "name": name,
            "units": width,
            "unit_width": 1,
            "width": width,
            "misses": [multiple for multiple in MULTIPLES if width % multiple],
        }
        for name, width in found.items()
        if any(width % multiple for multiple in MULTIPLES)
    ]
    return {"sublayers": len(found), "missing": _missing(found.values()), "odd": odd, "rounding": []}


def rounded_down(structure: Structure, multiple: int) -> dict[str, int]:
    """Units left of each group that misses ``multiple``, rounded down; without those that would vanish."""
    counts = {}
    for sub in structure.sublayers.values():
        left = _rounded(sub.units, multiple, up=False)
        if 0 < left < sub.units.size:
            counts[sub.units.name] = left
    return counts


def _rounded(group: UnitGroup, multiple: int, *, up: bool) -> int:
    """The nearest count above or below whose width is a multiple; 0 below where there is none."""
    count = group.size
    while count * group.width % multiple:
        count += 1 if up else -1
    return count


def _width(group: UnitGroup) -> int:
    return group.size * group.width


def _missing(widths: Any) -> dict[str, int]:
    return {str(multiple): sum(width % multiple > 0 for width in widths) for multiple in MULTIPLES}
