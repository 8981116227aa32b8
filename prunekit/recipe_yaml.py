"""A recipe as plain data; read from a file, it remembers the line that each key stands on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from prunekit.errors import RecipeError
from prunekit.recipe_faults import Fault, KeyPath, dotted
from prunekit.recipe_tree import MAX_DEPTH, MAX_INTEGER, Tree, Unwanted, describe
from prunekit.shipped import shipped_recipes
from prunekit.suggest import closest

MAX_BYTES = 16 * 2**20
"""Of a recipe's file. A recipe of a person has a few thousand; one with rows of data inside has more."""

_SET, _SETTINGS = "--set", "settings"


class RecipeDocument:
    """A recipe's mapping, with overrides applied to it.

    Args:
        source: the recipe's file, or its mapping; that is copied.

    Attributes:
        name: what messages call it.
        data: nested dicts and lists, as YAML's safe loader reads them; no two keys share one object.
        faults: duplicate keys, and overrides that could not be applied.

    Raises:
        RecipeError: if the file is missing, not text, not YAML, empty, or holds no mapping.
    """

    def __init__(self, source: Path | Mapping[Any, Any]) -> None:
        self.faults: list[Fault] = []
        self._lines: dict[KeyPath, int] = {}
        self._overridden: dict[KeyPath, str] = {}  # by whom
        self.name = str(source) if isinstance(source, Path) else "the recipe"
        self.data: dict[Any, Any] = self._parsed(source) if isinstance(source, Path) else _plain(source)

    def _parsed(self, path: Path) -> dict[Any, Any]:
        tree = Tree(self.name)
        try:
            data = tree.read(_read(path))
        except yaml.YAMLError as error:
            verdict = "cannot be taken as a recipe" if isinstance(error, Unwanted) else "is not valid YAML"
            raise RecipeError(f"{path} {verdict}: {describe(error)}") from error
        self.faults, self._lines = tree.faults, tree.lines
        if data is None and not tree.lines:
            raise RecipeError(f"{path} is empty. {_START}")
        if not isinstance(data, dict):
            kind = "a list" if isinstance(data, list) else "a single value"
            raise RecipeError(f"{path} holds {kind}, not a mapping. {_START}")
        return data

    def override(self, text: str) -> None:
        """Apply one ``key.path=value``; the value is read as YAML. What cannot be applied becomes a fault."""
        key, equals, raw = text.partition("=")
        path = tuple(key.strip().split("."))
        if not equals or "" in path:
            self._refuse(path, "must read key=value, such as --set train.epochs=2", _SET)
            return
        try:
            value = Tree(f"{_SET} {key.strip()}").read(raw)
        except yaml.YAMLError as error:
            verdict = "cannot be taken" if isinstance(error, Unwanted) else "is not valid YAML"
            self._refuse(path, f"the value {verdict}: {describe(error)}", _SET)
            return
        except RecipeError as error:
            self._refuse(path, f"the value cannot be taken: {error}", _SET)
            return
        self._put(path, value, _SET)

    def set(self, key: str, value: Any) -> None:
        """Set the key at a path such as ``train.epochs``. What cannot be set becomes a fault."""
        path = tuple(key.split("."))
        if "" in path:
            self._refuse(path, "must be a key, such as train.epochs", _SETTINGS)
        else:
            self._put(path, _plain(value), _SETTINGS)

    def _put(self, path: tuple[str, ...], value: Any, by: str) -> None:
        target = self.data
        for depth, part in enumerate(path[:-1], start=1):
            if target.get(part) is None:
                target[part] = {}
                self._overridden[path[:depth]] = by
            target = target[part]
            if not isinstance(target, dict):
                self._refuse(path, f"{dotted(path[:depth])} holds a value, so it has no keys to set", by)
                return
        target[path[-1]] = value
        # Lines of what was replaced would point at text that no longer counts.
        self._lines = {known: line for known, line in self._lines.items() if known[: len(path)] != path}
        self._overridden[path] = by

    def _refuse(self, path: KeyPath, problem: str, by: str) -> None:
        self.faults.append(Fault(path, problem, where=by))

    def where(self, path: KeyPath) -> str:
        """``line N`` of the key, or of the nearest enclosing one; who overrode it, if that key was.

        A mapping has no lines; of its own keys the value is empty.
        """
        for length in range(len(path), -1, -1):
            if path[:length] in self._overridden:
                return self._overridden[path[:length]]
            if path[:length] in self._lines:
                return f"line {self._lines[path[:length]]}"
        return "line 1" if self._lines else ""


_START = "A recipe is a mapping that starts with `version: 1` and names a model, a task and methods."


def _plain(value: Any, depth: int = 0) -> Any:
    """A copy of a value in the types that YAML has."""
    if depth > MAX_DEPTH:
        raise RecipeError(f"the recipe has more than {MAX_DEPTH} levels inside each other. Write fewer.")
    if isinstance(value, Mapping):
        return {key: _plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, depth + 1) for item in value]
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise RecipeError(
            f"the recipe has a whole number of {value.bit_length()} bits. Give at most {MAX_INTEGER}."
        )
    return str(value) if isinstance(value, Path) else value


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)  # a device has no size, and no end
        if len(content) > MAX_BYTES:
            raise RecipeError(
                f"{path} holds more than {MAX_BYTES // 2**20} MiB, which no recipe needs. Name data by its "
                "files, under task.data, or give the right file."
            )
        return content.decode().replace("\r\n", "\n").replace("\r", "\n")
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such file{_copy_hint(path)}.") from None
    except UnicodeDecodeError as error:
        raise RecipeError(
            f"{path} is not text: byte {error.start} is not UTF-8. A recipe is YAML."
        ) from error
    except OSError as error:
        raise RecipeError(f"{path} cannot be read: {error.strerror}. Give a recipe file.") from error
    except ValueError as error:  # a NUL in its name
        raise RecipeError(f"{str(path)!r} cannot be read: {error}. Give a recipe file.") from error


def _copy_hint(path: Path) -> str:
    name = path.with_suffix("").as_posix().removeprefix("./").removeprefix("recipes/")
    shipped = shipped_recipes()
    if name in shipped:
        return f". {name} ships with prunekit; get your copy with `prunekit recipes copy {name}`"
    match = closest(name, shipped)
    if match:
        return f"; did you mean the shipped recipe {match}? Get a copy with `prunekit recipes copy {match}`"
    return ". Recipes that ship with prunekit are listed by `prunekit recipes list`"
