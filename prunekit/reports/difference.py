"""Where two models' answers differ, for people: on the terminal and as an HTML page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from prunekit.reports.page import render_page
from prunekit.shown import visible

Found = Mapping[str, Any]
SHOWN_CLASSES = 20
SHOWN_CHARACTERS = 300
"""Of an input or an answer on the terminal; the page has them whole."""


def print_difference(found: Found, console: Console, *, worst: int) -> None:
    """Print the difference, what flipped, and the worst regressions; nothing in it is read as markup.

    Args:
        found: what ``prunekit.comparison.difference`` returned.
        console: where to.
        worst: how many regressions to print.
    """
    for line in lead(found):
        console.print(Text(line), soft_wrap=True)
    for title, header, rows in tables(found, SHOWN_CLASSES):
        console.print()
        console.print(Text(title, style="bold"))
        table = Table(box=None, pad_edge=False, header_style="")
        for number, column in enumerate(header):
            table.add_column(Text(column), overflow="fold", justify="right" if number else "left")
        for row in rows:
            table.add_row(*map(Text, row))
        console.print(table)
    console.print()
    console.print(Text(regressions_title(found, worst), style="bold"))
    for row in found["regressions"][:worst]:
        console.print(Text(f"#{row['index']}  {_change(row['change'])}", style="bold"), soft_wrap=True)
        for name, text in answers(row, SHOWN_CHARACTERS):
            console.print(Text(f"  {name:<{_NAME_WIDTH}}{text}"), soft_wrap=True)


def render_difference(found: Found, *, worst: int) -> str:
    """The same as an HTML page that is one file.

    Args:
        found: what ``prunekit.comparison.difference`` returned.
        worst: how many regressions to list.
    """
    rows = [
        {"index": row["index"], "change": _change(row["change"]), "texts": answers(row)}
        for row in found["regressions"][:worst]
    ]
    return render_page(
        "difference.html.j2",
        title=visible(f"{found['pruned']['name']} against {found['base']['name']}"),
        lead=lead(found),
        tables=[(f"table-{n}", *table) for n, table in enumerate(tables(found))],
        regressions_title=regressions_title(found, worst),
        regressions=rows,
    )


_NAME_WIDTH = 12


def lead(found: Found) -> list[str]:
    """What a reader must know, a sentence a line."""
    metric, base, pruned, by = found["metric"], found["base"], found["pruned"], found["flips"]["by"]
    gap, differ, flips = found["difference"], found["disagreement"], found["flips"]
    direction = "higher" if found["higher_is_better"] else "lower"
    broken, fixed = words(found)
    told = f" by {by}" if by not in (None, metric) else ""
    return [
        f"base: {visible(base['name'])}, pruned: {visible(pruned['name'])}; {found['n']:,} examples.",
        f"{metric} ({direction} is better): {base['value']:.4g} -> {pruned['value']:.4g}, change "
        f"{gap['difference']:+.4g} [{gap['low']:+.4g}, {gap['high']:+.4g}], {gap['verdict']}.",
        f"Answers that differ: {differ['rate']:.1f} % ± {differ['stderr']:.1f} ({differ['count']:,}).",
        f"Judged{told}: {flips['broken']:,} {broken}, {flips['fixed']:,} {fixed}, {flips['same']:,} neither.",
        "[…] is the 95 % interval of a paired bootstrap over the examples; ± is one standard error.",
    ]


def words(found: Found) -> tuple[str, str]:
    """What the two kinds of flips are called: by right and wrong, where a metric tells these apart."""
    if found["flips"]["by"]:
        return "right -> wrong", "wrong -> right"
    return "worse", "better"


def tables(
    found: Found, classes: int | None = None
) -> list[tuple[str, Sequence[str], list[tuple[str, ...]]]]:
    """Title, header and rows by class (the first few, or all) and by length, where there are such rows."""
    measured = ("examples", *words(found), f"change of {found['metric']}")
    parts: list[tuple[str, Sequence[str], list[tuple[str, ...]]]] = []
    if by_class := found["by_class"]:
        rows = [(visible(row["class"], 40), *_figures(row)) for row in by_class[:classes]]
        more = f", the first {len(rows):,} of {len(by_class):,}" if len(rows) < len(by_class) else ""
        parts.append((f"By class, most regressions first{more}", ("class", *measured), rows))
    if by_length := found["by_length"]:
        rows = [(_range(row["shortest"], row["longest"]), *_figures(row)) for row in by_length]
        parts.append(("By length of the input", ("tokens", *measured), rows))
    return parts


def regressions_title(found: Found, worst: int) -> str:
    """How many regressions there are, and how many follow."""
    count = len(found["regressions"])
    if not count:
        return "No answer changed for the worse."
    return f"Worst regressions by {found['metric']}: {min(worst, count):,} of {count:,}"


def answers(row: Found, limit: int | None = None) -> list[tuple[str, str]]:
    """What was asked, what is right, and what the two models said, each up to ``limit`` characters."""
    texts = {
        "input": row["input"],
        "reference": " | ".join(row["references"]),
        "base": row["base"],
        "pruned": row["pruned"],
    }
    return [(name, visible(text, limit)) for name, text in texts.items()]


def _figures(row: Found) -> tuple[str, ...]:
    return (
        f"{row['n']:,}",
        f"{row['broken']:,}",
        f"{row['fixed']:,}",
        _change(row["change"], row["stderr"]),
    )


def _change(value: float, stderr: float | None = None) -> str:
    """The change, with its standard error to two digits where there is one."""
    if not stderr:
        return f"{value:+.4g}"
    decimals = max(0, 1 - math.floor(math.log10(stderr)))
    return f"{value:+.{decimals}f} ± {stderr:.{decimals}f}"


def _range(shortest: int, longest: int) -> str:
    return f"{shortest}" if shortest == longest else f"{shortest} to {longest}"
