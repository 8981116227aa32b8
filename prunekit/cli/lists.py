"""Rows for ``methods list``, ``adapters list`` and ``tasks list``: what works, and what is broken."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from prunekit.cli.output import print_table
from prunekit.shown import visible

if TYPE_CHECKING:
    from prunekit.plugins import Registry

Row = dict[str, Any]


def plugin_rows(registry: Registry, kind: str, describe: Callable[[Any], Mapping[str, Any]]) -> list[Row]:
    """Return a row for everything registered of a kind, then one for each broken plugin.

    Each has ``name``, ``version`` and ``distribution``, ``state`` (``ok`` or ``broken``) and ``error`` (null
    where there is none); what works has in addition what ``describe`` tells of it. A broken plugin's name is
    that of its entry point: what it would have registered is not known.
    """
    rows = []
    for name, item in getattr(registry, kind).items():
        origin = origin_of(registry, kind, name)
        try:
            rows.append({"name": name, **origin, "state": "ok", "error": None, **describe(item)})
        except Exception as error:  # what an item says of itself may fail like anything else in a plugin
            rows.append(
                {"name": name, **origin, "state": "broken", "error": f"{type(error).__name__}: {error}"}
            )
    for plugin in registry.broken:
        origin = _split(plugin.distribution)
        rows.append({"name": plugin.name, **origin, "state": "broken", "error": plugin.error})
    return rows


def origin_of(registry: Registry, kind: str, name: str) -> dict[str, str]:
    """Return the ``version`` and ``distribution`` that a registered item comes from."""
    return _split(registry.origins[kind][name].distribution)


def print_rows(columns: Mapping[str, str], rows: Sequence[Row]) -> None:
    """Print the rows as a table; a broken plugin's has its error for a summary.

    Args:
        columns: heading by key of a row, for what stands between the state and the summary.
        rows: of ``plugin_rows``.
    """
    printed = []
    for row in rows:
        summary = _cell(row["summary"]) if row["state"] == "ok" else visible(row["error"])
        cells = [_cell(row.get(key)) for key in columns]
        printed.append([row["name"], row["state"], *cells, summary, _joined(row)])
    print_table(["name", "state", *columns.values(), "summary", "distribution"], printed)
    if broken := sorted({_joined(row) for row in rows if row["state"] == "broken"}):
        typer.echo(
            f"Broken: {', '.join(broken)}. Everything else works without; mend or uninstall what is broken.",
            err=True,
        )


def _joined(row: Row) -> str:
    return f"{row['distribution']} {row['version']}".rstrip()


def _split(distribution: str) -> dict[str, str]:
    name, _, version = distribution.partition(" ")
    return {"version": version, "distribution": name}


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(str(item) for item in value) or "-"
    return "-" if value is None else str(value)
