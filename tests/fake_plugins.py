"""A plugin with one method and one task, for tests of what stands between a recipe and a method."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from prunekit.hookspecs import hookimpl
from prunekit.plugins import Registry, Source


class TrimConfig(BaseModel):
    model_config = ConfigDict(extra="forbid")

    decoder_layers: int | None = Field(None, ge=1, description="decoder blocks kept")
    warmup_share: float = Field(0.1, ge=0, le=1, description="share of the steps")


class NeedyConfig(BaseModel):
    """Has a required key, and forgets to forbid unknown ones."""

    strength: float = Field(description="how hard to cut")


class EchoConfig(BaseModel):
    model_config = ConfigDict(extra="forbid")

    words: int = Field(5, ge=1, description="words in the data")


@dataclass(frozen=True)
class Info:
    name: str
    summary: str = "cuts [what] is not needed"
    paper: str = "Nobody 2020"
    kinds: tuple[str, ...] = ("head", "neuron")
    model_types: tuple[str, ...] = ("t5",)
    trains: bool = False
    data: str = "none"
    deterministic: bool = True


class Trim:
    info = Info("trim")
    Config = TrimConfig


class Needy:
    info = Info("needy")
    Config = NeedyConfig


class Echo:
    name = "echo"
    Config = EchoConfig


ADAPTER = SimpleNamespace(
    name="t5",
    model_type="t5",
    summary="T5",
    describe=lambda: [{"group": "encoder.*.ffn.neurons", "kind": "neuron", "modules": "wi, wo [gated]"}],
)


def plugin(**lists: Any) -> object:
    """A plugin object; its hooks return the lists given by kind, or call what is callable."""
    return SimpleNamespace(**{f"prunekit_register_{kind}": _hook(items) for kind, items in lists.items()})


def _hook(items: Any) -> Any:
    return hookimpl(lambda: items() if callable(items) else items)


def registry_of(**plugins: object) -> Registry:
    """A registry of plugin objects; each one's distribution is its keyword with ``-dist 1.0`` behind it."""
    return Registry(
        [Source(name, f"{name}-dist 1.0", lambda found=found: found) for name, found in plugins.items()]
    )


def fake_registry() -> Registry:
    """The methods ``trim`` and ``needy``, the task ``echo`` and the adapter ``t5``."""
    return registry_of(fake=plugin(methods=[Trim, Needy], tasks=[Echo], adapters=[ADAPTER]))
