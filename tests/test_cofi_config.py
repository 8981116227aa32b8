"""The recipe keys of CoFi."""

import re
from pathlib import Path
from typing import get_args

import pytest
from prunekit_cofi.config import INFO, CofiConfig
from pydantic import ValidationError

from prunekit.training.layers import LayerMatching


def test_the_defaults_are_the_papers_for_bert():
    config = CofiConfig()
    assert (config.layer_weight, config.prediction_weight, config.label_weight) == (0.9, 0.1, 0.0)
    assert (config.layer_matching, config.temperature) == ("top-down", 2.0)
    assert (config.kinds, config.freeze_embeddings) == (INFO.kinds, False)


def test_the_matchings_are_those_of_the_training_package():
    assert get_args(CofiConfig.model_fields["layer_matching"].annotation) == get_args(LayerMatching)


def test_a_configuration_without_any_loss_is_refused():
    with pytest.raises(ValidationError, match=r"label_weight are all 0, .* give one of them a weight"):
        CofiConfig(layer_weight=0, prediction_weight=0)


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        ([], "at least 1 item"),
        (["head", "head", "hidden"], "head stands there more than once"),
        (["block"], "'head', 'neuron', 'sublayer' or 'hidden'"),
    ],
)
def test_kinds_are_some_of_four_each_once(kinds, message):
    with pytest.raises(ValidationError, match=message):
        CofiConfig(kinds=kinds)


def test_some_kinds_can_be_left_out():
    assert CofiConfig(kinds=["head", "neuron"]).kinds == ("head", "neuron")


@pytest.mark.parametrize(
    "keys", [{"layer_weight": -0.1}, {"temperature": 0}, {"kl_direction": "reverse"}, {"layer_matching": "4"}]
)
def test_wrong_keys_and_values_are_refused(keys):
    with pytest.raises(ValidationError):
        CofiConfig(**keys)


def test_the_page_shows_every_key_with_its_default():
    page = (Path(__file__).parents[1] / "docs" / "methods" / "cofi.md").read_text()
    shown = dict(re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", page, re.MULTILINE))
    own = CofiConfig()

    def text(value):
        listed = f"[{', '.join(value)}]" if isinstance(value, tuple) else str(value)
        return listed.replace("True", "true").replace("False", "false")

    assert shown == {key: text(getattr(own, key)) for key in CofiConfig.model_fields}
