"""The tables of docs/reproducing.md, made of the recipes in recipes/papers and of docs/reproducing.yaml."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

DOCS = Path(__file__).parent
PAPERS = DOCS.parent / "recipes" / "papers"
BESIDE = DOCS / "reproducing.yaml"
ORDER = ("nash", "cofi", "kwon", "optin")
DENSE = "dense"
WIDTH = 120


def papers_table() -> str:
    """Return a section for each place of a paper, and one for the results that no recipe is for."""
    beside = _read(BESIDE)
    runs = {(run["recipe"], run["label"]): run for run in beside["runs"]}
    recipes = [
        (file.relative_to(PAPERS).with_suffix("").as_posix(), _read(file))
        for file in sorted(PAPERS.rglob("*.yaml"), key=_in_order)
    ]
    by_source: dict[tuple[str, str], list[tuple[str, Any]]] = {}
    for name, recipe in recipes:
        published = recipe["published"]
        by_source.setdefault((published["paper"], published["place"]), []).append((name, recipe))
    parts = []
    for (paper, place), members in by_source.items():
        rows = [row for name, recipe in members for row in _rows(name, recipe, runs)]
        body = _table(("recipe", "label", "published", "state"), rows)
        parts.append("\n\n".join([f"### {paper}: {place}", body, *_remarks(members)]))
    without = [
        (f"{row['paper']}, {row['place']}", row["row"], row["published"], row["why"])
        for row in beside["without_recipe"]
    ]
    body = _table(("where", "what", "published", "why there is no recipe"), without)
    return "\n\n".join([*parts, f"### Without a recipe\n\n{body}"])


def _read(file: Path) -> Any:
    # Texts only: a figure is shown with the digits that were printed.
    return yaml.load(file.read_text(encoding="utf-8"), yaml.BaseLoader)


def _in_order(file: Path) -> tuple[int, list[tuple[int, str]]]:
    """Papers in their order, then by name, where Table 10 comes behind Table 2 and figures behind tables."""
    parts = file.relative_to(PAPERS).with_suffix("").parts
    text = "/".join(parts[1:]).replace("figure", "~figure")
    pieces = [(int(piece or 0), "") if piece.isdigit() else (0, piece) for piece in re.split(r"(\d+)", text)]
    return ORDER.index(parts[0]), pieces


def _rows(name: str, recipe: Any, runs: dict[tuple[str, str], Any]) -> list[tuple[str, str, str, str]]:
    published = recipe["published"]
    figures = {DENSE: published.get("dense", {}), **{label: {} for label in recipe.get("methods", {})}}
    figures |= published.get("methods", {})
    if not figures[DENSE] and "methods" in recipe:
        del figures[DENSE]
    rows = []
    link = f"[{name}](../recipes/papers/{name}.yaml)"
    for label, printed in figures.items():
        state = _state(runs.get((name, label)))
        rows.append((link, label, _shown(printed) or "see below", state))
        link = ""  # once for all rows of a recipe
    return rows


def _shown(figures: dict[str, str]) -> str:
    return ", ".join(f"{metric} {value}" for metric, value in figures.items())


def _state(run: dict[str, Any] | None) -> str:
    return f"run {run['date']}: {_shown(run['reached'])}" if run else "not run"


def _remarks(members: Sequence[tuple[str, Any]]) -> list[str]:
    """Each remark once, behind the names of the recipes that it is in, unless it is in all of them."""
    holders: dict[str, list[str]] = {}
    for name, recipe in members:
        for remark in recipe["published"].get("remarks", []):
            holders.setdefault(remark, []).append(name.rsplit("/", 1)[-1])
    lines = []
    for remark, names in holders.items():
        whose = "" if len(names) == len(members) else f"*{', '.join(names)}*: "
        text = f"{whose}{remark}"
        lines.append(
            textwrap.fill(text, WIDTH, initial_indent="- ", subsequent_indent="  ", break_on_hyphens=False)
        )
    return ["\n".join(lines)] if lines else []


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [[cell.replace("|", r"\|") for cell in row] for row in (header, *rows)]
    first, *others = (f"| {' | '.join(cells)} |" for cells in lines)
    return "\n".join([first, f"|{' --- |' * len(header)}", *others])
