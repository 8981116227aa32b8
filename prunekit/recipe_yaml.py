"""A recipe as plain data; read from a file, it remembers the line that each key stands on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from prunekit.errors import RecipeError
from prunekit.recipe_faults import Fault, KeyPath, dotted
from prunekit.shipped import shipped_recipes
from prunekit.suggest import closest

_PLAIN_TAGS = {"tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"}
_MERGE_TAG = "tag:yaml.org,2002:merge"
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
        text = _read(path)
        try:
            loader = yaml.SafeLoader(text)
            node = loader.get_single_node()
            if node is None:
                raise RecipeError(f"{path} is empty. {_START}")
            data = self._build(loader, node, (), ())
        except yaml.YAMLError as error:
            raise RecipeError(f"{path} is not valid YAML: {_describe(error)}") from error
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
            value = yaml.safe_load(raw)
        except yaml.YAMLError as error:
            self._refuse(path, f"the value is not valid YAML: {_describe(error)}", _SET)
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

    def _build(
        self, loader: yaml.SafeLoader, node: yaml.Node, path: KeyPath, parents: tuple[yaml.Node, ...]
    ) -> Any:
        if any(node is parent for parent in parents):
            raise RecipeError(
                f"{self.name}, line {_line(node)}: {dotted(path)} contains itself through an alias."
            )
        if isinstance(node, yaml.ScalarNode) or node.tag not in _PLAIN_TAGS:
            return loader.construct_object(node, deep=True)
        self._lines.setdefault(path, _line(node))
        inside = (*parents, node)
        if isinstance(node, yaml.MappingNode):
            return self._build_mapping(loader, node, path, inside)
        items = []
        for index, child in enumerate(node.value):
            self._lines[(*path, index)] = _line(child)
            items.append(self._build(loader, child, (*path, index), inside))
        return items

    def _build_mapping(
        self, loader: yaml.SafeLoader, node: yaml.MappingNode, path: KeyPath, inside: tuple[yaml.Node, ...]
    ) -> dict[Any, Any]:
        merged: dict[Any, Any] = {}
        own: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE_TAG:
                value = self._build(loader, value_node, path, inside)
                for mapping in reversed(value if isinstance(value, list) else [value]):
                    if not isinstance(mapping, dict):
                        raise _wrong_at(value_node, "<< takes a mapping, or a list of mappings")
                    merged.update(mapping)
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                raise _wrong_at(key_node, "a key must be a single word")
            key = loader.construct_object(key_node, deep=True)
            here = (*path, key)
            if key in own:
                first = self._lines[here]
                problem = f"this key stands here twice (first on line {first}); keep one"
                self.faults.append(Fault(here, problem, where=f"line {_line(key_node)}"))
            self._lines[here] = _line(key_node)
            own[key] = self._build(loader, value_node, here, inside)
        return merged | own


_START = "A recipe is a mapping that starts with `version: 1` and names a model, a task and methods."


def _plain(value: Any) -> Any:
    """A copy of a value in the types that YAML has."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _wrong_at(node: yaml.Node, problem: str) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def _describe(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
    return str(error).splitlines()[0]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such file{_copy_hint(path)}.") from None
    except UnicodeDecodeError as error:
        raise RecipeError(
            f"{path} is not text: byte {error.start} is not UTF-8. A recipe is YAML."
        ) from error
    except OSError as error:
        raise RecipeError(f"{path} cannot be read: {error.strerror}. Give a recipe file.") from error


def _copy_hint(path: Path) -> str:
    name = path.with_suffix("").as_posix().removeprefix("./").removeprefix("recipes/")
    shipped = shipped_recipes()
    if name in shipped:
        return f". {name} ships with prunekit; get your copy with `prunekit recipes copy {name}`"
    match = closest(name, shipped)
    if match:
        return f"; did you mean the shipped recipe {match}? Get a copy with `prunekit recipes copy {match}`"
    return ". Recipes that ship with prunekit are listed by `prunekit recipes list`"
