"""Which output of a model a label in the data means: by its name wherever there are names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prunekit.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PLACEHOLDER = re.compile(r"LABEL_\d+")
"""What transformers calls the labels of a model that was given no names."""
INTEGER = re.compile(r"[+-]?\d+")


@dataclass(frozen=True)
class LabelMap:
    """The labels of a task.

    Attributes:
        names: in the order of the model's outputs.
        integers: the names that 0, 1, ... in the data stand for; empty where an integer is a name itself.
    """

    names: tuple[str, ...]
    integers: tuple[str, ...]

    def index(self, value: Any) -> int | None:
        """Return the model's output for a value of the label column; None if it is no label."""
        name = name_of(value)
        if name in self.names:
            return self.names.index(name)
        if name and INTEGER.fullmatch(name) and 0 <= int(name) < len(self.integers):
            return self.names.index(self.integers[int(name)])
        return None


def name_of(value: Any) -> str | None:
    """Return a label as text: names as they are, integers and truth values as digits; None for the rest."""
    if isinstance(value, str):
        return value or None
    return str(int(value)) if isinstance(value, int) else None


def label_map(
    task: str,
    *,
    given: Sequence[str] | None,
    classes: Sequence[str],
    found: Iterable[str],
    outputs: Sequence[str],
) -> LabelMap:
    """Return the labels: those given, or the data's own names, or those found in the training rows.

    They are put into the order of the model's names, if it has the same. Labels that were only found may lack
    some of the model's, which are then added.

    Args:
        task: named in messages.
        given: the recipe's ``labels``.
        classes: names that the data gives to the integers of the label column; empty if none.
        found: names in the training rows; empty if there are none.
        outputs: the model's names; empty where they are not known.

    Raises:
        DataError: if no labels can be told, or there is only one.
    """
    if given and sorted(given) == sorted(classes) and list(given) != list(classes):
        raise DataError(
            f"Task {task}: task.labels is {_listed(given)}, but the data numbers the same names as "
            f"{_listed(classes)}. Leave task.labels out, as the data's names are the right ones."
        )
    if stated := tuple(given or classes):
        numbers = not any(INTEGER.fullmatch(name) for name in stated)
        return LabelMap(in_order(stated, outputs) or stated, stated if numbers else ())
    names = _sorted(set(found))
    by_case = {name.casefold(): name for name in names}
    model_has = [name.casefold() for name in outputs]
    if len(by_case) == len(names) and len(set(model_has)) == len(outputs) and set(by_case) <= set(model_has):
        names = tuple(by_case.get(each.casefold(), each) for each in outputs)
    if len(names) < 2:
        raise DataError(
            f"Task {task}: found {len(names)} labels in the training rows ({_listed(names)}), and no others "
            "are known. List all labels under task.labels."
        )
    return LabelMap(names, ())


def in_order(names: Sequence[str], outputs: Sequence[str]) -> tuple[str, ...] | None:
    """Return ``names`` in the order in which a model has them, in whatever case; None if it has others."""
    spelling: Mapping[str, str] = {name: name for name in names}
    if sorted(outputs) != sorted(names):
        spelling = {name.casefold(): name for name in names}
        outputs = [name.casefold() for name in outputs]
        if len(spelling) < len(names) or sorted(outputs) != sorted(spelling):
            return None
    return tuple(spelling[name] for name in outputs)


def model_names(config: Any) -> tuple[str, ...]:
    """Return the names of a model's outputs; empty if they are transformers' placeholders."""
    names = tuple(str(config.id2label[index]) for index in range(config.num_labels))
    return () if all(PLACEHOLDER.fullmatch(name) for name in names) else names


def names_beside(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Return the names of the outputs of the model that a tokenizer was loaded from; empty if not known."""
    from transformers import AutoConfig

    if not tokenizer.name_or_path:
        return ()
    try:
        # A model of the hub lies in the cache already, or will say itself that it cannot be had.
        config = AutoConfig.from_pretrained(
            tokenizer.name_or_path, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError):
        return ()
    return model_names(config)


def _sorted(names: Iterable[str]) -> tuple[str, ...]:
    found = sorted(names)
    return tuple(sorted(found, key=int) if all(INTEGER.fullmatch(name) for name in found) else found)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
