"""YAML of a recipe, or of one of its values, as plain data, within limits.

A small file can ask for much: levels without end, aliases that repeat aliases, numbers of a million digits.
What a person writes stays far below the limits here.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from prunekit.errors import RecipeError
from prunekit.recipe_faults import Fault, KeyPath, dotted
from prunekit.shown import visible

MAX_DEPTH = 50
"""Levels of mappings and lists inside each other."""
MAX_REPEATED = 10_000
"""Values that aliases and merge keys may repeat, all in all."""
MAX_NUMBER = 200
"""Characters of a number, as it is written."""
MAX_INTEGER = 2**63 - 1
"""Largest whole number, and smallest without its sign: what the libraries below take for one."""

_YAML = "tag:yaml.org,2002:"
_COLLECTIONS = {f"{_YAML}map", f"{_YAML}seq"}
_NUMBERS = {f"{_YAML}int": "a whole number", f"{_YAML}float": "a number"}
_SCALARS = {
    **_NUMBERS,
    f"{_YAML}str": "a text",
    f"{_YAML}bool": "true or false",
    f"{_YAML}null": "nothing",
    f"{_YAML}timestamp": "a date",
}
_MERGE_TAG = f"{_YAML}merge"
_NEVER = re.compile("[\0\ud800-\udfff]")


class Unwanted(yaml.MarkedYAMLError):
    """What YAML allows and a recipe does not."""


class Tree:
    """Reads YAML as nested dicts and lists, of which no two share an object.

    Args:
        name: what messages call the text.

    Attributes:
        faults: keys that stand twice.
        lines: the line of every key and list item.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.faults: list[Fault] = []
        self.lines: dict[KeyPath, int] = {}
        self._built: set[int] = set()
        self._repeated = 0

    def read(self, text: str) -> Any:
        """The data in ``text``; None if that is empty.

        Raises:
            yaml.YAMLError: if it is not YAML, or beyond a limit.
            RecipeError: if a value contains itself.
        """
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
        except (ValueError, OverflowError) as error:  # an escape or a version that is no number
            raise _at(loader.get_mark(), f"it cannot be read ({error})") from error
        return None if node is None else self._build(loader, node, (), ())

    def _build(
        self, loader: yaml.SafeLoader, node: yaml.Node, path: KeyPath, parents: tuple[yaml.Node, ...]
    ) -> Any:
        if any(node is parent for parent in parents):
            raise RecipeError(
                f"{self.name}, line {line(node)}: {dotted(path)} contains itself through an alias."
            )
        self._count(node)
        if isinstance(node, yaml.ScalarNode):
            return _scalar(loader, node)
        _check_tag(node, _COLLECTIONS)
        self.lines.setdefault(path, line(node))
        inside = (*parents, node)
        if len(inside) > MAX_DEPTH:
            raise _too_deep(node.start_mark)
        if isinstance(node, yaml.MappingNode):
            return self._build_mapping(loader, node, path, inside)
        items = []
        for index, child in enumerate(node.value):
            self.lines[(*path, index)] = line(child)
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
            key = _scalar(loader, key_node)
            here = (*path, key)
            if key in own:
                problem = f"this key stands here twice (first on line {self.lines[here]}); keep one"
                self.faults.append(Fault(here, problem, where=f"line {line(key_node)}"))
            self.lines[here] = line(key_node)
            own[key] = self._build(loader, value_node, here, inside)
        return merged | own

    def _count(self, node: yaml.Node) -> None:
        """Count a node that was built before: an alias means it, and builds all below it again."""
        if id(node) not in self._built:
            self._built.add(id(node))
            return
        self._repeated += 1
        if self._repeated > MAX_REPEATED:
            raise _at(
                node.start_mark,
                f"aliases repeat more than {MAX_REPEATED:,} values, such as this one; write fewer aliases",
            )


class _Loader(yaml.SafeLoader):
    """Stops at the first level too many: the loader's own end would be that of Python's stack."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self._depth > MAX_DEPTH:
            raise _too_deep(self.peek_event().start_mark)  # type: ignore[no-untyped-call]
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


def line(node: yaml.Node) -> int:
    """The line on which a node starts, from 1."""
    return int(node.start_mark.line) + 1


def _scalar(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> Any:
    _check_tag(node, _SCALARS)
    found, start = node.value, node.start_mark
    never = _NEVER.search(found)
    if never:
        raise _at(
            start, f"the text holds U+{ord(never[0]):04X}, which no file takes; leave that character out"
        )
    if node.tag in _NUMBERS and len(found) > MAX_NUMBER:
        raise _at(start, f"the number has {len(found):,} characters; write at most {MAX_NUMBER}")
    try:
        value = loader.construct_object(node, deep=True)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        kind = _SCALARS[node.tag]
        problem = f"{visible(found, 40)!r} cannot be read as {kind}; put it in quotes if it is a text"
        raise _wrong_at(node, problem) from error
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise _at(start, f"{visible(found, 40)} is too large; write a whole number of at most {MAX_INTEGER}")
    return value


def _check_tag(node: yaml.Node, allowed: Any) -> None:
    if node.tag in allowed or not isinstance(node, yaml.ScalarNode | yaml.CollectionNode):
        return
    if node.tag in _SCALARS or node.tag in _COLLECTIONS:
        found = {yaml.ScalarNode: "scalar", yaml.SequenceNode: "sequence", yaml.MappingNode: "mapping"}
        raise _wrong_at(
            node, f"expected {_SCALARS.get(node.tag, 'a collection')}, but found a {found[type(node)]}"
        )
    tag = node.tag.replace(_YAML, "!!")
    raise _wrong_at(
        node, f"could not determine a constructor for the tag {visible(tag, 60)!r}; a recipe has no tags"
    )


def _too_deep(mark: Any) -> Unwanted:
    return _at(mark, f"more than {MAX_DEPTH} levels of mappings and lists inside each other; write fewer")


def _at(mark: Any, problem: str) -> Unwanted:
    return Unwanted(None, None, problem, mark)


def _wrong_at(node: yaml.Node, problem: str) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def describe(error: yaml.YAMLError) -> str:
    """What is wrong and where, as one line."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
    return str(error).splitlines()[0]
