"""Tiny models: built from what adapters declare, installed ones and others."""

import pytest
import torch
from wrong_adapters import one_variant

from prunekit.adapters.bert import BERT
from prunekit.adapters.vit import DEIT
from prunekit.errors import PluginError, UnsupportedModelError
from prunekit.testing.tiny import TINY_MODELS, tiny_classes, tiny_inputs, tiny_model


def test_the_built_in_variants_are_listed():
    assert TINY_MODELS == (
        "t5",
        "t5-gated",
        "t5-narrow",
        "bart",
        "bert",
        "vit",
        "deit",
        "deit-distilled",
    )


def test_an_unknown_variant_is_refused_with_the_nearest():
    with pytest.raises(
        PluginError, match=r"no tiny model 't5-gate'; did you mean t5-gated\? \(there are: bart,"
    ):
        tiny_model("t5-gate")


def test_a_variant_of_an_adapter_that_is_not_installed():
    model = tiny_model("bert", adapter=one_variant(BERT, hidden_size=24), changes={"num_labels": 5})
    assert model.classifier.weight.shape == (5, 24)


def test_one_seed_gives_one_model_and_draws_from_no_generator_of_the_process():
    state = torch.get_rng_state()
    first, second, other = (tiny_model("bert", seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["classifier.weight"], other["classifier.weight"])


def test_the_class_that_a_variant_names_comes_first():
    names = [each.__name__ for each in tiny_classes("deit-distilled", DEIT)]
    assert names == ["DeiTForImageClassificationWithTeacher", "DeiTForImageClassification", "DeiTModel"]


def test_a_class_that_the_auto_classes_do_not_have_is_refused():
    wrong = one_variant(DEIT, "deit", architectures=["DeiTForImageClassifcation"])
    with pytest.raises(UnsupportedModelError) as caught:
        tiny_classes("deit", wrong)
    assert str(caught.value) == (
        "tiny['deit'] of the deit adapter names the class DeiTForImageClassifcation; the Auto classes have "
        "DeiTForImageClassification, DeiTForImageClassificationWithTeacher, DeiTModel; did you mean "
        "DeiTForImageClassification?"
    )


def test_padding_has_the_padding_s_id():
    model = tiny_model("bert", changes={"pad_token_id": 5})
    inputs = tiny_inputs(model)
    assert inputs["input_ids"][0, -2:].tolist() == [5, 5]
    assert inputs["attention_mask"][0].tolist() == [1, 1, 1, 1, 1, 0, 0]
