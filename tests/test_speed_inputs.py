"""Random batches: lengths, special tokens, images, and what they say they cannot make."""

import pytest
from speed_calls import small_spec, tiny

from prunekit.errors import PrunekitError, UnsupportedModelError
from prunekit.measure.inputs import random_inputs, shared_inputs


def test_random_token_ids_avoid_special_ids_and_have_the_asked_length():
    spec = small_spec(batch_size=64, input_tokens=20)
    inputs = random_inputs(tiny("bart"), spec, seed=0)
    assert inputs["input_ids"].shape == (64, 20)
    assert inputs["attention_mask"].all()
    assert set(inputs["input_ids"].flatten().tolist()) == set(range(3, 50))  # bos 0, pad 1, eos 2


def test_random_inputs_default_to_64_tokens_or_all_positions():
    assert random_inputs(tiny("t5"), small_spec(), 0)["input_ids"].shape == (2, 64)
    assert random_inputs(tiny("bert"), small_spec(), 0)["input_ids"].shape == (2, 24)


def test_random_images_have_the_models_size_and_follow_the_seed():
    model, spec = tiny("vit"), small_spec()
    images = random_inputs(model, spec, 0)["pixel_values"]
    assert images.shape == (2, 3, 16, 16)
    assert images.equal(random_inputs(model, spec, 0)["pixel_values"])
    assert not images.equal(random_inputs(model, spec, 1)["pixel_values"])


def test_random_inputs_say_what_they_cannot_make():
    with pytest.raises(PrunekitError, match=r"speed.input_tokens = 30, but .* has 24 positions"):
        random_inputs(tiny("bert"), small_spec(input_tokens=30), 0)
    model = tiny("bert")
    model.main_input_name = "input_features"
    with pytest.raises(UnsupportedModelError, match="takes 'input_features'"):
        random_inputs(model, small_spec(), 0)


def test_models_that_are_measured_together_can_all_read_the_batch():
    wide, narrow = tiny("t5"), tiny("bert")
    wide.resize_token_embeddings(500)
    inputs = shared_inputs([wide, narrow], small_spec(batch_size=64))
    assert inputs["input_ids"].max() < 50
