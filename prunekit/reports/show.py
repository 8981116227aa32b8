"""The map of what runs kept, on the terminal: one run alone, or two side by side."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from prunekit.reports.kept import KeptMap, KeptStack, KeptSublayer, KeptUnits, Overlap, overlap
from prunekit.shown import visible

BAR = 8
"""Cells of the bar that stands for a width."""


def map_record(found: KeptMap) -> dict[str, Any]:
    """The map as plain data, for JSON."""
    stacks = [
        {
            "name": stack.name,
            "layers": [
                {
                    "index": layer.index,
                    "removed": layer.removed,
                    "sublayers": [_sublayer_record(sublayer) for sublayer in layer.sublayers],
                }
                for layer in stack.layers
            ],
        }
        for stack in found.stacks
    ]
    return {"stacks": stacks, "hidden": found.hidden and _units_record(found.hidden)}


def print_map(title: str, found: KeptMap, console: Console) -> None:
    """Print a run's map: layers down, sublayers across, a cell a head and a bar for a width.

    Args:
        title: what run it is; never read as markup.
        found: the map.
        console: where to.
    """
    console.print(Text(visible(title)), soft_wrap=True)
    console.print(_legend(console), soft_wrap=True)
    for stack in found.stacks:
        console.print()
        console.print(_stack_table(stack, console))
    for line in _hidden_lines({"hidden": found.hidden}, console):
        console.print(line)


def print_maps(titles: Sequence[str], maps: Sequence[KeptMap], console: Console) -> None:
    """Print the maps of two runs side by side, and how many units both keep or only one of them.

    Args:
        titles: what runs they are, as A and B; never read as markup.
        maps: their maps.
        console: where to.

    Raises:
        PlanError: if the two dense models do not have the same units.
    """
    shared = {(row.stack, row.layer, row.role): row for row in overlap(*maps)}
    for name, title in zip("AB", titles, strict=True):
        console.print(Text(f"{name}: {visible(title)}"), soft_wrap=True)
    console.print(_legend(console), soft_wrap=True)
    first, second = maps
    for stack, other in zip(first.stacks, second.stacks, strict=True):
        table = _table((stack.name, "A", "B", "both", "only A", "only B"), right=3, gap=1)
        for layer, beside in zip(stack.layers, other.layers, strict=True):
            for number, (a, b) in enumerate(zip(layer.sublayers, beside.sublayers, strict=True)):
                row = shared[stack.name, layer.index, a.role]
                name = f"{layer.index if number == 0 else '':>3} {a.role}"
                table.add_row(
                    Text(name),
                    _cell(a, layer.removed, console),
                    _cell(b, beside.removed, console),
                    *_counts(row),
                )
        for role in stack.roles:
            rows = [row for row in shared.values() if (row.stack, row.role) == (stack.name, role)]
            table.add_row(
                Text(f"all {role}"),
                *(Text(_of(*side.total(role))) for side in (stack, other)),
                *_counts(*rows),
            )
        console.print()
        console.print(table)
    for line in _hidden_lines({"hidden, A": first.hidden, "hidden, B": second.hidden}, console):
        console.print(line)


def _sublayer_record(sublayer: KeptSublayer) -> dict[str, Any]:
    return {
        "role": sublayer.role,
        "kind": sublayer.kind,
        **_units_record(sublayer),
        "removed": sublayer.removed,
    }


def _units_record(units: KeptUnits) -> dict[str, Any]:
    return {"size": units.size, "kept": units.kept, "indices": list(units.indices)}


def _table(columns: Sequence[str], right: int, gap: int) -> Table:
    """A table whose columns from the one numbered ``right`` on hold numbers, ``gap`` cells apart."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, gap, 0, 0))
    for number, column in enumerate(columns):
        justify = "right" if number >= right else "left"
        table.add_column(Text(column), overflow="fold", justify=justify)  # type: ignore[arg-type]
    return table


def _stack_table(stack: KeptStack, console: Console) -> Table:
    table = _table((stack.name, *stack.roles), right=len(stack.roles) + 1, gap=2)
    for layer in stack.layers:
        found = map(layer.sublayer, stack.roles)
        cells = [_cell(sublayer, layer.removed, console) if sublayer else Text() for sublayer in found]
        table.add_row(Text(f"{layer.index:>3}", style="dim" if layer.removed else ""), *cells)
    table.add_row(Text("all"), *(Text(_of(*stack.total(role))) for role in stack.roles))
    return table


def _cell(sublayer: KeptSublayer, block_removed: bool, console: Console) -> Text:
    """A square a head, or a bar; then the count, or what went as a whole."""
    if block_removed:
        return Text("block removed", style="dim")
    on, off = _marks(console)
    if sublayer.kind == "head":
        kept = set(sublayer.indices)
        text = Text.assemble(
            *((on, "") if unit in kept else (off, "dim") for unit in range(sublayer.size)), " "
        )
    else:
        text = _bar(sublayer, console)
    if sublayer.removed:
        return Text(f"{text.plain}removed", style="dim")
    return text.append(_of(sublayer.kept, sublayer.size))


def _bar(units: KeptUnits, console: Console) -> Text:
    """A bar that is full only where all are kept, and empty only where none is."""
    on, off = _marks(console)
    filled = round(BAR * units.kept / max(units.size, 1))
    if 0 < units.kept < units.size:
        filled = min(max(filled, 1), BAR - 1)
    return Text.assemble(on * filled, (off * (BAR - filled), "dim"), " ")


def _hidden_lines(sides: Mapping[str, KeptUnits | None], console: Console) -> Iterable[Text]:
    found = {name: units for name, units in sides.items() if units is not None}
    if found:
        yield Text()
    for name, units in found.items():
        yield Text(f"{name} ").append_text(_bar(units, console)).append(_of(units.kept, units.size))


def _counts(*rows: Overlap) -> list[Text]:
    totals = (sum(getattr(row, key) for row in rows) for key in ("both", "only_first", "only_second"))
    return [Text(f"{total:,}") for total in totals]


def _of(kept: int, size: int) -> str:
    return f"{kept:,}/{size:,}"


def _legend(console: Console) -> Text:
    on, off = _marks(console)
    return Text(f"{on} kept  {off} removed; one a head, and {BAR} for the width of an ffn; counts are units")


def _marks(console: Console) -> tuple[str, str]:
    return ("■", "□") if console.encoding.lower().startswith("utf") else ("#", ".")
