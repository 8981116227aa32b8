"""Finding plugins and what they register, each one isolated from the others' faults."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, cached_property, partial
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points, version
from typing import TYPE_CHECKING, Any

import pluggy

from prunekit import hookspecs
from prunekit.errors import PluginError
from prunekit.hookspecs import PROJECT, hookimpl
from prunekit.suggest import did_you_mean

if TYPE_CHECKING:
    from prunekit.adapters.base import Adapter
    from prunekit.method import PruningMethod
    from prunekit.tasks.base import Metric, Task

__all__ = [
    "BrokenPlugin",
    "Origin",
    "Registry",
    "Source",
    "get_registry",
    "hookimpl",
    "missing_attribute",
    "plugin_sources",
]

BUILTIN_MODULES = ("prunekit.adapters", "prunekit.tasks")
SELECT = "PRUNEKIT_PLUGINS"

_SINGULAR = {"methods": "method", "adapters": "adapter", "tasks": "task", "metrics": "metric"}

# What other commands read of every item: one without it would break them for all plugins.
_NEEDED = {
    "methods": ("info", "Config"),
    "adapters": ("name", "model_type"),
    "tasks": ("name", "Config"),
    "metrics": ("name",),
}


@dataclass(frozen=True)
class Origin:
    """Where a registered object comes from: the plugin's name, and its distribution with version."""

    plugin: str
    distribution: str


@dataclass(frozen=True)
class Source:
    """A plugin not yet loaded: its name, its distribution with version, the function that imports it."""

    plugin: str
    distribution: str
    load: Callable[[], object]


@dataclass(frozen=True)
class BrokenPlugin:
    """A plugin that could not be loaded or whose hook failed; ``error`` is the exception's type and text."""

    name: str
    distribution: str
    error: str


class Registry:
    """What the plugins registered: ``methods``, ``adapters``, ``tasks`` and ``metrics``, each by name.

    A plugin that fails to load, or whose hook raises, is listed in ``broken`` and leaves the others alone.
    Hooks are called when a kind is first asked for, so listing methods does not import the adapters. An
    implementation is given those of a hook's arguments that it names, so it may be older than some of them.

    Args:
        sources: the plugins to load.

    Attributes:
        origins: for each kind asked for so far, where each name comes from.
        broken: the plugins found broken so far.
    """

    def __init__(self, sources: Iterable[Source]) -> None:
        self.origins: dict[str, dict[str, Origin]] = {}
        self.broken: list[BrokenPlugin] = []
        self._sources: dict[str, Source] = {}
        self._manager = pluggy.PluginManager(PROJECT)
        self._manager.add_hookspecs(hookspecs)
        for source in sources:
            self._load(source)

    @cached_property
    def methods(self) -> dict[str, type[PruningMethod]]:
        """Method classes. Raises PluginError if two plugins register the same name."""
        return self._collect("methods", lambda method: method.info.name)

    @cached_property
    def adapters(self) -> dict[str, Adapter]:
        """Adapters. Raises PluginError if two plugins register the same name."""
        return self._collect("adapters", lambda adapter: adapter.name)

    @cached_property
    def tasks(self) -> dict[str, type[Task]]:
        """Task classes. Raises PluginError if two plugins register the same name."""
        return self._collect("tasks", lambda task: task.name)

    @cached_property
    def metrics(self) -> dict[str, Metric]:
        """Metrics. Raises PluginError if two plugins register the same name."""
        return self._collect("metrics", lambda metric: metric.name)

    def find(self, kind: str, name: str) -> Any:
        """The object of that kind ("methods", "tasks", …) and name.

        Raises:
            PluginError: if nobody registers it; the text is that of ``explain_missing``.
        """
        found = getattr(self, kind)
        if name not in found:
            raise PluginError(f"{self.explain_missing(kind, name)}.")
        return found[name]

    def explain_missing(self, kind: str, name: str) -> str:
        """Why ``name`` is not there: the nearest name, what is installed, which broken plugin may have it."""
        installed = sorted(getattr(self, kind))
        text = f"no {_SINGULAR[kind]} {name!r} is installed{did_you_mean(name, installed)}"
        return f"{text} (installed: {', '.join(installed) or 'none'}){self.broken_note()}"

    def broken_note(self) -> str:
        """What to add to a message about a missing name: the broken plugins, or nothing if there are none."""
        if not self.broken:
            return ""
        listed = "; ".join(f"{entry.name} ({entry.distribution}): {entry.error}" for entry in self.broken)
        return f"; a plugin that may have it is broken: {listed}"

    def _load(self, source: Source) -> None:
        # Two distributions may choose the same entry-point name; pluggy wants unique ones.
        key = f"{source.distribution}: {source.plugin}"
        self._sources[key] = source
        plugin = None
        try:
            plugin = source.load()
            self._manager.register(plugin, key)
            self._manager.check_pending()  # finds misspelt hook names
        except (Exception, SystemExit) as error:
            if plugin is not None and self._manager.get_name(plugin) == key:
                self._manager.unregister(plugin)
            self._mark_broken(source, error)

    def _collect(self, kind: str, name_of: Callable[[Any], str], **arguments: Any) -> dict[str, Any]:
        hook = getattr(self._manager.hook, f"prunekit_register_{kind}")
        found: dict[str, Any] = {}
        origins: dict[str, Origin] = {}
        for implementation in hook.get_hookimpls():
            source = self._sources[implementation.plugin_name]
            try:
                given = {name: arguments[name] for name in implementation.argnames}
                listed = implementation.function(**given)
                if listed is None:
                    raise PluginError(f"{hook.name} returned nothing; let it return a list")
                items = [(_checked_name(kind, item, name_of), item) for item in listed]
            except (Exception, SystemExit) as error:
                self._mark_broken(source, error)
                continue
            for name, item in items:
                if name in origins:
                    raise _duplicate(kind, name, origins[name], source)
                found[name] = item
                origins[name] = Origin(source.plugin, source.distribution)
        self.origins[kind] = dict(sorted(origins.items()))
        return dict(sorted(found.items()))

    def _mark_broken(self, source: Source, error: BaseException) -> None:
        entry = BrokenPlugin(source.plugin, source.distribution, f"{type(error).__name__}: {error}")
        if entry not in self.broken:  # a kind with a duplicate name is collected again at each access
            self.broken.append(entry)


@cache
def get_registry() -> Registry:
    """The registry of prunekit's own and the installed plugins, built at the first call."""
    return Registry(plugin_sources())


def plugin_sources() -> list[Source]:
    """The built-in parts, then the entry points that ``PRUNEKIT_PLUGINS`` (comma separated) leaves in.

    Raises:
        PluginError: if ``PRUNEKIT_PLUGINS`` names an entry point that is not installed.
    """
    own = f"{PROJECT} {version(PROJECT)}"
    sources = [Source(name, own, partial(import_module, name)) for name in BUILTIN_MODULES]
    points = sorted(entry_points(group=PROJECT), key=lambda point: (point.name, point.value))
    wanted = os.environ.get(SELECT)
    if wanted is not None:
        names = {name.strip() for name in wanted.split(",") if name.strip()}
        installed = {point.name for point in points}
        for name in sorted(names - installed):
            hint = did_you_mean(name, installed)
            raise PluginError(
                f"{SELECT}={wanted}: no plugin {name!r}{hint} (installed: {', '.join(sorted(installed))}). "
                f"Correct the list, or unset {SELECT} to load every plugin."
            )
        points = [point for point in points if point.name in names]
    return [*sources, *(Source(point.name, _distribution(point), point.load) for point in points)]


def missing_attribute(kind: str, item: Any) -> str | None:
    """What ``item`` lacks to be one of that kind ("methods", "tasks", …); none if it lacks nothing."""
    return next((name for name in _NEEDED[kind] if not hasattr(item, name)), None)


def _distribution(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "unknown"


def _checked_name(kind: str, item: Any, name_of: Callable[[Any], str]) -> str:
    if lacking := missing_attribute(kind, item):
        raise PluginError(f"{item!r} is no {_SINGULAR[kind]}: it has no {lacking!r}")
    name = name_of(item)
    if not isinstance(name, str) or not name:
        raise PluginError(f"a {_SINGULAR[kind]} is named {name!r}; a name is a text")
    return name


def _duplicate(kind: str, name: str, first: Origin, second: Source) -> PluginError:
    return PluginError(
        f"two plugins register the {_SINGULAR[kind]} {name!r}: {first.plugin} ({first.distribution}) and "
        f"{second.plugin} ({second.distribution}). Uninstall one of the two distributions, "
        f"or list the plugins to load in {SELECT}, for example {SELECT}={second.plugin}."
    )
