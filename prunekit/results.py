"""What the Python API returns: plain data that shows itself as a table, at a prompt and in a notebook."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunekit.reports.comparison import comparison_table, render
from prunekit.reports.run import heading, headline, summary_lines
from prunekit.reports.speed import machine_sentence, render_speed_markdown, speed_tables
from prunekit.shown import Shown, as_html, as_text

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from prunekit.pruning.plan import PruningPlan


class Result(dict[str, Any]):
    """A dictionary of plain data, as it stands in a JSON file, whose ``repr`` is a table."""

    def __repr__(self) -> str:
        return as_text(self._shown())

    def _repr_html_(self) -> str:
        return as_html(self._shown())

    @abstractmethod
    def _shown(self) -> list[Shown]:
        """The tables."""


class Report(Result):
    """One finished run: the content of its ``report.json``, whose keys docs/run-folder.md explains."""

    @property
    def folder(self) -> Path:
        """The run folder, as it was given."""
        return Path(self["run"])

    @property
    def plan(self) -> PruningPlan:
        """Which units were kept.

        Raises:
            PlanError: if the run folder is gone or its ``plan.json`` damaged.
        """
        from prunekit.pruning.plan import PruningPlan

        return PruningPlan.load(self.folder / "plan.json")

    def load_model(self) -> PreTrainedModel:
        """The model that was saved, in float32 and eval mode.

        Raises:
            CheckpointError: if the run folder is gone or its model damaged.
        """
        from prunekit.models import load_model

        return load_model(str(self.folder / "model"))

    def _shown(self) -> list[Shown]:
        header = ("", "requested", "achieved", "measured")
        return [Shown(heading(self), header, headline(self), summary_lines(self, checks=False))]


class Comparison(Result):
    """Methods side by side: the content of ``comparison.json``; ``rows`` has an entry a method.

    Args:
        data: that content.
        folder: where it was written, with ``comparison.html`` beside it.
    """

    def __init__(self, data: Mapping[str, Any], folder: Path) -> None:
        super().__init__(data)
        self.folder = folder

    @property
    def page(self) -> Path:
        """The comparison as one HTML page, with plots."""
        return self.folder / "comparison.html"

    def render(
        self,
        format: str = "markdown",
        *,
        sort: str | None = None,
        only: Sequence[str] = (),
        frontier: bool = False,
        expected: bool = False,
    ) -> str:
        """The table as a text.

        Args:
            format: ``markdown``, ``latex`` (booktabs), ``csv`` or ``json``.
            sort: column to order by, the best first; the dense model and then by speedup by default.
            only: names, labels or methods to show, or patterns such as ``nash*``; all by default.
            frontier: show only rows that no other beats in quality and speed.
            expected: also show what the recipe says that a paper printed.

        Raises:
            ComparisonError: if there is no such format or column, or ``only`` fits no row.
        """
        return render(self, format, sort=sort, only=only, frontier=frontier, expected=expected)

    def _shown(self) -> list[Shown]:
        table = comparison_table(self)
        return [Shown(table.title, table.header, table.rows, [*table.notes, f"Page: {self.page}"])]


class Quality(Result):
    """A model's metrics on a task.

    ``model``, ``task``, ``split``, the number of examples ``n``, and each metric with its standard error,
    ``<metric>_stderr``, beside it.
    """

    def _shown(self) -> list[Shown]:
        names = [
            name
            for name, value in self.items()
            if isinstance(value, int | float) and name != "n" and not name.endswith(("/n", "_stderr"))
        ]
        rows = [(name, self._figure(name), self._figure(f"{name}_stderr")) for name in names]
        task = f"task {self['task']['name']}, split {self['split']}"
        title = f"{self['model']}, {task}: {self['n']:,.0f} examples"
        return [Shown(title, ("metric", "value", "standard error"), rows)]

    def _figure(self, name: str) -> str:
        return f"{self[name]:.4g}" if name in self else ""


class Speed(Result):
    """Times of models side by side.

    ``cells`` has one entry for each batch size and length, with ``models`` by name in it: times in
    milliseconds, every sample included, and the speedup over ``reference`` with its interval. A model that
    could not be measured has only ``error``.
    """

    def render(self) -> str:
        """The tables as Markdown."""
        return render_speed_markdown(self)

    def _shown(self) -> list[Shown]:
        shown = [Shown("", (), (), [machine_sentence(self)])]
        for table in speed_tables(self):
            shown.append(Shown(table.title, table.header, table.rows, () if table.parts else table.notes))
            if table.parts:
                shown.append(Shown("", table.parts_header, table.parts, table.notes))
        return shown
