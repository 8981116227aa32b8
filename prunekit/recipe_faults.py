"""Faults of a recipe, worded for the person who wrote it."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from prunekit.shown import harmless, visible
from prunekit.suggest import did_you_mean

KeyPath = tuple[str | int, ...]

_ABOUT_KEYS = {"extra_forbidden", "missing"}
_BOUNDS = {"greater_than", "greater_than_equal", "less_than", "less_than_equal"}
_NOT_A_NUMBER = {"float_parsing", "float_type"}
_MAPPING_WANTED = {"model_type", "model_attributes_type", "dict_type"}
_MAX_VALUE_WIDTH = 40
_MAX_KEY_WIDTH = 44
_MAX_KEY_LENGTH = 200
_MAX_SHOWN = 50


@dataclass(frozen=True)
class Fault:
    """One thing wrong with a recipe.

    Attributes:
        path: keys that lead to it.
        problem: what is wrong and what is allowed.
        value: the value found there, as YAML; empty where showing it says nothing.
        where: where it stands, if the document cannot tell from the path.
    """

    path: KeyPath
    problem: str
    value: str = ""
    where: str | None = None


def dotted(path: KeyPath) -> str:
    """The path as people write it: ``budget.scope[0]``."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def _nowhere(path: KeyPath) -> str:
    return ""


def render_faults(source: str, faults: Iterable[Fault], where: Callable[[KeyPath], str] = _nowhere) -> str:
    """All faults as one message: a headline, then a line each with place, key, value and problem."""
    rows = []
    for fault in faults:
        key = visible(dotted(fault.path), _MAX_KEY_LENGTH)
        value = f" = {harmless(fault.value)}" if fault.value else ""
        rows.append((fault.where or where(fault.path), key + value, harmless(fault.problem)))
    rows.sort(key=lambda row: (row[0].startswith("--"), _number_in(row[0])))
    places = max(len(place) for place, _, _ in rows)
    keys = min(_MAX_KEY_WIDTH, max(len(key) for _, key, _ in rows))
    lines = [f"  {place:<{places}}  {key:<{keys}}  {problem}" for place, key, problem in rows[:_MAX_SHOWN]]
    if len(rows) > _MAX_SHOWN:
        lines.append(f"  and {len(rows) - _MAX_SHOWN} more")
    return "\n".join([f"{source} has {len(rows)} problem{'s' if len(rows) > 1 else ''}", *lines])


def faults_of(
    error: ValidationError,
    data: Any,
    model: type[BaseModel],
    *,
    at: KeyPath = (),
    owner: str,
    further_keys: Sequence[str] = (),
) -> list[Fault]:
    """Pydantic's errors as faults, one for each place.

    Args:
        error: what ``model`` raised on ``data``.
        data: the value that was validated.
        model: the model it was validated with; its field descriptions enter the texts.
        at: path of ``data`` in the recipe.
        owner: whose keys the top level of ``data`` holds, such as a method's name.
        further_keys: keys that may stand beside the model's own.
    """
    problems: dict[KeyPath, list[str]] = {}
    values: dict[KeyPath, str] = {}
    for details in error.errors(include_url=False):
        path = _path_in(details, data, model)
        problems.setdefault(path, []).append(_problem(details, path, model, owner, further_keys))
        # A key that should or should not be there has no value worth showing, nor has the whole of the data.
        if path and details["type"] not in _ABOUT_KEYS:
            values[path] = show_value(details["input"])
    return [Fault((*at, *path), _either(texts), values.get(path, "")) for path, texts in problems.items()]


def unknown_key(key: str, known: Iterable[str], owner: str) -> str:
    """The problem text for a key that ``owner`` does not take."""
    known = list(known)
    return f"unknown key{did_you_mean(key, known)} ({owner} takes: {', '.join(known) or 'no keys'})"


def show_value(value: Any) -> str:
    """The value as YAML on one line, cut to a readable length."""
    try:
        text = yaml.safe_dump(value, default_flow_style=True, width=float("inf"), allow_unicode=True)
    except yaml.YAMLError:
        text = repr(value)  # not from a file: Python callers may give rows of any class
    text = text.removesuffix("\n").removesuffix("\n...")
    return text if len(text) <= _MAX_VALUE_WIDTH else text[: _MAX_VALUE_WIDTH - 1] + "…"


def _either(texts: list[str]) -> str:
    return " or ".join([texts[0], *(text.removeprefix("must be ") for text in texts[1:])])


def _path_in(details: ErrorDetails, data: Any, model: type[BaseModel]) -> KeyPath:
    """The error's location without the parts that name a union's branch rather than a key."""
    path: list[str | int] = []
    here: Any = data
    absent = details["type"] in _ABOUT_KEYS
    for position, part in enumerate(details["loc"], start=1):
        is_index = isinstance(here, list) and isinstance(part, int)
        if is_index or (isinstance(here, dict) and part in here):
            here = here[part]
            path.append(part)
        elif (absent and position == len(details["loc"])) or _is_field(part, model, path):
            here = None  # missing, or a key that the model itself made of others
            path.append(part)
    return tuple(path)


def _is_field(part: str | int, model: type[BaseModel], path: Sequence[str | int]) -> bool:
    return any(part in each.model_fields for each in _schema_at(model, path)[1])


def _problem(
    details: ErrorDetails, path: KeyPath, model: type[BaseModel], owner: str, further_keys: Sequence[str]
) -> str:
    kind = details["type"]
    field, models = _schema_at(model, path)
    about = f" ({field.description})" if field and field.description else ""
    if kind == "extra_forbidden":
        _, parents = _schema_at(model, path[:-1])
        known = [key for parent in parents for key in parent.model_fields]
        if len(path) == 1:
            return unknown_key(str(path[0]), [*known, *further_keys], owner)
        return unknown_key(str(path[-1]), known, str(path[-2]))
    if kind == "missing":
        return f"is required{about}"
    if kind == "literal_error":
        allowed = re.findall(r"'([^']*)'", details["ctx"]["expected"])
        return f"must be {details['ctx']['expected']}{did_you_mean(str(details['input']), allowed)}"
    if kind in _MAPPING_WANTED and models:
        return f"must be a mapping with the keys {', '.join(models[0].model_fields)}"
    if kind == "value_error":
        return str(details["ctx"]["error"])
    if kind == "invalid_key":
        return (
            "keys must be text; put this one in quotes (YAML has its own idea of numbers, yes, no, on, off)"
        )
    if kind in _BOUNDS | _NOT_A_NUMBER and field and _is_fraction(field) and details["input"] not in (0, 1):
        return f"must be a fraction between 0 and 1{about}{_as_percentage(details['input'])}"
    text = details["msg"].replace("Input should be", "must be").split(", unable to parse")[0]
    return f"{text}{about}"


def _schema_at(
    model: type[BaseModel], path: Sequence[str | int]
) -> tuple[FieldInfo | None, list[type[BaseModel]]]:
    """The field that the path ends in, and the models that describe the value there."""
    field, models = None, [model]
    for part in path:
        found = next((each.model_fields[str(part)] for each in models if part in each.model_fields), None)
        if found is not None:  # else the part is a list index or a free key, inside the same field
            field, models = found, _models_in(found.annotation)
    return field, models


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_in(argument)]


def _is_fraction(field: FieldInfo) -> bool:
    bounds = [
        getattr(constraint, name)
        for name in ("ge", "gt", "le", "lt")
        for constraint in field.metadata
        if hasattr(constraint, name)
    ]
    return bounds == [0, 1]


def _as_percentage(value: Any) -> str:
    try:
        number = float(str(value).strip().removesuffix("%"))
    except ValueError:
        return ""
    return f"; did you mean {number / 100:g}?" if 2 <= number < 100 else ""


def _number_in(place: str) -> int:
    match = re.fullmatch(r"line (\d+)", place)
    return int(match[1]) if match else 0
