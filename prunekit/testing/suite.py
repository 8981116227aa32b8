"""Running the rules: on a method, on an adapter, and as tests of pytest."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Literal

from prunekit.errors import PluginError
from prunekit.testing.outcome import CheckFailed, CheckWarning, NotApplicable, Outcome
from prunekit.testing.rules import Case, cases

if TYPE_CHECKING:
    import pytest

    from prunekit.adapters.base import Adapter
    from prunekit.method import PruningMethod

OnFail = Literal["raise", "warn"] | None


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
        PluginError: if a name of a rule or a model type is not known, or the device is not there.
    """
    cases = method_cases(
        method,
        expected_failures=expected_failures,
        adapters=adapters,
        device=device,
        only=only,
        models=models,
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
        PluginError: if a name of a rule or a model is not known, or the device is not there.
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
) -> pytest.MarkDecorator:
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
        if isinstance(plugin, Adapter):
            found += adapter_cases(plugin, expected_failures=expected_failures, device=device)
        else:
            found += method_cases(plugin, expected_failures=expected_failures, device=device)
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

    _check_device(device)
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

    _check_device(device)
    subjects = adapter_subjects(adapter, device=device)
    return list(cases(ADAPTER_RULES, subjects, expected_failures, only=only, models=models))


def _check_device(device: str) -> None:
    import torch

    if device != "cpu" and not torch.cuda.is_available():
        raise PluginError(
            f"device {device!r}: torch {torch.__version__} finds no CUDA device here. Leave the device out."
        )


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
