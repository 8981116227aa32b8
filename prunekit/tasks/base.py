"""What a task offers to training, to evaluation and to a pruning method; what a metric is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

from pydantic import ValidationError

from prunekit.errors import DataError, PluginError
from prunekit.recipe_faults import faults_of, render_faults

if TYPE_CHECKING:
    from pydantic import BaseModel
    from torch import Tensor
    from transformers import PreTrainedModel

    from prunekit.plugins import Registry
    from prunekit.progress import Progress
    from prunekit.recipe import TaskSpec

Split = str
"""``train``, ``validation``, ``test`` or ``calibration``; a task may have fewer."""


class MetricValue(NamedTuple):
    """A metric over a set of examples, and what drawing other examples would have done to it.

    Attributes:
        value: the metric.
        stderr: its standard error over draws of the examples.
        influences: of each example, in the metric's unit and 0 on average, how the value would change, to
            first order, if it counted for more: for a mean, the example's score less the mean. Their squares
            sum to ``(stderr * examples) ** 2``. Empty where a metric does not tell: then nothing says whether
            two models differ by it.
    """

    value: float
    stderr: float
    influences: Sequence[float] = ()


@dataclass(frozen=True)
class Metric:
    """A named score of predictions, each against all of its references.

    Attributes:
        name: key in the results; ``<name>_stderr`` stands beside it.
        higher_is_better: direction.
        function: ``function(predictions, references)``, one list of references a prediction.
        wants_sources: whether ``function`` takes a third argument, the texts that the model was given.
        check: called when a task is made that is to be scored so; raises a DataError if the metric cannot
            be had here, for want of data or of an endpoint, so that this shows before anything is trained.
        ranks: how many of the model's answers a prediction holds, best first, joined by line breaks.
        version: raise it when the definition changes: results of two versions are not compared.

    Raises:
        PluginError: if ``ranks`` is less than 1, or ``version`` is no text.
    """

    name: str
    higher_is_better: bool
    function: Callable[..., MetricValue]
    wants_sources: bool = False
    check: Callable[[], None] | None = None
    ranks: int = 1
    version: str = "1"

    def __post_init__(self) -> None:
        if self.ranks < 1:
            raise PluginError(
                f"Metric {self.name!r}: ranks is {self.ranks}; give the number of answers that it looks at, "
                "at least 1."
            )
        if not isinstance(self.version, str) or not self.version:
            raise PluginError(
                f"Metric {self.name!r}: version is {self.version!r}; give a text that changes with its "
                'definition, such as "2".'
            )


@dataclass(frozen=True)
class Evaluation:
    """A model's answers to some examples, and their scores; each list is in the order of the examples.

    Attributes:
        metrics: each metric, its ``<metric>_stderr``, and the number of examples ``n``.
        inputs: what a person would be shown: the text that the model was given, of a question the context
            with it, ``image 17`` where there is no text.
        references: the right answers to each, those that metrics were given.
        answers: the model's answer to each; where it gave several, the best.
        lengths: tokens of each input.
        influences: by metric, of each example how it moves the value, see ``MetricValue``; a metric that
            does not tell is absent.
    """

    metrics: dict[str, float]
    inputs: list[str]
    references: list[list[str]]
    answers: list[str]
    lengths: list[int]
    influences: dict[str, list[float]]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of inputs and references, in hex: equal for models that were asked the same."""
        return hashlib.sha256(json.dumps([self.inputs, self.references]).encode()).hexdigest()


class Task(Protocol):
    """Examples, how they become batches, and how a model's answers are scored.

    Attributes:
        name: what a recipe's ``task.name`` says.
        summary: one line for listings.
        family: what sort of task it is, such as ``text2text``.
        auto_class: transformers' Auto class whose head answers it, such as ``AutoModelForSeq2SeqLM``.
        Config: the recipe keys under ``task`` besides ``name``.
        primary_metric: the metric that reports lead with.
        higher_is_better: direction of the primary metric.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    family: ClassVar[str]
    auto_class: ClassVar[str]
    Config: ClassVar[type[BaseModel]]
    primary_metric: str
    higher_is_better: bool

    def __init__(self, config: Any, processor: Any) -> None:
        """Keep a validated ``Config`` and the model's tokenizer or image processor."""
        ...

    @property
    def splits(self) -> tuple[Split, ...]:
        """The splits there are; a plain attribute of the class will do."""
        ...

    def head_config(self) -> dict[str, Any]:
        """Return the config fields of a head that is new to the task: the names of labels, if it has any."""
        ...

    def fingerprint(self) -> dict[str, str]:
        """Return what tells the task's data from other data: digests by file; nothing for data that ships."""
        ...

    def metric_versions(self) -> dict[str, str]:
        """Return the version of each metric that ``evaluate`` gives, by name."""
        ...

    def check_model(self, model: PreTrainedModel) -> None:
        """Refuse a model that cannot answer; called before anything is trained.

        Raises:
            DataError: if so; the text says what would fit.
        """
        ...

    def examples(self, split: Split) -> Sequence[Any]:
        """Return the examples of a split, in an order in which any first N are a fair sample.

        Raises:
            DataError: if the task has no such split; the text names those it has.
        """
        ...

    def lengths(self, split: Split) -> Sequence[int]:
        """Return the input tokens of each of ``examples``, in that order, for length-bucketed batches."""
        ...

    def collate(self, examples: Sequence[Any]) -> dict[str, Tensor]:
        """Return a batch for ``model(**batch)`` to give a loss and logits; -100 pads sequences of labels."""
        ...

    def predict(
        self, model: PreTrainedModel, examples: Sequence[Any], *, batch_size: int, num_beams: int = 1
    ) -> list[str]:
        """Return the model's answer to each example, in the order given."""
        ...

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
        """Return the answers to a split's first ``limit`` examples, and their scores."""
        ...


def settled(spec: TaskSpec, registry: Registry) -> TaskSpec:
    """The same task with every key written out: those that a named task's file sets, and defaults.

    Raises:
        DataError: if no such task is installed, or its keys are wrong.
    """
    config = _configured(spec, registry)
    return spec.model_validate({"name": spec.name, **config.model_dump(mode="json")})


def make_task(spec: TaskSpec, processor: Any, registry: Registry) -> Task:
    """The task that a recipe names, with its own settings checked.

    Raises:
        DataError: if no such task is installed, its keys are wrong, or its data or processor does not fit.
    """
    config = _configured(spec, registry)
    return registry.tasks[spec.name](config, processor)


def _configured(spec: TaskSpec, registry: Registry) -> BaseModel:
    if spec.name not in registry.tasks:
        raise DataError(f"{registry.explain_missing('tasks', spec.name)}.")
    task_class = registry.tasks[spec.name]
    try:
        return task_class.Config.model_validate(spec.options)
    except ValidationError as error:
        # A recipe's faults have been told before, with their lines: this task was asked for by name alone.
        faults = faults_of(error, spec.options, task_class.Config, at=("task",), owner=spec.name)
        raise DataError(
            f"{render_faults(f'task {spec.name}', faults)}\nPut the task with these keys into a recipe."
        ) from error
