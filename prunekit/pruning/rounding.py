"""How many units a sublayer may keep where widths are rounded."""

from __future__ import annotations

from math import gcd

from prunekit.pruning.units import UnitGroup


def bundle_size(group: UnitGroup, round_to: int | None) -> int:
    """Units that are kept or go together: the fewest that are a multiple of ``round_to`` wide.

    One where nothing is rounded; all of them in a group that is not even that wide.
    """
    size = round_to // gcd(group.width, round_to) if round_to else 1
    return min(size, group.size)


def rounded_up(units: int, group: UnitGroup, bundle: int) -> int:
    """The smallest allowed count that is at least ``units``: whole bundles, or all the units there are."""
    return min(-(-units // bundle) * bundle, group.size)
