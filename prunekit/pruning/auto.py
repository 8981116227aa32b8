"""Registration of the pruned model types with transformers' Auto classes."""

from __future__ import annotations

from functools import cache
from typing import Any

from prunekit.adapters.base import Adapter
from prunekit.errors import PluginError
from prunekit.plugins import get_registry
from prunekit.pruning.checkpoint import pruned_class, pruned_config_class


def register() -> None:
    """Make ``AutoConfig`` and every Auto model class that knows a stock architecture know its pruned twin."""
    pruned_classes()


@cache
def pruned_classes() -> dict[str, type[Any]]:
    """Every pruned model class by name, registered with the Auto classes when first asked for."""
    classes: dict[str, type[Any]] = {}
    for adapter in _adapters():
        classes.update(register_adapter(adapter))
    return classes


def register_adapter(adapter: Adapter) -> dict[str, type[Any]]:
    """Make the Auto classes know one adapter's pruned type; the pruned model classes, by name."""
    from transformers import AutoConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    AutoConfig.register(adapter.pruned_type, pruned_config_class(adapter), exist_ok=True)
    stock_config, pruned_config = CONFIG_MAPPING[adapter.model_type], pruned_config_class(adapter)
    classes = {}
    for auto in auto_classes():
        pruned = tuple(pruned_class(stock, adapter) for stock in _choices(auto, stock_config))
        if pruned:
            # Of several classes an Auto class takes the one that the checkpoint names.
            auto.register(pruned_config, pruned[0] if len(pruned) == 1 else pruned, exist_ok=True)
            classes.update({each.__name__: each for each in pruned})
    return classes


def auto_classes() -> list[Any]:
    """The Auto classes of transformers for models."""
    from transformers.models.auto import modeling_auto

    return [
        auto
        for auto in vars(modeling_auto).values()
        if isinstance(auto, type) and getattr(auto, "_model_mapping", None)
    ]


def choices(auto_class: str, config_class: type[Any]) -> tuple[Any, ...]:
    """The model classes, pruned ones included, that an Auto class has for a config class: none or several."""
    from transformers.models.auto import modeling_auto

    register()
    return _choices(getattr(modeling_auto, auto_class), config_class)


def _choices(auto: Any, config_class: type[Any]) -> tuple[Any, ...]:
    """The model classes that an Auto class has for a config class: none, one or several."""
    found = auto._model_mapping.get(config_class, ())
    return found if isinstance(found, tuple) else (found,)


def _adapters() -> tuple[Adapter, ...]:
    try:
        return tuple(get_registry().adapters.values())
    except PluginError:
        # Two plugins claim one name: commands say so; loading other models must not fail for it.
        return ()
