from __future__ import annotations

from functools import partial
from importlib.metadata import EntryPoint
from types import SimpleNamespace

import pytest
from fake_plugins import ADAPTER, Echo, Needy, Trim, fake_registry, plugin, registry_of

from prunekit import hookspecs, plugins
from prunekit.errors import PluginError
from prunekit.plugins import BrokenPlugin, Registry, Source, hookimpl


def test_registered_classes_are_found_by_name():
    registry = fake_registry()
    assert registry.methods == {"needy": Needy, "trim": Trim}
    assert registry.tasks == {"echo": Echo}
    assert registry.adapters == {"t5": ADAPTER}
    assert registry.metrics == {}


def test_origins_tell_plugin_and_distribution():
    registry = fake_registry()
    registry.methods  # noqa: B018  (origins are known for the kinds asked for)
    assert registry.origins["methods"]["trim"] == plugins.Origin("fake", "fake-dist 1.0")


def test_a_plugin_that_fails_to_import_is_listed_and_leaves_the_others_alone():
    def load():
        raise ImportError("No module named 'nowhere'")

    good = Source("good", "good-dist 1.0", lambda: plugin(methods=[Trim]))
    registry = Registry([Source("bad", "bad-dist 2.0", load), good])
    assert registry.methods == {"trim": Trim}
    assert registry.broken == [BrokenPlugin("bad", "bad-dist 2.0", "ImportError: No module named 'nowhere'")]


def test_a_plugin_that_exits_on_import_is_only_broken():
    registry = Registry([Source("bad", "bad-dist 2.0", lambda: exit(3))])
    assert registry.methods == {}
    assert registry.broken == [BrokenPlugin("bad", "bad-dist 2.0", "SystemExit: 3")]


def test_a_hook_that_raises_is_listed_and_leaves_the_others_alone():
    def fail():
        raise RuntimeError("no licence")

    registry = registry_of(bad=plugin(methods=fail, tasks=[Echo]), good=plugin(methods=[Trim]))
    assert registry.methods == {"trim": Trim}
    assert registry.tasks == {"echo": Echo}
    assert registry.broken == [BrokenPlugin("bad", "bad-dist 1.0", "RuntimeError: no licence")]


@pytest.mark.parametrize(
    ("listed", "error"),
    [
        ([Trim, object], "<class 'object'> is no method: it has no 'info'"),
        ([SimpleNamespace(info=Trim.info)], "is no method: it has no 'Config'"),
        (
            [SimpleNamespace(info=SimpleNamespace(name=7), Config=None)],
            "a method is named 7; a name is a text",
        ),
        (None, "prunekit_register_methods returned nothing; let it return a list"),
    ],
    ids=["no-info", "no-config", "no-text", "no-list"],
)
def test_what_is_no_method_makes_its_plugin_broken_and_no_other(listed, error):
    registry = registry_of(bad=plugin(methods=lambda: listed), good=plugin(methods=[Needy]))
    assert registry.methods == {"needy": Needy}
    assert error in registry.broken[0].error


def test_a_misspelt_hook_makes_its_plugin_broken():
    bad = SimpleNamespace(prunekit_register_method=hookimpl(lambda: [Trim]))
    registry = registry_of(bad=bad, good=plugin(methods=[Needy]))
    assert registry.methods == {"needy": Needy}
    assert "unknown hook 'prunekit_register_method'" in registry.broken[0].error


def test_a_hook_with_arguments_of_its_own_makes_its_plugin_broken():
    bad = SimpleNamespace(prunekit_register_methods=hookimpl(lambda colour: [Trim]))
    registry = registry_of(bad=bad)
    assert registry.methods == {}
    assert "colour" in registry.broken[0].error


class GrownHooks:
    """The hooks of some later version, in which the first one passes two arguments."""

    @staticmethod
    @hookspecs.hookspec
    def prunekit_register_methods(device, precision):
        raise NotImplementedError


class GrownRegistry(Registry):
    @property
    def methods(self):
        return self._collect("methods", lambda method: method.info.name, device="cuda", precision="bf16")


def test_a_hook_that_has_grown_gives_each_plugin_the_arguments_that_it_names(monkeypatch):
    seen = {}

    def written_for_none():
        return [Trim]

    def written_for_one(precision):
        seen["one"] = precision
        return [Needy]

    def written_for_both(precision, device):
        seen["both"] = (precision, device)
        return []

    monkeypatch.setattr(plugins, "hookspecs", GrownHooks)
    registry = GrownRegistry(
        Source(hook.__name__, "dist 1.0", partial(SimpleNamespace, prunekit_register_methods=hookimpl(hook)))
        for hook in (written_for_none, written_for_one, written_for_both)
    )
    assert registry.methods == {"needy": Needy, "trim": Trim}
    assert seen == {"one": "bf16", "both": ("bf16", "cuda")}


def test_a_duplicate_name_names_both_distributions_when_that_kind_is_asked_for():
    registry = registry_of(one=plugin(methods=[Trim], tasks=[Echo]), two=plugin(methods=[Trim]))
    assert registry.tasks == {"echo": Echo}
    with pytest.raises(PluginError) as caught:
        registry.methods  # noqa: B018
    text = str(caught.value)
    assert "two plugins register the method 'trim'" in text
    assert "one (one-dist 1.0)" in text
    assert "two (two-dist 1.0)" in text
    assert "Uninstall one" in text


def test_an_unknown_name_is_answered_with_the_nearest_and_all_installed():
    with pytest.raises(PluginError, match=r"no method 'trym' is installed; did you mean trim\?") as caught:
        fake_registry().find("methods", "trym")
    assert "(installed: needy, trim)" in str(caught.value)


def test_an_unknown_name_mentions_the_broken_plugin_that_may_have_it():
    def load():
        raise ImportError("No module named 'nowhere'")

    registry = Registry([Source("cofi", "cofi-dist 2.0", load)])
    with pytest.raises(PluginError) as caught:
        registry.find("methods", "cofi")
    assert "may have it is broken: cofi (cofi-dist 2.0): ImportError: No module named 'nowhere'" in str(
        caught.value
    )


def _entry_point(name: str) -> EntryPoint:
    return EntryPoint(name=name, value=f"prunekit_{name}", group="prunekit")


@pytest.fixture
def installed(monkeypatch):
    points = [_entry_point("nash"), _entry_point("cofi")]
    monkeypatch.setattr(plugins, "entry_points", lambda group: points)
    monkeypatch.delenv(plugins.SELECT, raising=False)


def _names() -> list[str]:
    return [source.plugin for source in plugins.plugin_sources()]


@pytest.mark.usefixtures("installed")
def test_all_entry_points_load_behind_the_built_in_parts():
    assert _names() == ["prunekit.adapters", "prunekit.tasks", "cofi", "nash"]


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("value", "expected"), [("cofi", ["cofi"]), ("nash, cofi", ["cofi", "nash"]), ("", [])]
)
def test_the_environment_selects_entry_points(monkeypatch, value, expected):
    monkeypatch.setenv("PRUNEKIT_PLUGINS", value)
    assert _names()[2:] == expected


@pytest.mark.usefixtures("installed")
def test_the_environment_may_not_name_what_is_not_installed(monkeypatch):
    monkeypatch.setenv("PRUNEKIT_PLUGINS", "nash,coffi")
    with pytest.raises(
        PluginError, match=r"no plugin 'coffi'; did you mean cofi\? \(installed: cofi, nash\)"
    ):
        plugins.plugin_sources()


def test_the_registry_is_built_once():
    assert plugins.get_registry() is plugins.get_registry()


def test_nothing_that_ships_is_broken():
    registry = Registry(plugins.plugin_sources())
    for kind in ("methods", "adapters", "tasks", "metrics"):
        assert isinstance(getattr(registry, kind), dict)
    assert registry.broken == []
