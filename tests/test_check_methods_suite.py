"""What the suite makes of rules that hold, fail, cannot say, or are known to fail."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from wrong_methods import INFO, Good, RemovesTooMuch
from wrong_methods_runs import LeavesAHook, SeedsTorch

from prunekit.adapters import prunekit_register_adapters
from prunekit.errors import PluginError, UnsupportedModelError
from prunekit.pruning.target import PrunableModel
from prunekit.testing import CheckFailed, CheckWarning, check_plugin, parametrize_with_checks, tiny_model
from prunekit.testing.method_rules import METHOD_RULES
from prunekit.testing.outcome import NotApplicable
from prunekit.testing.rules import Case, Rule, cases
from prunekit.testing.suite import run_cases

pytestmark = pytest.mark.usefixtures("module_on_one_thread")

ADAPTERS = {adapter.name: adapter for adapter in prunekit_register_adapters() if adapter.name == "bert"}


class Subject:
    """Stands for a plugin."""

    def __init__(self, model="", exceptions=None):
        self.name, self.model, self.module = "toy", model, __name__
        self.exceptions = exceptions or {}


def fails(subject):
    raise CheckFailed("expected 1, found 2; add one")


def crashes(subject):
    return {}["encoder"]


def cannot_say(subject):
    raise NotApplicable("there is no decoder")


def interrupts(subject):
    raise KeyboardInterrupt


def rule(check, name="toy-rule", **options):
    return Rule(name, "what holds", check, **options)


def outcome_of(check, *, expected=None):
    return Case(rule(check), Subject("bert"), expected).run()


def checked(method, **options):
    return check_plugin(method, adapters=ADAPTERS, **options)


def test_a_rule_that_holds_is_passed():
    outcome = outcome_of(lambda subject: None)
    assert (outcome.rule, outcome.subject, outcome.model, outcome.state, outcome.reason) == (
        "toy-rule",
        "toy",
        "bert",
        "passed",
        "",
    )


def test_a_failure_gives_the_text_of_the_rule():
    outcome = outcome_of(fails)
    assert (outcome.state, outcome.reason) == ("failed", "expected 1, found 2; add one")


def test_an_exception_is_a_failure_with_its_type_text_and_place():
    outcome = outcome_of(crashes)
    assert outcome.state == "failed"
    assert outcome.reason.startswith("KeyError: 'encoder' (raised in tests/test_check_methods_suite.py:")
    assert outcome.reason.endswith(", crashes)")


def test_an_exception_from_elsewhere_says_that_it_is_not_the_plugins():
    outcome = Case(rule(lambda subject: torch.zeros(1).reshape(2)), SubjectElsewhere(), None).run()
    assert outcome.reason.endswith("not in the plugin's own files)")


class SubjectElsewhere(Subject):
    def __init__(self):
        super().__init__()
        self.module = "json"


def test_a_rule_that_cannot_say_anything_is_skipped():
    outcome = outcome_of(cannot_say)
    assert (outcome.state, outcome.reason) == ("skipped", "there is no decoder")


def test_a_failure_that_was_expected_is_told_with_its_reason():
    outcome = outcome_of(fails, expected="it is known")
    assert (outcome.state, outcome.reason) == ("expected", "it is known")


def test_an_expected_failure_that_holds_is_a_failure():
    outcome = outcome_of(lambda subject: None, expected="it is known")
    assert outcome.state == "failed"
    assert "it holds, but was expected not to (it is known). Remove 'toy-rule' from" in outcome.reason


def test_an_interruption_passes_through():
    with pytest.raises(KeyboardInterrupt):
        outcome_of(interrupts)


def test_what_a_rule_leaves_behind_reaches_no_other():
    state = torch.get_rng_state()
    outcome_of(lambda subject: (torch.manual_seed(3), torch.set_grad_enabled(False)))
    assert torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), state)


def test_rules_about_the_plugin_are_tried_once_and_the_others_on_every_model():
    rules = [rule(fails, "whole", of="plugin"), rule(fails, "each")]
    found = cases(rules, [Subject(), Subject("bert"), Subject("t5")])
    assert [case.title for case in found] == ["toy-whole", "toy-bert-each", "toy-t5-each"]


def test_rules_that_do_not_apply_are_left_out():
    assert list(cases([rule(fails, applies=lambda subject: False)], [Subject("bert")])) == []


def test_what_the_caller_expects_goes_before_what_the_plugin_declares():
    subject = Subject("bert", {"toy-rule": "the plugin's reason"})
    (declared,) = cases([rule(fails)], [subject])
    (given,) = cases([rule(fails)], [subject], {"toy-rule": "the caller's"})
    assert (declared.expected, given.expected) == ("the plugin's reason", "the caller's")


@pytest.mark.parametrize(
    "options", [{"expected_failures": {"budget-meet": "why"}}, {"only": ["budget-meet"]}]
)
def test_an_unknown_rule_is_refused_with_the_nearest_name(options):
    with pytest.raises(PluginError, match=r"there is no rule 'budget-meet'; did you mean budget-met\?"):
        checked(Good, **options)


def test_an_unknown_model_is_refused_with_those_there_are():
    with pytest.raises(
        PluginError, match=r"no tiny model 'brt' to try it on; did you mean bert\? \(models: bert\)"
    ):
        checked(Good, models=["brt"])


def test_all_failures_are_listed_in_one_error():
    with pytest.raises(CheckFailed) as failure:
        checked(RemovesTooMuch)
    text = str(failure.value)
    assert text.startswith("2 of ")
    assert "- budget-met (last-units, bert): of " in text
    assert "- scope-respected (last-units, bert): of " in text
    assert text.endswith("docs/checks.md.")


def test_failures_can_be_warned_of():
    with pytest.warns(CheckWarning, match=r"leaves-rng \(last-units, bert\): planning drew from, or seeded"):
        outcomes = checked(SeedsTorch, only=["leaves-rng"], on_fail="warn")
    assert [outcome.state for outcome in outcomes] == ["failed"]


def test_outcomes_are_told_as_they_come():
    seen = []
    outcomes = checked(
        LeavesAHook, only=["leaves-no-hooks", "leaves-rng"], on_fail=None, progress=seen.append
    )
    assert seen == outcomes
    assert [(outcome.rule, outcome.state) for outcome in seen] == [
        ("leaves-no-hooks", "failed"),
        ("leaves-rng", "passed"),
    ]


def test_an_expected_failure_lets_the_method_pass():
    (outcome,) = checked(SeedsTorch, only=["leaves-rng"], expected_failures={"leaves-rng": "by design"})
    assert (outcome.state, outcome.reason) == ("expected", "by design")


def test_an_exception_that_the_method_declares_lets_it_pass():
    class Declared(SeedsTorch):
        info = replace(INFO, exceptions={"leaves-rng": "by design"})

    (outcome,) = checked(Declared, only=["leaves-rng"])
    assert outcome.state == "expected"


def test_failures_in_planning_are_told_once():
    class Fails(Good):
        def cut(self, target, task, budget, trainer):
            raise RuntimeError("no")

    outcomes = checked(Fails, on_fail=None, models=["bert"])
    assert {outcome.state for outcome in outcomes if outcome.rule != "plan-runs"} == {"skipped"}
    assert {outcome.reason for outcome in outcomes if outcome.rule != "plan-runs"} == {
        "planning failed: see plan-runs"
    }


def parameters_of(mark):
    assert mark.name == "parametrize"
    name, values = mark.args
    assert name == "check"
    return {value.id: value for value in values}


def test_pytest_gets_a_test_for_every_rule_and_model():
    found = parameters_of(parametrize_with_checks([Good]))
    assert "last-units-config-defaults" in found
    assert "last-units-bert-same-seed-same-plan" in found
    assert len(found) == len(METHOD_RULES) - 1  # it does not calibrate


def test_pytests_values_are_called_without_an_argument():
    found = parameters_of(parametrize_with_checks([Good]))
    (check,) = found["last-units-config-defaults"].values
    check()


def test_pytest_is_told_which_tests_must_fail():
    found = parameters_of(parametrize_with_checks([Good], expected_failures={"leaves-rng": "by design"}))
    (mark,) = found["last-units-bert-leaves-rng"].marks
    assert (mark.name, mark.kwargs) == ("xfail", {"reason": "by design", "strict": True})


def test_pytest_skips_what_cannot_be_said():
    class Whole(Good):
        def cut(self, target, task, budget, trainer):
            raise RuntimeError("no")

    (check,) = parameters_of(parametrize_with_checks([Whole]))["last-units-bert-scope-respected"].values
    with pytest.raises(pytest.skip.Exception, match="planning failed"):
        check()


def test_a_method_for_any_architecture_is_tried_on_all():
    class Anywhere(Good):
        info = replace(INFO, model_types=("*",))

    outcomes = check_plugin(Anywhere, on_fail=None, only=["plan-runs"])
    assert {"bart", "bert", "deit", "t5", "vit"} <= {o.model for o in outcomes if o.state == "passed"}


def test_a_method_for_any_architecture_may_refuse_one():
    class Choosy(Good):
        info = replace(INFO, model_types=("*",))

        def cut(self, target, task, budget, trainer):
            raise UnsupportedModelError("it has no decoder.")

    (outcome,) = checked(Choosy, only=["plan-runs"])
    assert (outcome.state, outcome.reason) == (
        "skipped",
        "it works on any architecture that it can, and refuses this one: it has no decoder.",
    )


def test_an_undeclared_architecture_is_refused_by_name():
    (adapter,) = [each for each in prunekit_register_adapters() if each.name == "t5"]
    with pytest.raises(UnsupportedModelError) as failure:
        INFO.check_model(PrunableModel(tiny_model("t5"), adapter))
    assert str(failure.value) == (
        "last-units does not work on T5ForConditionalGeneration (t5): it is for bert. `prunekit methods "
        "list` shows what works on what."
    )


def test_the_suite_is_imported_without_torch():
    code = "import sys, prunekit.testing.suite; from prunekit.testing import check_plugin, Outcome; "
    code += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_nothing_failed_means_nothing_raised():
    assert run_cases([]) == []
