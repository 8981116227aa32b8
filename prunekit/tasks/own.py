"""What the tasks on the user's own data share: recipe keys, and metrics by name."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field, field_validator

from prunekit.plugins import get_registry
from prunekit.tasks.base import Metric
from prunekit.tasks.source import DataSpec


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


def find_metrics(names: Sequence[str]) -> tuple[Metric, ...]:
    """Return installed metrics by name.

    Raises:
        PluginError: if there is none of that name.
    """
    return tuple(get_registry().find("metrics", name) for name in names)
