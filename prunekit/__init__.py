"""prunekit: structured pruning of transformer models.

Importing this package lets plain ``AutoModelFor….from_pretrained(folder)`` load pruned checkpoints. It
imports neither torch nor transformers itself: the pruned model types are registered with transformers' Auto
classes when ``AutoConfig`` is first used.
"""

from importlib.metadata import version
from typing import Any

import wrapt

__version__ = version("prunekit")


def _after_registration(wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
    from prunekit.pruning.auto import register

    register()
    return wrapped(*args, **kwargs)


@wrapt.when_imported("transformers.models.auto.configuration_auto")
def _on_import(module: Any) -> None:
    # Registering right here would import model files while transformers is still being imported.
    wrapt.wrap_function_wrapper(module, "AutoConfig.from_pretrained", _after_registration)
    wrapt.wrap_function_wrapper(module, "AutoConfig.for_model", _after_registration)
