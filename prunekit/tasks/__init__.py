"""Tasks that ship with prunekit, registered through the same hooks as anyone else's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunekit.plugins import hookimpl

if TYPE_CHECKING:
    from prunekit.tasks.base import Metric, Task


@hookimpl
def prunekit_register_tasks() -> list[type[Task]]:
    """Return the task classes."""
    # Imported here so that listing plugins does not load torch.
    from prunekit.tasks.fashion import FashionMNIST
    from prunekit.tasks.g2p import G2P
    from prunekit.tasks.gloss import GlossTask
    from prunekit.tasks.mixture.task import Mixture
    from prunekit.tasks.named import named_tasks
    from prunekit.tasks.own.classification import TextClassification
    from prunekit.tasks.own.images import ImageClassification
    from prunekit.tasks.own.label_words import Text2TextClassification
    from prunekit.tasks.own.question_answering import QuestionAnswering
    from prunekit.tasks.own.text2text import Text2Text

    return [
        G2P,
        GlossTask,
        FashionMNIST,
        TextClassification,
        Text2Text,
        Text2TextClassification,
        ImageClassification,
        QuestionAnswering,
        Mixture,
        *named_tasks(),
    ]


@hookimpl
def prunekit_register_metrics() -> list[Metric]:
    """Return the metrics."""
    from prunekit.tasks.metrics import METRICS

    return list(METRICS)
