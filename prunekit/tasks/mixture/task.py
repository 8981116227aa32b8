"""Task ``mixture``: several text-to-text tasks trained together, each scored apart."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_serializer, field_validator
from torch import Tensor

from prunekit.errors import DataError, PrunekitError
from prunekit.plugins import get_registry
from prunekit.tasks.answering import check_split
from prunekit.tasks.base import Evaluation, Split, Task
from prunekit.tasks.mixture.combining import combined
from prunekit.tasks.mixture.faults import entry_faults
from prunekit.tasks.mixture.mixing import Mixed, MixedExamples, joined

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from prunekit.progress import Progress

SPLITS: tuple[Split, ...] = ("train", "validation", "test", "calibration")
MEAN = "mean"
MEAN_VERSION = "1"
"""Raised when something else is the mean of the tasks' leading metrics."""
AUTO_CLASS = "AutoModelForSeq2SeqLM"

_log = logging.getLogger(__name__)


class MixtureConfig(BaseModel):
    """Recipe keys of the task."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tasks: dict[str, dict[str, Any]] = Field(
        min_length=1,
        description="the tasks by label, each with its own keys; `name` is the label by default",
    )
    limit: int | None = Field(None, ge=1, description="train on the first so many examples of each at most")

    @field_validator("tasks")
    @classmethod
    def _valid(cls, entries: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        faults = [
            fault
            for label, entry in entries.items()
            for fault in entry_faults(label, entry, AUTO_CLASS, get_registry())
        ]
        if faults:
            raise ValidationError.from_exception_data(cls.__name__, faults)
        return entries

    @field_serializer("tasks")
    def _settled(self, entries: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Each task with every key written out, as a recipe's own task is."""
        found = {}
        for label, entry in entries.items():
            name, config = _configured(label, entry)
            found[label] = {"name": name, **config.model_dump(mode="json")}
        return found


class Mixture:
    """Several tasks that one encoder-decoder answers, as one.

    A batch may hold examples of all of them. In every split the tasks are interleaved so that each has its
    share of any first N examples. Their results stand under ``<label>/<metric>``, and ``mean`` is the plain
    mean of their leading metrics, whatever their numbers of examples.

    A split is that of the tasks that have it; for ``calibration``, the others give examples of ``train``.

    Attributes:
        tasks: by label.

    Raises:
        DataError: if one of the tasks cannot be made, or one's leading metric is better when higher and
            another's when lower.
    """

    family: ClassVar[str] = "text2text"
    auto_class: ClassVar[str] = AUTO_CLASS
    name: ClassVar[str] = "mixture"
    summary: ClassVar[str] = "several text-to-text tasks trained together, each scored apart"
    Config: ClassVar[type[BaseModel]] = MixtureConfig
    primary_metric: str = MEAN

    def __init__(self, config: MixtureConfig, processor: PreTrainedTokenizerBase) -> None:
        self.config, self.tokenizer = config, processor
        self.tasks = {label: _made(label, entry, processor) for label, entry in config.tasks.items()}
        self.higher_is_better = _direction(self.tasks)
        self.splits = tuple(split for split in SPLITS if any(split in t.splits for t in self.tasks.values()))
        for split in self.splits:
            without = [label for label in self.tasks if label not in self._having(split)]
            for label in without:
                _log.warning("Task mixture, %s: task %s has no such rows and takes no part.", split, label)

    def examples(self, split: Split) -> Sequence[Mixed]:
        """Return the examples of all tasks that have the split, interleaved, each with its task's label.

        Raises:
            DataError: if no task has the split; the text names those there are.
        """
        return MixedExamples(self._each(split, lambda task, own: task.examples(own)), self._limit(split))

    def lengths(self, split: Split) -> Sequence[int]:
        """Return the source tokens of each example, in the order of ``examples``."""
        found = MixedExamples(self._each(split, lambda task, own: task.lengths(own)), self._limit(split))
        return [length for _, length in found]

    def collate(self, examples: Sequence[Mixed]) -> dict[str, Tensor]:
        """Return a batch, padded to its longest source and target; ``labels`` are padded with -100."""
        groups = _grouped(examples)
        batches = [
            self.tasks[label].collate([examples[index].example for index in indices])
            for label, indices in groups.items()
        ]
        order = [index for indices in groups.values() for index in indices]
        return joined(batches, order, {"input_ids": int(self.tokenizer.pad_token_id)})

    def predict(
        self, model: PreTrainedModel, examples: Sequence[Mixed], *, batch_size: int, num_beams: int = 1
    ) -> list[str]:
        """Return the answer to each example as its own task gives it, in the order given.

        Raises:
            DataError: if the model does not fit one of the tasks.
        """
        answers = [""] * len(examples)
        for label, indices in _grouped(examples).items():
            own = [examples[index].example for index in indices]
            found = self.tasks[label].predict(model, own, batch_size=batch_size, num_beams=num_beams)
            for index, answer in zip(indices, found, strict=True):
                answers[index] = answer
        return answers

    def evaluate(
        self,
        model: PreTrainedModel,
        split: Split,
        *,
        batch_size: int,
        limit: int | None = None,
        num_beams: int = 1,
        progress: Progress | None = None,
    ) -> Evaluation:
        """Return the answers to the examples of all tasks, one task's after the other's, and their scores.

        The scores are ``mean``, each task's under ``<label>/<metric>``, and the number of examples ``n``.
        ``mean_stderr`` is that of a mean of independent values: the root of the sum of the squared standard
        errors, over the number of tasks.

        Args:
            model: encoder-decoder that fits each task, on any device.
            split: one of ``splits``.
            batch_size: examples generated at once.
            limit: score the first so many examples of each task; all by default.
            num_beams: beams of the search; 1 is greedy.
            progress: where to draw a bar for each task; nowhere by default.

        Raises:
            DataError: if no task has the split, or the model does not fit one of the tasks.
        """
        check_split(self.name, split, self.splits)
        found = {
            label: task.evaluate(
                model, own, batch_size=batch_size, limit=limit, num_beams=num_beams, progress=progress
            )
            for label, (task, own) in self._having(split).items()
        }
        return combined(found, {label: task.primary_metric for label, task in self.tasks.items()}, MEAN)

    def metric_versions(self) -> dict[str, str]:
        """Return the version of each task's metrics under ``<label>/<metric>``, and that of ``mean``."""
        versions = {
            f"{label}/{name}": version
            for label, task in self.tasks.items()
            for name, version in task.metric_versions().items()
        }
        return {MEAN: MEAN_VERSION, **versions}

    def head_config(self) -> dict[str, Any]:
        """Return nothing: the head of an encoder-decoder writes whatever the tokenizer can."""
        return {}

    def fingerprint(self) -> dict[str, str]:
        """Return those of all tasks; where two read the same data set in two revisions, both."""
        merged: dict[str, str] = {}
        for task in self.tasks.values():
            for source, digest in task.fingerprint().items():
                known = merged.setdefault(source, digest)
                if digest not in known.split(", "):
                    merged[source] = f"{known}, {digest}"
        return merged

    def check_model(self, model: PreTrainedModel) -> None:
        """Refuse a model that does not fit one of the tasks.

        Raises:
            DataError: if so.
        """
        for task in self.tasks.values():
            task.check_model(model)

    def _having(self, split: Split) -> dict[str, tuple[Task, Split]]:
        """The tasks that give examples of the split, and the split of theirs that they are taken from."""
        found = {}
        for label, task in self.tasks.items():
            wanted = ("calibration", "train") if split == "calibration" else (split,)
            own = next((each for each in wanted if each in task.splits), None)
            if own is not None:
                found[label] = (task, own)
        return found

    def _each(self, split: Split, get: Callable[[Task, Split], Sequence[Any]]) -> dict[str, Sequence[Any]]:
        check_split(self.name, split, self.splits)
        return {label: get(task, own) for label, (task, own) in self._having(split).items()}

    def _limit(self, split: Split) -> int | None:
        return self.config.limit if split in ("train", "calibration") else None


def _made(label: str, entry: Mapping[str, Any], processor: PreTrainedTokenizerBase) -> Task:
    name, config = _configured(label, entry)
    try:
        return get_registry().tasks[name](config, processor)
    except PrunekitError as error:
        raise DataError(f"Task mixture: task.tasks.{label}: {error}") from error


def _configured(label: str, entry: Mapping[str, Any]) -> tuple[str, BaseModel]:
    options = {key: value for key, value in entry.items() if key != "name"}
    name = entry.get("name") or label
    task_class: type[Task] = get_registry().find("tasks", name)
    return name, task_class.Config.model_validate(options)


def _direction(tasks: Mapping[str, Task]) -> bool:
    """Whether the leading metrics are better when higher."""
    if len({task.higher_is_better for task in tasks.values()}) > 1:
        listed = ", ".join(
            f"{label} by {task.primary_metric} ({'higher' if task.higher_is_better else 'lower'} is better)"
            for label, task in tasks.items()
        )
        raise DataError(
            f"Task mixture leads with the mean of the tasks' leading metrics, and they point in opposite "
            f"directions: {listed}. Put a metric of the same direction first in `metrics` of each."
        )
    return next(iter(tasks.values())).higher_is_better


def _grouped(examples: Sequence[Mixed]) -> dict[str, list[int]]:
    """Indices of the examples of each task."""
    groups: dict[str, list[int]] = {}
    for index, example in enumerate(examples):
        groups.setdefault(example.task, []).append(index)
    return groups
