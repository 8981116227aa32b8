"""What the tasks on the user's own data share: recipe keys, and metrics by name."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field, field_validator

from prunekit.errors import DataError
from prunekit.plugins import get_registry
from prunekit.tasks.base import Metric
from prunekit.tasks.data.source import DataSpec
from prunekit.tasks.metrics.labels import for_classes


class OwnConfig(BaseModel):
    """Recipe keys of every task on the user's own data; a subclass adds its columns and ``metrics``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: DataSpec = Field(description="where the rows come from")

    @field_validator("metrics", check_fields=False)
    @classmethod
    def _installed(cls, names: list[str] | None) -> list[str] | None:
        # The installed ones, not those of the caller's registry: a Config is made of the recipe alone.
        for name in names or []:
            if name not in get_registry().metrics:
                raise ValueError(get_registry().explain_missing("metrics", name))
        return names


class LabelsConfig(OwnConfig):
    """Recipe keys of the tasks with labels."""

    labels: list[str] | None = Field(
        None,
        min_length=2,
        description="the labels, integers in the data count them; by default those in train",
    )
    positive: str | None = Field(
        None, description="the positive one of two labels, for f1; by default the names tell"
    )

    @field_validator("labels")
    @classmethod
    def _differ(cls, labels: list[str] | None) -> list[str] | None:
        if labels and len(set(labels)) < len(labels):
            raise ValueError(f"labels names a label twice: {', '.join(labels)}")
        return labels


class LabelsOrNumberConfig(LabelsConfig):
    """Recipe keys of the tasks whose label may be a number instead."""

    metrics: list[str] | None = Field(
        None,
        min_length=1,
        description="installed metrics, the first leads; by default accuracy, or pearson and spearman",
    )

    def metric_names(self, *, is_number: bool) -> list[str]:
        """Return the metrics, by default those that fit."""
        return self.metrics or (["pearson", "spearman"] if is_number else ["accuracy"])


def find_metrics(names: Sequence[str]) -> tuple[Metric, ...]:
    """Return installed metrics by name.

    Raises:
        PluginError: if there is none of that name.
        DataError: if one cannot be had here, for want of data or of an endpoint.
    """
    found = tuple(get_registry().find("metrics", name) for name in names)
    for metric in found:
        if metric.check is not None:
            metric.check()
    return found


def class_metrics(
    task: str, metrics: Sequence[Metric], labels: Sequence[str], positive: str | None
) -> tuple[Metric, ...]:
    """Return the metrics for a task of these labels; ``f1`` is told the positive one.

    Raises:
        DataError: if ``f1`` cannot score them; the text names the task.
    """
    try:
        return for_classes(metrics, labels, positive)
    except DataError as error:
        hint = " Or name the positive one under task.positive." if len(labels) == 2 and not positive else ""
        raise DataError(f"Task {task}: {error}{hint}") from error
