"""A comparison's table in LaTeX."""

from __future__ import annotations

import re
from collections.abc import Sequence

from prunekit.shown import printable

_SPELT = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\symbol{34}",
    "`": r"\symbol{96}",
    # At the start of a row these would belong to the line break before it.
    "[": "{[}",
    "*": "{*}",
    "±": r"$\pm$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "→": r"$\to$",
    **{char: f"\\{char}" for char in "&%$#_{}"},
}
_WORDS = {"->": r"$\to$", "-": "$-$"}
_WORD = re.compile(r"(->|(?<!\w)-(?=\d))")  # an arrow, a minus sign


def render_latex(
    title: str, header: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str]
) -> str:
    """A ``table`` with the rules of booktabs; notes stand under it, every text is shown as it is."""
    lines = [
        r"% Wants \usepackage{booktabs}.",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape_latex(title)}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
        r"\toprule",
        _line(header),
        r"\midrule",
        *map(_line, rows),
        r"\bottomrule",
        r"\end{tabular}",
        *(rf"\par\smallskip {{\footnotesize {escape_latex(note)}}}" for note in notes),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def escape_latex(text: str) -> str:
    """Text that LaTeX shows as it is, in one line; characters that cannot be printed are left out."""
    return "".join(_WORDS.get(piece) or _spell(piece) for piece in _WORD.split(printable(text)))


def _spell(text: str) -> str:
    return "".join(_SPELT.get(char, char) for char in text)


def _line(cells: Sequence[str]) -> str:
    return " & ".join(map(escape_latex, cells)) + r" \\"
