"""Progress bars on long steps: Rich on a terminal or in a notebook, silence anywhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.text import Text

from prunekit import ranks

Advance = Callable[..., None]


class Progress:
    """Opens one bar per long step; draws nothing outside a terminal or a notebook with ipywidgets.

    Args:
        console: where to draw; standard error by default, so that ``--json`` on standard output stays clean.
        quiet: never draw; of several processes the first alone draws.
    """

    def __init__(self, console: Console | None = None, *, quiet: bool = False) -> None:
        self.console = console or Console(stderr=True)
        self.quiet = quiet or not ranks.is_first()
        # In a notebook Rich draws through ipywidgets, and without them warns at every bar.
        in_notebook = self.console.is_jupyter and find_spec("ipywidgets") is not None
        self.enabled = (self.console.is_terminal or in_notebook) and not self.quiet

    def say(self, line: str) -> None:
        """Print a line that stays, on a terminal or not; its text is never read as markup."""
        if not self.quiet:
            self.console.print(Text(line), soft_wrap=True)

    @contextmanager
    def task(self, label: str, total: int, start: int = 0) -> Iterator[Advance]:
        """Open a bar; the value is ``advance(steps=1, **figures)``, the figures stand behind the bar."""
        if not self.enabled:
            yield lambda steps=1, **figures: None
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}", markup=False),
        )
        with RichProgress(*columns, console=self.console, transient=True) as bars:
            bar = bars.add_task(label, total=total, completed=start, figures="")

            def advance(steps: int = 1, **figures: Any) -> None:
                bars.update(bar, advance=steps)
                if figures:
                    text = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
                    bars.update(bar, figures=text)

            yield advance
