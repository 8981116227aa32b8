"""Texts made of a row's columns: ``summarize: {document}``."""

from __future__ import annotations

from collections.abc import Sequence
from string import Formatter

from prunekit.tasks.data.rows import Rows


class Template:
    """A text with columns in braces; without braces it is the name of one column.

    ``{{`` and ``}}`` stand for the braces themselves.

    Args:
        text: the template.

    Attributes:
        takes_numbers: whether numbers are filled in, as they are written: in braces only.

    Raises:
        ValueError: if braces do not match, are empty, or hold more than a column's name.
    """

    def __init__(self, text: str) -> None:
        self.parts: list[tuple[str, str | None]] = []
        """Pieces of fixed text, each with the column behind it if there is one."""
        self.takes_numbers = "{" in text or "}" in text
        if not self.takes_numbers:
            self.parts = [("", text)]
            return
        try:
            found = list(Formatter().parse(text))
        except ValueError as error:
            raise ValueError(f"{error}; write {{{{ and }}}} for braces that name no column") from error
        for literal, column, form, conversion in found:
            if column == "" or form or conversion:
                raise ValueError(
                    f"braces hold a column's name and nothing else, not {column or ''!r} and more"
                )
            self.parts.append((literal, column))
        if not self.columns:
            raise ValueError("names no column; put one into braces, as in 'summarize: {document}'")

    @property
    def columns(self) -> list[str]:
        """The columns it names."""
        return [column for _, column in self.parts if column is not None]

    @property
    def is_column(self) -> bool:
        """Whether it is one column and nothing else."""
        return len(self.parts) == 1 and self.parts[0][0] == ""

    def filled(self, rows: Rows, chosen: Sequence[int] | None = None) -> list[str]:
        """Return the text of each row, or of the rows ``chosen``.

        Raises:
            DataError: if a value is neither a text nor, in braces, a number.
        """
        values = {column: rows.texts(column, chosen, numbers=self.takes_numbers) for column in self.columns}
        return [
            "".join(literal + (values[column][index] if column else "") for literal, column in self.parts)
            for index in range(len(rows) if chosen is None else len(chosen))
        ]
