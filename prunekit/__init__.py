"""prunekit: structured pruning of transformer models.

The names of ``__all__`` are the everyday API; each is imported when it is first used. Importing this package
lets plain ``AutoModelFor….from_pretrained(folder)`` load pruned checkpoints. It
imports neither torch nor transformers itself: the pruned model types are registered with transformers' Auto
classes when ``AutoConfig`` is first used.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import wrapt

if TYPE_CHECKING:
    from prunekit.api import apply_plan, compare, evaluate, measure_speed, prune
    from prunekit.models import load_model
    from prunekit.pruning.plan import PruningPlan
    from prunekit.pruning.target import PrunableModel
    from prunekit.recipe import load_recipe

__all__ = [
    "PrunableModel",
    "PruningPlan",
    "apply_plan",
    "compare",
    "evaluate",
    "load_model",
    "load_recipe",
    "measure_speed",
    "prune",
]

__version__ = version("prunekit")

_HOMES = {
    **dict.fromkeys(("apply_plan", "compare", "evaluate", "measure_speed", "prune"), "prunekit.api"),
    "PrunableModel": "prunekit.pruning.target",
    "PruningPlan": "prunekit.pruning.plan",
    "load_model": "prunekit.models",
    "load_recipe": "prunekit.recipe",
}


if not TYPE_CHECKING:  # or a type checker would take every misspelt name for one of these

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            from prunekit.suggest import did_you_mean

            raise AttributeError(f"module 'prunekit' has no attribute {name!r}{did_you_mean(name, __all__)}")
        return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _after_registration(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
    from prunekit.pruning.auto import register

    register()
    return wrapped(*args, **kwargs)


@wrapt.when_imported("transformers.models.auto.configuration_auto")
def _on_import(module: Any) -> None:
    # Registering right here would import model files while transformers is still being imported.
    wrapt.wrap_function_wrapper(module, "AutoConfig.from_pretrained", _after_registration)
    wrapt.wrap_function_wrapper(module, "AutoConfig.for_model", _after_registration)
