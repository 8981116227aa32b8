"""What a rule of the check suite says of a plugin."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from traceback import FrameSummary, extract_tb
from typing import Literal

State = Literal["passed", "failed", "skipped", "expected"]


class CheckFailed(AssertionError):
    """A rule does not hold; the text says what was expected, what was found, and what to change."""


class NotApplicable(Exception):
    """Raised by a rule that can say nothing of this plugin; the text says why."""


class CheckWarning(UserWarning):
    """A failed rule, where ``on_fail="warn"``."""


@dataclass(frozen=True)
class Outcome:
    """One rule on one plugin and one model.

    Attributes:
        rule: the rule's name.
        subject: the plugin's name.
        model: the tiny model; empty for a rule about the plugin as a whole.
        state: ``expected`` is a failure that was announced.
        reason: why it failed or was skipped, or why the failure was expected; empty if it passed.
        seconds: how long it took.
        error: what was raised, with its traceback.
    """

    rule: str
    subject: str
    model: str
    state: State
    reason: str = ""
    seconds: float = 0.0
    error: BaseException | None = field(default=None, repr=False, compare=False)

    @property
    def title(self) -> str:
        """The rule and what it was tried on, such as ``budget-met (unit-norm, t5)``."""
        return f"{self.rule} ({', '.join(filter(None, (self.subject, self.model)))})"


def explain(error: BaseException, module: str) -> str:
    """Why a rule failed: a ``CheckFailed``'s own text, or any other exception's type, text and place.

    Args:
        error: what the rule raised.
        module: name of the plugin's module; the place is the innermost one in its files, if it was there.
    """
    if isinstance(error, CheckFailed):
        return str(error)
    text = f"{type(error).__name__}: {error}".removesuffix(": ")
    frames = extract_tb(error.__traceback__)
    own = [frame for frame in frames if _belongs(frame, module)]
    if own:
        return f"{text} (raised in {_place(own[-1])})"
    return f"{text} (raised in {_place(frames[-1])}, not in the plugin's own files)" if frames else text


def _belongs(frame: FrameSummary, module: str) -> bool:
    """Whether a frame is in the plugin's package, or in its file where it is a single module."""
    top = sys.modules.get(module.partition(".")[0])
    for folder in getattr(top, "__path__", ()):
        if Path(frame.filename).is_relative_to(folder):
            return True
    found = sys.modules.get(module)
    return found is not None and frame.filename == getattr(found, "__file__", None)


def _place(frame: FrameSummary) -> str:
    path = Path(frame.filename)
    return f"{path.parent.name}/{path.name}:{frame.lineno}, {frame.name}"
