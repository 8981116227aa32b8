"""Classification tasks: examples of whatever kind with one label each."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from prunekit.errors import DataError
from prunekit.progress import Progress
from prunekit.tasks.answering import Answered, answers_in_batches
from prunekit.tasks.base import Metric, Split
from prunekit.tasks.metrics import ACCURACY
from prunekit.tasks.scored import Asking, ScoredTask

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Labelled(Protocol):
    """Anything with a label: an index into the task's ``labels``, or the number itself in a regression."""

    @property
    def label(self) -> float:
        """The index or number."""
        ...


Example = TypeVar("Example", bound=Labelled)


class ClassificationTask(ScoredTask[Example], Generic[Example]):
    """Shared half of the tasks that choose one of a few labels; the answer is the largest logit's.

    Works with every model that takes a subclass's ``inputs`` and ``labels`` and gives logits ``[B, labels]``.
    """

    family: ClassVar[str] = "classification"
    auto_class: ClassVar[str]
    has_sources: ClassVar[bool] = False
    metrics: tuple[Metric, ...] = (ACCURACY,)
    primary_metric = ACCURACY.name
    higher_is_better = ACCURACY.higher_is_better

    @property
    @abstractmethod
    def labels(self) -> tuple[str, ...]:
        """The names, in the order of the model's logits; a plain attribute of the class will do."""

    @abstractmethod
    def inputs(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        """Return what the model takes besides the labels, for a batch of these examples."""

    @abstractmethod
    def length(self, example: Example) -> int:
        """Return the example's input tokens, by which batches are put together."""

    def head_config(self) -> dict[str, Any]:
        """Return ``num_labels``, ``id2label`` and ``label2id`` in the order of ``labels``."""
        return {
            "num_labels": len(self.labels),
            "id2label": dict(enumerate(self.labels)),
            "label2id": {label: index for index, label in enumerate(self.labels)},
        }

    def lengths(self, split: Split) -> Sequence[int]:
        """Return the input tokens of each example, in the order of ``examples``."""
        return [self.length(example) for example in self.examples(split)]

    def collate(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        """Return a batch: ``inputs`` of these examples, and their ``labels``, ``[B]``.

        Labels are int64, or float32 in a regression.
        """
        return {**self.inputs(examples), "labels": torch.tensor([example.label for example in examples])}

    def predict(
        self,
        model: PreTrainedModel,
        examples: Sequence[Example],
        *,
        batch_size: int,
        num_beams: int = 1,
        progress: Progress | None = None,
    ) -> list[str]:
        """Return the label name of each example's largest logit, in the order given; the first among equals.

        The model answers in evaluation mode and is handed back in the mode it came in. A classifier has no
        beams, so ``num_beams`` changes nothing.

        Raises:
            DataError: if the model does not fit the task.
        """
        return self._answers(model, examples, ranks=1, batch_size=batch_size, progress=progress)

    def answered(self, model: PreTrainedModel, examples: Sequence[Example], asking: Asking) -> Answered:
        """Return a model's answers: so many labels to each example as the metrics look at.

        Raises:
            DataError: if the model does not fit the task.
        """
        ranks = max(metric.ranks for metric in self.metrics)
        answers = self._answers(
            model, examples, ranks=ranks, batch_size=asking.batch_size, progress=asking.progress
        )
        rows = [
            (self.shown(index, example), (self.reference(example),), self.length(example))
            for index, example in enumerate(examples)
        ]
        return Answered(
            inputs=[each[0] for each in rows],
            references=[each[1] for each in rows],
            lengths=[each[2] for each in rows],
            answers=answers,
            ranks=ranks,
        )

    def shown(self, index: int, example: Example) -> str:
        """Return what a person is shown of an example, by default its place in the split, from 0."""
        return f"example {index}"

    def reference(self, example: Example) -> str:
        """Return the right answer to an example."""
        return self.labels[int(example.label)]

    def check_model(self, model: PreTrainedModel) -> None:
        """Refuse a model that cannot answer; a subclass adds what it needs.

        Raises:
            DataError: if so.
        """
        self.outputs(model)

    def outputs(self, model: PreTrainedModel) -> Sequence[str]:
        """Return the name that each of the model's logits stands for.

        Raises:
            DataError: if the model has more or fewer labels, or the same ones in another order.
        """
        found = model.config.num_labels
        if found != len(self.labels):
            raise DataError(
                f"Task {self.name} has {len(self.labels)} labels, but the model answers with {found}. Use a "
                f"model that was trained on the task, or train one with num_labels {len(self.labels)}."
            )
        names = [model.config.id2label[index] for index in range(found)]
        if sorted(names) == sorted(self.labels) and names != list(self.labels):
            first = next(i for i, (a, b) in enumerate(zip(names, self.labels, strict=True)) if a != b)
            raise DataError(
                f"Task {self.name}: the model's label {first} is {names[first]!r}, the task's "
                f"{self.labels[first]!r}. Use a model whose id2label has the task's order."
            )
        return self.labels

    def answers(self, model: PreTrainedModel, logits: Tensor) -> list[str]:
        """Return the answers that logits ``[B, labels]`` stand for."""
        names = self.outputs(model)
        return [names[index] for index in logits.argmax(dim=-1).tolist()]

    def _answers(
        self,
        model: PreTrainedModel,
        examples: Sequence[Example],
        *,
        ranks: int,
        batch_size: int,
        progress: Progress | None,
    ) -> list[str]:
        """The answer to each example; if ``ranks`` is more than 1, so many labels joined by line breaks."""
        self.check_model(model)

        def answer(chosen: list[int]) -> list[str]:
            logits = self._logits(model, [examples[index] for index in chosen])
            return self.answers(model, logits) if ranks == 1 else self._ranked(model, logits, ranks)

        lengths = [self.length(example) for example in examples]
        return answers_in_batches(self.name, model, lengths, answer, batch_size=batch_size, progress=progress)

    def _ranked(self, model: PreTrainedModel, logits: Tensor, ranks: int) -> list[str]:
        names = self.outputs(model)
        best = logits.argsort(dim=-1, descending=True, stable=True)[:, :ranks]  # [B, ranks]
        return ["\n".join(names[index] for index in row) for row in best.tolist()]

    @torch.inference_mode()
    def _logits(self, model: PreTrainedModel, examples: Sequence[Example]) -> Tensor:
        inputs = {name: tensor.to(model.device) for name, tensor in self.inputs(examples).items()}
        logits: Tensor = model(**inputs).logits
        return logits
