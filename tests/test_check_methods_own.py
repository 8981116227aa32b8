"""prunekit's own methods keep the rules that it asks others to keep."""

from __future__ import annotations

import pytest

from prunekit.plugins import Registry, plugin_sources
from prunekit.testing import parametrize_with_checks

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("module_on_one_thread")]

OWN = Registry([source for source in plugin_sources() if source.distribution.split()[0] == "prunekit"])


@parametrize_with_checks(OWN.methods.values())
def test_own_methods(check):
    check()


def test_only_nash_declares_an_exception():
    assert {
        name: set(method.info.exceptions) for name, method in OWN.methods.items() if method.info.exceptions
    } == {"nash": {"scope-respected"}}
