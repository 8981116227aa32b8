"""Rules about what a method declares: ``info``, ``Config``, and the models that it works on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from inspect import Parameter, signature
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from prunekit.errors import UnsupportedModelError
from prunekit.method import ANY_MODEL, MethodInfo
from prunekit.pruning.units import Kind
from prunekit.recipe import MethodEntry
from prunekit.suggest import did_you_mean
from prunekit.testing.outcome import CheckFailed, NotApplicable
from prunekit.testing.rules import Rule
from prunekit.testing.subject import MethodSubject

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_DATA = ("train", "calibration", "none")
_UNKNOWN_KEY = "no_method_has_this_key"


def _config(subject: MethodSubject) -> type[BaseModel]:
    config = getattr(subject.method, "Config", None)
    if not (isinstance(config, type) and issubclass(config, BaseModel)):
        raise CheckFailed(
            f"{subject.name}.Config is {config!r}; make it a pydantic model with the method's recipe keys, "
            "without fields if it has none."
        )
    return config


def info_complete(subject: MethodSubject) -> None:
    """Every field says something that prunekit understands."""
    info = getattr(subject.method, "info", None)
    if not isinstance(info, MethodInfo):
        raise CheckFailed(
            f"{subject.method.__name__}.info is {info!r}; give the class an attribute `info`, a "
            "prunekit.method.MethodInfo."
        )
    if faults := list(_faults(info)):
        raise CheckFailed(f"info of {info.name!r}: {'; '.join(faults)}.")


def _faults(info: MethodInfo) -> Iterator[str]:
    if not (isinstance(info.name, str) and _NAME.fullmatch(info.name)):
        yield f"name is {info.name!r}; use lower-case letters, digits and single hyphens, as in unit-norm"
    for field in ("summary", "paper"):
        text = getattr(info, field)
        if not isinstance(text, str) or not text.strip() or "\n" in text:
            yield f"{field} is {text!r}; write one line (for paper, 'none' and why, if there is none)"
    yield from _faulty_names("kinds", info.kinds, get_args(Kind))
    yield from _faulty_names("model_types", info.model_types)
    if info.data not in _DATA:
        yield f"data is {info.data!r}; write one of {', '.join(_DATA)}"
    for field in ("trains", "deterministic"):
        if not isinstance(getattr(info, field), bool):
            yield f"{field} is {getattr(info, field)!r}; write True or False"
    if not (isinstance(info.budget_units, int) and info.budget_units >= 1):
        yield f"budget_units is {info.budget_units!r}; write a whole number, at least 1"
    if not 0 <= info.budget_tolerance < 1:
        yield f"budget_tolerance is {info.budget_tolerance!r}; write a share from 0 to below 1"
    # Imported here, as these rules are among them.
    from prunekit.testing.method_rules import METHOD_RULES

    rules = [rule.name for rule in METHOD_RULES]
    for rule, reason in info.exceptions.items():
        if rule not in rules:
            yield f"exceptions names the rule {rule!r}, which there is not{did_you_mean(rule, rules)}"
        elif not (isinstance(reason, str) and reason.strip()):
            yield f"exceptions gives no reason why {rule} does not hold"


def _faulty_names(field: str, names: Any, allowed: tuple[str, ...] = ()) -> Iterator[str]:
    if not isinstance(names, tuple) or not names or not all(isinstance(name, str) for name in names):
        yield f"{field} is {names!r}; write a tuple of names, at least one"
        return
    for name in names:
        if allowed and name not in allowed:
            yield f"{field} holds {name!r}{did_you_mean(name, allowed)} (there are: {', '.join(allowed)})"
    if len(set(names)) < len(names):
        yield f"{field} holds a name twice: {names!r}"


def signatures(subject: MethodSubject) -> None:
    """The constructor and ``plan`` take what prunekit hands them."""
    for name, given in (("__init__", ["config"]), ("plan", ["target", "task", "budget", "trainer"])):
        function = getattr(subject.method, name, None)
        if not callable(function):
            raise CheckFailed(f"{subject.name} has no {name}; define {name}(self, {', '.join(given)}).")
        parameters = list(signature(function).parameters.values())[1:]
        positional = [
            p for p in parameters if p.kind in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
        ]
        needed = [
            p.name
            for p in parameters
            if p.default is Parameter.empty
            and p.kind != Parameter.VAR_POSITIONAL
            and p.kind != Parameter.VAR_KEYWORD
        ]
        takes_any = any(p.kind == Parameter.VAR_POSITIONAL for p in parameters)
        if len(needed) > len(given) or (len(positional) < len(given) and not takes_any):
            raise CheckFailed(
                f"{subject.name}.{name} takes ({', '.join(p.name for p in parameters)}) after self; prunekit "
                f"passes {', '.join(given)}, in this order."
            )


def config_defaults(subject: MethodSubject) -> None:
    """A recipe need not write any key."""
    config = _config(subject)
    required = [name for name, field in config.model_fields.items() if field.is_required()]
    try:
        config.model_validate({})
    except ValidationError as error:
        raise CheckFailed(
            f"{config.__name__} cannot be made without keys ({', '.join(required) or error}): `prune "
            f"--method {subject.name}` would not run on a recipe that does not name it. Give every key a "
            "default, and let the defaults fit together."
        ) from error


def config_forbids_unknown_keys(subject: MethodSubject) -> None:
    """A misspelt key is refused."""
    config = _config(subject)
    try:
        config.model_validate({_UNKNOWN_KEY: 1})
    except ValidationError as error:
        if any(fault["type"] == "extra_forbidden" for fault in error.errors()):
            return
    raise CheckFailed(
        f"{config.__name__} takes keys that it does not have, so a misspelt one would change nothing and "
        'nobody would notice. Add `model_config = ConfigDict(extra="forbid")`.'
    )


def config_documented(subject: MethodSubject) -> None:
    """Every key says what it does."""
    config = _config(subject)
    silent = [name for name, field in config.model_fields.items() if not (field.description or "").strip()]
    if silent:
        raise CheckFailed(
            f"{config.__name__}: {', '.join(silent)} has no description, which is all that `methods show` "
            'and the docs can tell of it. Write Field(default, description="...").'
        )


def config_keys_free(subject: MethodSubject) -> None:
    """No key is one that every recipe entry has already."""
    config = _config(subject)
    aliases = {field.alias for field in config.model_fields.values() if field.alias}
    taken = sorted({*config.model_fields, *aliases} & set(MethodEntry.model_fields))
    if taken:
        raise CheckFailed(
            f"{config.__name__} has the key {', '.join(taken)}, which in a recipe's entry belongs to "
            f"prunekit and never reaches the method (so do: {', '.join(MethodEntry.model_fields)}). Rename "
            "it."
        )


def check_entry_valid(subject: MethodSubject) -> None:
    """The entry by which checks run the method is one that a recipe could have."""
    _config(subject)
    try:
        subject.settings()
    except ValidationError as error:
        faults = [
            f"{'.'.join(map(str, fault['loc'])) or 'the entry'}: {fault['msg']} (found {fault['input']!r})"
            for fault in error.errors()
        ]
        raise CheckFailed(
            f"info.check_entry of {subject.name} is no valid recipe entry: {'; '.join(faults)}. Write the "
            "keys of Config, and under budget and train those of a recipe."
        ) from error


def model_types_known(subject: MethodSubject) -> None:
    """At least one declared architecture can be tried."""
    declared = subject.info.model_types
    known = [name for name, adapter in subject.adapters.items() if adapter.tiny]
    unknown = [name for name in declared if name not in known and name != ANY_MODEL]
    if len(unknown) == len(declared):
        hints = "; ".join(f"{name}{did_you_mean(name, known)}" for name in unknown)
        raise CheckFailed(
            f"{subject.name} works on {hints}, and no such adapter with a tiny model is installed, so "
            f"nothing about its plans was checked (there are: {', '.join(known) or 'none'}). Correct "
            "model_types, or install the adapter."
        )
    if unknown:
        raise NotApplicable(
            f"not tried on {', '.join(unknown)}: no such adapter with a tiny model is installed"
        )


def unsupported_model_refused(subject: MethodSubject) -> None:
    """``plan`` refuses an architecture that is not declared."""
    others = [a for name, a in subject.adapters.items() if a.tiny and name not in subject.info.model_types]
    if not others:
        raise NotApplicable("every adapter with a tiny model is declared")
    try:
        subject.settings()
    except ValidationError as error:
        raise NotApplicable("it cannot be run: see check-entry-valid") from error
    for adapter in others:
        with TemporaryDirectory() as folder:
            try:
                subject.run(adapter, Path(folder) / "run")
            except UnsupportedModelError:
                continue
            except Exception as error:
                found = f"raised {type(error).__name__}: {error}"
            else:
                found = "made a plan"
        raise CheckFailed(
            f"on a model of {adapter.name}, which model_types leaves out, {subject.name} {found}. Let plan "
            "begin with `self.info.check_model(target)`, which raises the UnsupportedModelError that users "
            f"should see, or declare {adapter.name} (or '{ANY_MODEL}': any architecture)."
        )


def _has_limits(subject: MethodSubject) -> bool:
    return _has_info(subject) and ANY_MODEL not in subject.info.model_types


def _has_info(subject: MethodSubject) -> bool:
    return isinstance(getattr(subject.method, "info", None), MethodInfo)


RULES = (
    Rule(
        "info-complete",
        "`info` is a `MethodInfo` whose fields all say something known.",
        info_complete,
        of="plugin",
    ),
    Rule(
        "signatures",
        "`__init__(config)` and `plan(target, task, budget, trainer)` can be called so.",
        signatures,
        of="plugin",
    ),
    Rule("config-defaults", "`Config` can be made without any key.", config_defaults, of="plugin"),
    Rule(
        "config-forbids-unknown-keys",
        "`Config` refuses a misspelt key.",
        config_forbids_unknown_keys,
        of="plugin",
    ),
    Rule("config-documented", "Every key of `Config` has a description.", config_documented, of="plugin"),
    Rule(
        "config-keys-free",
        "No key of `Config` is one that every recipe entry has.",
        config_keys_free,
        of="plugin",
    ),
    Rule(
        "check-entry-valid",
        "`info.check_entry` is a valid recipe entry.",
        check_entry_valid,
        _has_info,
        of="plugin",
    ),
    Rule(
        "model-types-known",
        "Some declared architecture has an adapter to try it on.",
        model_types_known,
        _has_info,
        of="plugin",
    ),
    Rule(
        "unsupported-model-refused",
        "On an architecture that is not declared `plan` raises `UnsupportedModelError`.",
        unsupported_model_refused,
        _has_limits,
        of="plugin",
    ),
)
