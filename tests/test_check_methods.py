"""Every rule for methods catches a method that breaks it, and none catches one that keeps them all."""

from __future__ import annotations

import pytest
from wrong_methods_runs import GOOD, WRONG

from prunekit.adapters import prunekit_register_adapters
from prunekit.testing.method_rules import METHOD_RULES
from prunekit.testing.suite import check_plugin

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("module_on_one_thread")]

# Two more than the methods declare, to be refused; not all, to be quick.
ADAPTERS = {
    adapter.name: adapter for adapter in prunekit_register_adapters() if adapter.name in ("bert", "bart")
}


def checked(method):
    return check_plugin(method, on_fail=None, adapters=ADAPTERS)


@pytest.mark.parametrize("method", GOOD, ids=lambda method: method.__name__)
def test_a_method_that_keeps_the_rules_passes_all_that_apply(method):
    outcomes = checked(method)
    assert [(each.rule, each.reason) for each in outcomes if each.state != "passed"] == []
    left_out = {rule.name for rule in METHOD_RULES} - {each.rule for each in outcomes}
    assert left_out == (set() if method.info.data == "calibration" else {"calibrates-on-train"})


@pytest.mark.parametrize("name", WRONG)
def test_a_method_that_breaks_a_rule_is_caught_by_it_and_by_no_other(name):
    method, rules, says = WRONG[name]
    failed = {outcome.rule: outcome.reason for outcome in checked(method) if outcome.state == "failed"}
    assert sorted(failed) == sorted(rules)
    assert says in failed[rules[0]]


def test_every_rule_has_a_method_that_breaks_it():
    assert {rules[0] for _, rules, _ in WRONG.values()} == {rule.name for rule in METHOD_RULES}
