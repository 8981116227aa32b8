"""What every family of tasks shares: examples that are kept, and a model's answers to them, scored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Generic, NamedTuple, TypeVar

from prunekit.progress import Progress
from prunekit.tasks.answering import Answered, check_split, evaluation
from prunekit.tasks.base import Evaluation, Metric, Split

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Example = TypeVar("Example")


class Asking(NamedTuple):
    """How a model is asked.

    Attributes:
        batch_size: examples answered at once.
        num_beams: beams of the search; 1 is greedy. Nothing where nothing is generated.
        progress: where to draw a bar; nowhere by default.
    """

    batch_size: int
    num_beams: int
    progress: Progress | None


class ScoredTask(ABC, Generic[Example]):
    """Shared part of the task families: a subclass loads examples and says what a model answers to them."""

    name: ClassVar[str]
    has_sources: ClassVar[bool] = True
    """Whether metrics may read the inputs."""

    def __init__(self) -> None:
        self._examples: dict[Split, Sequence[Example]] = {}

    @property
    @abstractmethod
    def splits(self) -> tuple[Split, ...]:
        """The splits there are; a plain attribute of the class will do."""

    @property
    @abstractmethod
    def metrics(self) -> tuple[Metric, ...]:
        """What answers are scored by; a plain attribute of the class will do."""

    @abstractmethod
    def load(self, split: Split) -> Sequence[Example]:
        """Return the examples of one of ``splits``, in an order in which any first N are a fair sample."""

    @abstractmethod
    def answered(self, model: PreTrainedModel, examples: Sequence[Example], asking: Asking) -> Answered:
        """Return a model's answers to examples, with all that is needed to score them.

        Raises:
            DataError: if the model does not fit the task.
        """

    def fingerprint(self) -> dict[str, str]:
        """Return nothing, as for data that ships with its package; a task on other data says more."""
        return {}

    def metric_versions(self) -> dict[str, str]:
        """Return the version of each metric that ``evaluate`` gives, by name."""
        return {metric.name: metric.version for metric in self.metrics}

    def examples(self, split: Split) -> Sequence[Example]:
        """Return the examples of a split, which are kept after the first call; lazy ones stay so.

        Raises:
            DataError: if the task has no such split; the text names those it has.
        """
        check_split(self.name, split, self.splits)
        if split not in self._examples:
            self._examples[split] = self.load(split)
        return self._examples[split]

    def first(self, split: Split, limit: int | None) -> Sequence[Example]:
        """Return the examples that a split is scored by, the first ``limit`` of them or all."""
        return self.examples(split)[:limit]

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
        """Return a model's answers to a split and their scores.

        A metric of several ``ranks`` is given so many answers to each example, as far as there are so many.

        Args:
            model: fits the task, on any device.
            split: one of ``splits``.
            batch_size: examples answered at once.
            limit: score the first so many examples of the split; all by default.
            num_beams: beams of the search; 1 is greedy. It changes nothing where nothing is generated.
            progress: where to draw a bar; nowhere by default.

        Raises:
            DataError: if the task has no such split, or the model does not fit the task.
        """
        asking = Asking(batch_size, num_beams, progress)
        answered = self.answered(model, self.first(split, limit), asking)
        return evaluation(self.metrics, answered, has_sources=self.has_sources)
