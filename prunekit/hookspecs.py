"""The hooks: everything a plugin can add to prunekit.

A plugin is an importable module (or any object) with functions marked ``@hookimpl`` and named as below,
announced by an entry point of the group ``prunekit``. prunekit's own adapters, tasks and metrics come through
the same hooks. A hook lists things and does nothing else; keep heavy imports (torch, transformers) out of the
plugin's top level, so that ``prunekit methods list`` stays quick.

Hooks grow by keyword: a later version may pass arguments that this one does not, and an implementation is
given those that it names. So one written today keeps working, and an argument is never renamed or taken away.
What a hook returns grows likewise: ``MethodInfo``, ``Adapter`` and ``Metric`` by fields with defaults,
``Task`` by attributes that are optional.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from prunekit.adapters.base import Adapter
    from prunekit.method import PruningMethod
    from prunekit.tasks.base import Metric, Task

PROJECT = "prunekit"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a plugin's function as the implementation of the hook of that name."""


@hookspec
def prunekit_register_methods() -> list[type[PruningMethod]]:
    """Pruning methods, as classes; called once, when the first method is looked up.

    A class carries ``info`` (its name is what recipes say) and ``Config`` (a pydantic model: the keys that
    its recipe entry takes).
    """
    raise NotImplementedError


@hookspec
def prunekit_register_adapters() -> list[Adapter]:
    """Adapters, one an architecture; called once, when the first model is opened for pruning.

    An adapter is found by its ``model_type``, the one in the model's ``config.json``.
    """
    raise NotImplementedError


@hookspec
def prunekit_register_tasks() -> list[type[Task]]:
    """Tasks (data, loss and evaluation), as classes; called once, when the first task is looked up.

    A class carries ``name`` (what recipes say) and ``Config`` (a pydantic model: the further keys of
    ``task:``).
    """
    raise NotImplementedError


@hookspec
def prunekit_register_metrics() -> list[Metric]:
    """Text metrics that tasks can be told to report; called once, when the first metric is looked up."""
    raise NotImplementedError
