"""Labels in the user's own rows, matched by name with the outputs of a model."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from prunekit.errors import DataError
from prunekit.suggest import did_you_mean
from prunekit.tasks.base import Split
from prunekit.tasks.data.rows import Rows
from prunekit.tasks.label_map import LabelMap, in_order, label_map, model_names, name_of, names_beside
from prunekit.tasks.own.numbers import shown

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SHOWN = 20
"""As many names are listed in a message."""

_log = logging.getLogger(__name__)


class OwnLabels:
    """The labels of a task on the user's own data.

    Args:
        task: named in messages.
        rows: of each split.
        column: of the label.
        given: the recipe's ``labels``.
        processor: the tokenizer or image processor; the model that it was loaded with decides the order.
            None where labels are no outputs of the model.
        by_position: take the labels, in their own order, for the model's outputs, whatever it calls them.

    Attributes:
        names: in the order of the outputs of that model.
        handed_out: whether labels went into batches, after which their order is fixed.

    Raises:
        DataError: if no labels can be told, or a row has none.
    """

    def __init__(
        self,
        task: str,
        rows: Mapping[Split, Rows],
        column: str,
        *,
        given: Sequence[str] | None,
        processor: Any,
        by_position: bool = False,
    ) -> None:
        self.task, self.column, self.by_position = task, column, by_position
        self.handed_out = False
        self._map = self._label_map(rows, given, processor)
        self.names = self._map.names

    def _label_map(self, rows: Mapping[Split, Rows], given: Sequence[str] | None, processor: Any) -> LabelMap:
        has_origin = bool(getattr(processor, "name_or_path", None)) and not self.by_position
        outputs = names_beside(processor) if has_origin else ()
        classes = next(iter(rows.values())).classes(self.column)
        stated = bool(given or classes)
        labels = label_map(
            self.task,
            given=given,
            classes=classes,
            found=() if stated else self._found(rows, known=bool(outputs)),
            outputs=outputs,
        )
        if outputs and in_order(labels.names, outputs) is None:
            # Not an error yet: a new model may borrow the processor of one with other labels.
            _log.warning(
                "Task %s: the labels are %s, but the model in %s has %s and will not be scored on them.",
                self.task,
                listed(labels.names),
                processor.name_or_path,
                listed(outputs),
            )
        return labels

    def _found(self, rows: Mapping[Split, Rows], *, known: bool) -> set[str]:
        """Labels in the training rows; where there are none, in all rows if the model's labels are known."""
        train = rows.get("train")
        found: set[str] = set()
        for each in rows.values():
            # Rows held out of train count too: they may have a rare label that the rest has not.
            if each.tables is train.tables if train else known:
                for index, value in each.each(self.column):
                    name = name_of(value)
                    if name is None:
                        raise self._no_label(each, index, value, "but a name or an integer is needed")
                    found.add(name)
        return found

    def of(self, rows: Rows, chosen: Sequence[int] | None = None) -> list[int]:
        """Return the model's output for each row, or for each of those ``chosen``.

        Raises:
            DataError: if a row's label is none of ``names``; the text names file and row.
        """
        known: dict[tuple[type, Any], int] = {}
        found: list[int] = []
        for index, value in rows.each(self.column, chosen):
            key = type(value), value if isinstance(value, str | int) else None
            if key not in known:
                label = self._map.index(value)
                if label is None:
                    hint = did_you_mean(str(value), self.names)
                    problem = f"which is none of the labels{hint} ({listed(self.names)})"
                    raise self._no_label(rows, index, value, problem)
                known[key] = label
            found.append(known[key])
        return found

    def _no_label(self, rows: Rows, index: int, value: Any, problem: str) -> DataError:
        return DataError(
            f"Task {self.task}: {rows.where(index)}: {self.column!r} holds {shown(value)}, {problem}. "
            "Correct the row, or list every label under task.labels."
        )

    def outputs(self, model: PreTrainedModel) -> Sequence[str]:
        """Return the name that each of the model's logits stands for, in the model's own order.

        A model without names of its own has those of the task, in the task's order.

        Raises:
            DataError: if the model has other labels; or the same ones in another order, and labels have been
                handed out for training in the task's.
        """
        count = model.config.num_labels
        names = () if self.by_position else model_names(model.config)
        own = listed(self.names)
        found = in_order(self.names, names) if names else self.names
        if found is None or len(found) != count:
            others = listed(names) or f"{count} without names"
            raise DataError(
                f"Task {self.task}: the labels are {own}; the model's are {others}. Use a model that was "
                "trained on these labels. If the data counts the model's labels from 0, or lacks some of "
                "them, list them all under task.labels."
            )
        if found != self.names and self.handed_out:
            raise DataError(
                f"Task {self.task}: batches had their labels in the order {own}, but the model's order is "
                f"{listed(found)}: what was trained on them has learnt the wrong names. Write "
                f"task.labels: [{', '.join(found)}]."
            )
        return found


def listed(names: Sequence[str]) -> str:
    """Return names for a message: all, or the first of many and how many there are."""
    if len(names) <= SHOWN:
        return ", ".join(names)
    return f"{', '.join(names[:SHOWN])}, … ({len(names)} in all)"
