"""The check suite for adapters: the built-in ones keep every rule, and each rule catches a fault."""

from dataclasses import replace

import pytest
import torch
from wrong_adapters import WRONG, one_variant

from prunekit.adapters import prunekit_register_adapters
from prunekit.adapters.bert import BERT
from prunekit.adapters.vit import VIT
from prunekit.testing import CheckFailed, check_adapter, parametrize_with_checks
from prunekit.testing.adapter_rules import ADAPTER_RULES

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

SECONDS = ("bart", "t5", "t5-gated")  # tiny models with a decoder, on which all rules take some ten seconds


@parametrize_with_checks(prunekit_register_adapters())
def test_built_in_adapters_keep_every_rule(check):
    check()


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(fault, marks=[pytest.mark.slow] if set(make().adapter.tiny) & set(SECONDS) else [])
        for fault, make in WRONG.items()
    ],
)
def test_a_wrong_adapter_is_caught_by_its_rule_and_no_other_s(fault):
    wrong = WRONG[fault]()
    failed = [o for o in check_adapter(wrong.adapter, on_fail=None) if o.state == "failed"]
    assert {outcome.rule for outcome in failed} == {wrong.rule, *wrong.others}
    reasons = [outcome.reason for outcome in failed if outcome.rule == wrong.rule]
    assert any(wrong.text in reason for reason in reasons), reasons


def test_every_rule_has_a_wrong_adapter():
    assert {make().rule for make in WRONG.values()} == {rule.name for rule in ADAPTER_RULES}


def test_names_of_rules_are_unique():
    names = [rule.name for rule in ADAPTER_RULES]
    assert len(set(names)) == len(names)


def test_what_does_not_resolve_is_said_once_and_the_other_rules_say_where_to_look():
    wrong = WRONG["a path that leads nowhere"]().adapter
    outcomes = check_adapter(wrong, on_fail=None)
    skipped = {o.rule: o.reason for o in outcomes if o.state == "skipped"}
    assert skipped["masked-equals-pruned"] == (
        "the table does not resolve on BertForSequenceClassification; see every-path-resolves"
    )


def test_every_failure_is_listed_in_the_error():
    wrong = replace(one_variant(VIT, num_hidden_layers=2), summary="")
    with pytest.raises(CheckFailed) as caught:
        check_adapter(wrong, only=["declaration-complete", "tiny-declared"])
    text = str(caught.value)
    assert "- declaration-complete (vit): the summary is ''; write one line" in text
    assert (
        "- tiny-declared (vit): tiny['vit'] has num_hidden_layers = 2 for the encoder; use 3 blocks" in text
    )


def test_an_adapter_that_is_not_installed_leaves_the_auto_classes_as_they_were():
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    from prunekit.pruning.auto import auto_classes, register

    register()
    tables = [CONFIG_MAPPING, *(auto._model_mapping for auto in auto_classes())]
    before = [dict(table._extra_content) for table in tables]
    check_adapter(replace(BERT, name="other-bert"), only=["strict-reload"])
    assert [dict(table._extra_content) for table in tables] == before


@pytest.mark.gpu
def test_rules_hold_on_a_gpu():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    check_adapter(
        BERT, device="cuda", only=["masked-equals-pruned", "strict-reload", "gradients-reach-masks"]
    )
