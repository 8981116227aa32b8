"""Running the check suite from the command line: a line a rule as it goes, then what it came to."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from enum import StrEnum
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prunekit.cli.output import print_json
from prunekit.errors import PluginError
from prunekit.shown import visible
from prunekit.suggest import did_you_mean

if TYPE_CHECKING:
    from prunekit.testing.outcome import Outcome


class DeviceName(StrEnum):
    """Where tiny models can be put."""

    cpu = "cpu"
    cuda = "cuda"


Subject = Annotated[
    str,
    typer.Argument(metavar="NAME", help="Installed name, or module:NAME, which need not be installed."),
]
Device = Annotated[DeviceName, typer.Option(help="Where the tiny models are put.")]
Model = Annotated[
    list[str] | None,
    typer.Option(metavar="TYPE", help="Tiny model to try it on, not all; repeatable.", show_default=False),
]
Only = Annotated[
    list[str] | None,
    typer.Option(metavar="RULE", help="Rule to try, not all; repeatable.", show_default=False),
]

_THINGS = {"methods": "method class", "adapters": "adapter"}


def run_check(
    kind: str,
    name: str,
    suite: Callable[..., list[Outcome]],
    context: typer.Context,
    *,
    device: DeviceName,
    models: list[str] | None,
    only: list[str] | None,
    as_json: bool,
) -> None:
    """Try the rules on a plugin and print what they say.

    Args:
        kind: ``methods`` or ``adapters``.
        name: of an installed one, or ``module:NAME``.
        suite: ``check_plugin`` or ``check_adapter``.
        context: of the command; under ``--debug`` the traceback of each failure is printed.
        device: where the tiny models are put.
        models: names of tiny models; none: all.
        only: names of rules; none: all.
        as_json: whether to print JSON.

    Raises:
        PluginError: if there is no such plugin, rule or model, or no rule applies.
        typer.Exit: with 1 if a rule fails.
    """
    started = time.perf_counter()
    debug = context.find_root().params["debug"]

    def tell(outcome: Outcome) -> None:
        if not as_json:
            _print_line(outcome)
        if debug and outcome.state == "failed" and outcome.error is not None:
            typer.echo("".join(traceback.format_exception(outcome.error)), err=True, nl=False)

    with _importable_here():
        outcomes = suite(
            find_plugin(kind, name),
            on_fail=None,
            device=device.value,
            only=only or (),
            models=models or (),
            progress=tell,
        )
    if not outcomes:
        raise PluginError(f"{name}: none of the rules asked for applies to it, so nothing was checked.")
    (_print_json if as_json else _print_summary)(name, device.value, outcomes, time.perf_counter() - started)
    if any(outcome.state == "failed" for outcome in outcomes):
        raise typer.Exit(1)


def find_plugin(kind: str, name: str) -> Any:
    """An installed method or adapter by its name, or any one by ``module:NAME``.

    Raises:
        PluginError: if it is not there, cannot be imported, or is something else.
    """
    from prunekit.plugins import get_registry, missing_attribute

    if ":" not in name:
        return get_registry().find(kind, name)
    module_name, _, attribute = name.partition(":")
    module = _imported(module_name)
    found = getattr(module, attribute, None)
    if found is None:
        there = sorted(key for key, item in vars(module).items() if not missing_attribute(kind, item))
        hint = did_you_mean(attribute, there)
        raise PluginError(
            f"{module_name} has no {_THINGS[kind]} {attribute!r}{hint} (there: {', '.join(there) or 'none'})."
        )
    if lacking := missing_attribute(kind, found):
        raise PluginError(f"{name} is no {_THINGS[kind]}: it has no {lacking!r}. See docs/plugins.md.")
    return found


def _imported(module: str) -> Any:
    try:
        known = find_spec(module) is not None
    except (ImportError, ValueError):  # of a package that is not there; of an empty or relative name
        known = False
    if not known:
        raise PluginError(
            f"no module {module!r} is installed, nor is it in {os.getcwd()}. Go to the folder that holds "
            "it, or install it."
        )
    try:
        return import_module(module)
    except (Exception, SystemExit) as error:
        raise PluginError(f"{module} cannot be imported: {type(error).__name__}: {error}") from error


@contextmanager
def _importable_here() -> Iterator[None]:
    """Modules of the current folder can be imported meanwhile, as by ``python -m``."""
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)


def _print_line(outcome: Outcome) -> None:
    line = f"{outcome.state:<8}  {outcome.rule:<33}  {outcome.model:<14}  {visible(outcome.reason)}"
    typer.echo(line.rstrip())


def _print_summary(name: str, device: str, outcomes: Sequence[Outcome], seconds: float) -> None:
    counts = _counts(outcomes)
    listed = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    typer.echo(f"{name}: {listed} in {seconds:.0f} s" + (f" on {device}" if device != "cpu" else ""))


def _print_json(name: str, device: str, outcomes: Sequence[Outcome], seconds: float) -> None:
    rows = [
        {field.name: getattr(outcome, field.name) for field in fields(outcome) if field.name != "error"}
        for outcome in outcomes
    ]
    about = {"name": name, "device": device, "seconds": seconds, "counts": _counts(outcomes)}
    print_json({**about, "outcomes": rows})


def _counts(outcomes: Sequence[Outcome]) -> dict[str, int]:
    found = Counter(str(outcome.state) for outcome in outcomes)
    return {state: found[state] for state in ("passed", "failed", "expected", "skipped")}
