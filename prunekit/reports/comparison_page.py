"""A comparison of methods as one HTML page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prunekit.reports.comparison import Table
from prunekit.reports.comparison_columns import duration
from prunekit.reports.comparison_notes import choice
from prunekit.reports.curves import Log, training_curves
from prunekit.reports.kept import KeptMap
from prunekit.reports.page import Cell, pairs, recipe_text, render_page, sections
from prunekit.reports.pair import device_text
from prunekit.reports.plots import Style, quality_against_speed, row_styles

Comparison = Mapping[str, Any]

_KINDS = {
    "sparsity": (
        "Sparsity",
        "What the masks reached, what they were driven to, and what rounding made of it.",
    ),
    "losses": (
        "Losses",
        "The total and its terms. Methods train on different losses: heights do not compare.",
    ),
    "multipliers": ("Multipliers", "Lagrangian multipliers that hold the masks to the budget."),
    "quality": ("Quality on the way", "Measured while training, on the examples that choose a state."),
}


def render_comparison_page(
    comparison: Comparison, table: Table, maps: Mapping[str, KeptMap], curves: Mapping[str, Log]
) -> str:
    """The page: the frontier in words and as a plot, the table, maps of what was kept, training, recipe.

    Args:
        comparison: what ``comparison.json`` holds.
        table: the rows as text with what to sort them by.
        maps: what was kept, by row name.
        curves: rows of ``train.jsonl``, by row name.
    """
    from markupsafe import Markup

    styles, chosen = row_styles(comparison["rows"]), list(choice(comparison, comparison["rows"]))
    plot, panels = quality_against_speed(comparison), _panels(curves, styles)
    recipe, environment = recipe_text(comparison["recipe"]), pairs(comparison["environment"])
    drawn = [(kept, name, styles[name].variable) for name, kept in maps.items() if kept.stacks]
    contents = [
        ("short", "In short", True),
        ("table", "All figures", True),
        ("kept", "What was kept", drawn),
        ("training", "Training", panels),
        ("recipe", "Recipe", True),
        ("environment", "Environment", environment),
    ]
    return render_page(
        "comparison.html.j2",
        title=comparison["name"],
        description=comparison["description"],
        facts=_facts(comparison),
        warnings=comparison["warnings"],
        choice=chosen,
        notes=[note for note in table.notes if note not in {*chosen, *comparison["warnings"]}],
        sections=sections(contents),
        plot=Markup(plot),
        plot_note=_plot_note(comparison),
        answers=_answers(comparison, styles),
        table=table,
        cells=_cells(table, styles),
        marks=_marks(comparison, table),
        maps=drawn,
        panels=panels,
        command=comparison["command"],
        recipe=recipe,
        environment=environment,
    )


def _facts(comparison: Comparison) -> list[str]:
    quality, speed = comparison["quality"], comparison["speed"]
    seeds = ", ".join(map(str, comparison["seeds"]))
    facts = [f"{comparison['model']}, task {comparison['task']}, seed{'s' * (seeds != seeds[:1])} {seeds}."]
    if quality:
        sample = f"the same {quality['n']:,} examples of {quality['split']}"
        facts.append(f"Quality of {sample}; the reference is {comparison['reference']}.")
    if speed and "error" not in speed:
        facts.append(f"Speed of all models in one measurement on a {device_text(speed)}.")
    return facts


def _plot_note(comparison: Comparison) -> str:
    quality = comparison["quality"] or {"higher_is_better": True}
    spread = "standard deviation over seeds" if len(comparison["seeds"]) > 1 else "standard error"
    upside = "" if quality["higher_is_better"] else " The axis is turned so that better is up."
    return (
        f"Up and to the right is better.{upside} Filled points and the steps are the frontier; hollow ones "
        f"are beaten by another row in both. Bars: {spread} and the 95 % interval of the speedup."
    )


def _answers(comparison: Comparison, styles: Mapping[str, Style]) -> list[dict[str, Any]]:
    """The pruned rows that no other row beats in both quality and speed, the best quality first."""
    rows = [row for row in comparison["rows"] if row["frontier"] and not row["dense"]]
    rows.sort(key=lambda row: row["speed"]["speedup"])
    return [
        {"name": row["name"], "colour": styles[row["name"]].variable, "says": _answer(row, comparison)}
        for row in rows
    ]


def _answer(row: Mapping[str, Any], comparison: Comparison) -> list[str]:
    primary, speed = comparison["quality"]["primary"], row["speed"]
    value = row["quality"][primary]
    said = [
        f"{speed['speedup']:.2f}x the dense model's speed "
        f"[{speed['speedup_low']:.2f}, {speed['speedup_high']:.2f}]"
    ]
    quality = f"{primary} {value['mean']:.4g}"
    if against := value["vs_reference"]:
        difference, low, high = (_signed(against[key]) for key in ("difference", "low", "high"))
        quality += f"; against {comparison['reference']} {difference} [{low}, {high}], {against['verdict']}"
    said.append(quality)
    if row["params"]:
        removed = 1 - row["params"]["pruned"] / row["params"]["dense"]
        said.append(f"{100 * removed:.0f} % fewer parameters")
    if row["prune_s"] is not None:
        said.append(f"{duration(row['prune_s'])} to prune")
    return said


def _signed(value: float) -> str:
    return f"{value:+.3g}".replace("-", "\N{MINUS SIGN}")


def _panels(curves: Mapping[str, Log], styles: Mapping[str, Style]) -> list[dict[str, Any]]:
    """Panels of one kind together, a row's in its colour, so that rows can be compared."""
    from markupsafe import Markup

    drawn = {name: training_curves(log, styles[name].colour or 0) for name, log in curves.items() if log}
    groups = []
    for kind, (heading, note) in _KINDS.items():
        panels = [
            {**vars(found[kind]), "drawing": Markup(found[kind].drawing), "name": name}
            for name, found in drawn.items()
            if kind in found
        ]
        if panels:
            groups.append({"heading": heading, "note": note, "panels": panels})
    return groups


def _cells(table: Table, styles: Mapping[str, Style]) -> list[list[Cell]]:
    """The table's text with sort keys; the first cell, the row's name, with its colour."""
    cells = []
    for row, keys in zip(table.rows, table.keys, strict=True):
        line = [Cell(text, "" if key is None else key) for text, key in zip(row, keys, strict=True)]
        style = styles.get(row[0])
        cells.append([Cell(row[0], row[0], swatch=style.variable if style else ""), *line[1:]])
    return cells


def _marks(comparison: Comparison, table: Table) -> list[str]:
    """A class for each line of the table: the dense model's and those that failed."""
    marks = {
        row["name"]: "dense" if row["dense"] else "failed" if row["error"] else ""
        for row in comparison["rows"]
    }
    return [marks.get(row[0], "") for row in table.rows]
