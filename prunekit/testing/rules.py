"""Rules, what they are tried on, and one try: a `Case`."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from prunekit.errors import PluginError
from prunekit.suggest import did_you_mean
from prunekit.testing.outcome import NotApplicable, Outcome, explain


class Subject(Protocol):
    """What a rule is given: a plugin, with a tiny model or as a whole."""

    @property
    def name(self) -> str:
        """The plugin's name."""
        ...

    @property
    def model(self) -> str:
        """Name of the tiny model; empty for the plugin as a whole."""
        ...

    @property
    def module(self) -> str:
        """Name of the plugin's module, to find the place of its errors."""
        ...

    @property
    def exceptions(self) -> Mapping[str, str]:
        """Rules that the plugin itself declares not to hold, with the reasons."""
        ...


def always(subject: Any) -> bool:
    """Every subject."""
    return True


@dataclass(frozen=True)
class Rule:
    """One thing that must hold of every plugin of a kind.

    Args:
        name: stable, kebab-case; what ``expected_failures`` and ``--only`` say.
        summary: what holds, one line for the table in docs/checks.md.
        check: raises ``CheckFailed`` where it does not hold, ``NotApplicable`` where it cannot be said.
        applies: whether the plugin's declaration makes it subject to the rule.
        of: whether it is about the plugin as a whole, tried once, or tried on every tiny model.
    """

    name: str
    summary: str
    check: Callable[[Any], None]
    applies: Callable[[Any], bool] = always
    of: Literal["plugin", "model"] = "model"


@dataclass(frozen=True)
class Case:
    """A rule and the subject that it is tried on; ``expected`` says why it may fail, if it may."""

    rule: Rule
    subject: Subject
    expected: str | None = None

    @property
    def title(self) -> str:
        """Name for a test, such as ``unit-norm-t5-budget-met``."""
        return "-".join(filter(None, (self.subject.name, self.subject.model, self.rule.name)))

    def check(self) -> None:
        """Try the rule; whatever the plugin does to the process is undone afterwards.

        Raises:
            CheckFailed: if it does not hold.
            NotApplicable: if it cannot be said.
        """
        from prunekit.testing.process import restored

        with restored():
            self.rule.check(self.subject)

    def run(self) -> Outcome:
        """Try the rule and say how it went; whatever it raises, but for an interruption, is an outcome."""
        started = time.perf_counter()
        state, reason, error = "passed", "", None
        try:
            self.check()
        except NotApplicable as found:
            state, reason = "skipped", str(found)
        except (Exception, SystemExit) as found:
            state, reason, error = "failed", explain(found, self.subject.module), found
        if self.expected is not None and state == "failed":
            state, reason = "expected", self.expected
        elif self.expected is not None and state == "passed":
            state = "failed"
            reason = (
                f"it holds, but was expected not to ({self.expected}). Remove {self.rule.name!r} from "
                "expected_failures, or from the plugin's declared exceptions."
            )
        return Outcome(
            self.rule.name,
            self.subject.name,
            self.subject.model,
            state,  # type: ignore[arg-type]
            reason,
            time.perf_counter() - started,
            error,
        )


def cases(
    rules: Sequence[Rule],
    subjects: Sequence[Subject],
    expected_failures: Mapping[str, str] = {},
    *,
    only: Collection[str] = (),
    models: Collection[str] = (),
) -> Iterator[Case]:
    """Every rule with every subject that it applies to, subject by subject.

    Args:
        rules: all rules of that kind of plugin.
        subjects: the plugin as a whole (its ``model`` is empty), then with each tiny model.
        expected_failures: as ``check_plugin`` has it; goes before what the plugin itself declares.
        only: names of rules; empty: all.
        models: names of models; empty: all, and the plugin as a whole.

    Raises:
        PluginError: if a name is not known.
    """
    known = [rule.name for rule in rules]
    for name in [*expected_failures, *only]:
        if name not in known:
            raise PluginError(
                f"there is no rule {name!r}{did_you_mean(name, known)} (rules: {', '.join(known)})."
            )
    there = [subject.model for subject in subjects if subject.model]
    for name in models:
        if name not in there:
            raise PluginError(
                f"no tiny model {name!r} to try it on{did_you_mean(name, there)} "
                f"(models: {', '.join(there) or 'none'})."
            )
    for subject in subjects:
        expected = {**subject.exceptions, **expected_failures}
        for rule in rules:
            chosen = (not only or rule.name in only) and (not models or subject.model in models)
            if chosen and (rule.of == "plugin") == (not subject.model) and rule.applies(subject):
                yield Case(rule, subject, expected.get(rule.name))
