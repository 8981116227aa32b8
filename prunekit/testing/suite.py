"""Running the rules: on a method, on an adapter, and as tests of pytest."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from prunekit.errors import PluginError
from prunekit.suggest import did_you_mean
from prunekit.testing.outcome import CheckFailed, CheckWarning, NotApplicable, Outcome, explain

if TYPE_CHECKING:
    from pytest import MarkDecorator

    from prunekit.adapters.base import Adapter
    from prunekit.method import PruningMethod

OnFail = Literal["raise", "warn"] | None


class Subject(Protocol):
    """What a rule is given: a plugin, with a tiny model or as a whole.

    Attributes:
        name: the plugin's name.
        model: name of the tiny model; empty for the plugin as a whole.
        module: name of the plugin's module, to find the place of its errors.
        exceptions: rules that the plugin itself declares not to hold, with the reasons.
    """

    @property
    def name(self) -> str: ...
    @property
    def model(self) -> str: ...
    @property
    def module(self) -> str: ...
    @property
    def exceptions(self) -> Mapping[str, str]: ...


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
        """Name for a test, such as ``column-norm-t5-budget-met``."""
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


def check_plugin(
    method: type[PruningMethod],
    *,
    on_fail: OnFail = "raise",
    expected_failures: Mapping[str, str] = {},
    adapters: Mapping[str, Adapter] | None = None,
    device: str = "cpu",
    only: Collection[str] = (),
    models: Collection[str] = (),
    progress: Callable[[Outcome], None] | None = None,
) -> list[Outcome]:
    """Try every rule on a pruning method, on a tiny model of each architecture that it declares.

    Args:
        method: the class.
        on_fail: ``raise`` one error that lists every failure, ``warn`` of each, or only return them.
        expected_failures: rules that are known not to hold, with the reasons; each must fail.
        adapters: architectures to try it on; none: those installed.
        device: where the models are put: ``cpu`` or ``cuda``.
        only: names of the rules to try; empty: all.
        models: model types to try it on; empty: all that it declares.
        progress: called with each outcome as it comes.

    Returns:
        The outcomes: rules about the method as a whole first, then model by model.

    Raises:
        CheckFailed: if a rule fails and ``on_fail`` is ``raise``.
        PluginError: if a name of a rule or a model type is not known.
    """
    cases = method_cases(
        method, expected_failures=expected_failures, adapters=adapters, device=device, only=only, models=models
    )
    return run_cases(cases, on_fail=on_fail, progress=progress)


def check_adapter(
    adapter: Adapter,
    *,
    on_fail: OnFail = "raise",
    expected_failures: Mapping[str, str] = {},
    device: str = "cpu",
    only: Collection[str] = (),
    models: Collection[str] = (),
    progress: Callable[[Outcome], None] | None = None,
) -> list[Outcome]:
    """Try every rule on an adapter, on each of the tiny models that it declares.

    Args:
        adapter: the table.
        on_fail: ``raise`` one error that lists every failure, ``warn`` of each, or only return them.
        expected_failures: rules that are known not to hold, with the reasons; each must fail.
        device: where the models are put: ``cpu`` or ``cuda``.
        only: names of the rules to try; empty: all.
        models: names of the tiny models to try it on; empty: all that it declares.
        progress: called with each outcome as it comes.

    Returns:
        The outcomes: rules about the adapter as a whole first, then model by model.

    Raises:
        CheckFailed: if a rule fails and ``on_fail`` is ``raise``.
        PluginError: if a name of a rule or a model is not known.
    """
    cases = adapter_cases(
        adapter, expected_failures=expected_failures, device=device, only=only, models=models
    )
    return run_cases(cases, on_fail=on_fail, progress=progress)


def parametrize_with_checks(
    plugins: Iterable[type[PruningMethod] | Adapter],
    *,
    expected_failures: Mapping[str, str] = {},
    device: str = "cpu",
) -> MarkDecorator:
    """Mark a test function so that every rule on every plugin becomes a test of its own.

    The function takes one argument, ``check``, and calls it. A rule that cannot say anything is skipped;
    one that is expected to fail is ``xfail``, strictly: should it hold, the test fails.

    Args:
        plugins: method classes and adapters.
        expected_failures: rules that are known not to hold, with the reasons.
        device: where the models are put: ``cpu`` or ``cuda``.
    """
    import pytest

    from prunekit.adapters.base import Adapter

    found: list[Case] = []
    for plugin in plugins:
        make = adapter_cases if isinstance(plugin, Adapter) else method_cases
        found += make(plugin, expected_failures=expected_failures, device=device)  # type: ignore[operator]
    return pytest.mark.parametrize(
        "check",
        [
            pytest.param(
                _as_test(case),
                id=case.title,
                marks=[pytest.mark.xfail(reason=case.expected, strict=True)] if case.expected else [],
            )
            for case in found
        ],
    )


def method_cases(
    method: type[PruningMethod],
    *,
    expected_failures: Mapping[str, str] = {},
    adapters: Mapping[str, Adapter] | None = None,
    device: str = "cpu",
    only: Collection[str] = (),
    models: Collection[str] = (),
) -> list[Case]:
    """What ``check_plugin`` tries; nothing is built or run yet. Arguments and errors as there."""
    from prunekit.testing.method_rules import METHOD_RULES
    from prunekit.testing.subject import method_subjects

    subjects = method_subjects(method, adapters=adapters, device=device)
    return list(cases(METHOD_RULES, subjects, expected_failures, only=only, models=models))


def adapter_cases(
    adapter: Adapter,
    *,
    expected_failures: Mapping[str, str] = {},
    device: str = "cpu",
    only: Collection[str] = (),
    models: Collection[str] = (),
) -> list[Case]:
    """What ``check_adapter`` tries; nothing is built or run yet. Arguments and errors as there."""
    from prunekit.testing.adapter_rules import ADAPTER_RULES
    from prunekit.testing.adapter_subject import adapter_subjects

    subjects = adapter_subjects(adapter, device=device)
    return list(cases(ADAPTER_RULES, subjects, expected_failures, only=only, models=models))


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
                f"there is no rule {name!r}{did_you_mean(name, known)}. Rules: {', '.join(known)}."
            )
    there = [subject.model for subject in subjects if subject.model]
    for name in models:
        if name not in there:
            raise PluginError(
                f"no tiny model {name!r} to try it on{did_you_mean(name, there)}. "
                f"Models: {', '.join(there) or 'none'}."
            )
    for subject in subjects:
        expected = {**subject.exceptions, **expected_failures}
        for rule in rules:
            chosen = (not only or rule.name in only) and (not models or subject.model in models)
            if chosen and (rule.of == "plugin") == (not subject.model) and rule.applies(subject):
                yield Case(rule, subject, expected.get(rule.name))


def run_cases(
    cases: Iterable[Case], *, on_fail: OnFail = "raise", progress: Callable[[Outcome], None] | None = None
) -> list[Outcome]:
    """Try all cases, then raise or warn of what failed; see ``check_plugin``."""
    outcomes = []
    for case in cases:
        outcomes.append(case.run())
        if progress:
            progress(outcomes[-1])
    failures = [outcome for outcome in outcomes if outcome.state == "failed"]
    if failures and on_fail == "raise":
        listed = "\n".join(f"- {failure.title}: {failure.reason}" for failure in failures)
        # The first failure's own traceback is shown above this one.
        raise CheckFailed(
            f"{len(failures)} of {len(outcomes)} checks failed.\n{listed}\n"
            "What each rule asks for is in docs/checks.md."
        ) from failures[0].error
    if on_fail == "warn":
        for failure in failures:
            warnings.warn(f"{failure.title}: {failure.reason}", CheckWarning, stacklevel=3)
    return outcomes


def _as_test(case: Case) -> Callable[[], None]:
    """The case as pytest wants it: what cannot be said is a skipped test."""

    def check() -> None:
        import pytest

        try:
            case.check()
        except NotApplicable as reason:
            pytest.skip(str(reason))

    return check
