"""Generation on a fake clock: forced, traced and natural calls, and where the time goes."""

import pytest
import torch
from speed_calls import FakeClock, TimedT5, small_spec, timed_t5, tiny

from prunekit.errors import PrunekitError
from prunekit.flops import count_macs
from prunekit.measure.speed import measure_speed, random_inputs

pytestmark = pytest.mark.usefixtures("one_thread")


def test_parts_of_generation_come_out_of_one_forced_call():
    clock, spec = FakeClock(), small_spec(new_tokens=5)
    model = timed_t5(clock)
    result = measure_speed({"dense": model}, random_inputs(model, spec, 0), spec, clock=clock)
    dense = result["models"]["dense"]
    assert dense["median_ms"] == pytest.approx(1.0 + 4.0 + 5 * 2.0 + 0.5)
    medians = {name: part["median_ms"] for name, part in dense["parts"].items()}
    inside = {"encoder": 4.0, "decoder": 5 * 1.5, "lm_head": 5 * 0.25, "rest": 1.0 + 5 * 0.25 + 0.5}
    tokens = {"first_token": 7.0, "per_token": 2.0}
    assert medians == pytest.approx({"traced": 15.5, "natural": 11.5, **inside, **tokens})
    assert sum(inside.values()) == pytest.approx(medians["traced"])
    assert dense["parts"]["natural"]["tokens"] == 3


def test_the_headline_call_carries_no_stamps():
    clock, spec = FakeClock(), small_spec(rounds=1, warmup=0)
    model = timed_t5(clock)
    hooks = []
    model.decoder.register_forward_hook(lambda *_: hooks.append(len(model.decoder._forward_hooks)))
    measure_speed({"dense": model}, random_inputs(model, spec, 0), spec, clock=clock)
    forced, traced, natural = model.calls[:3]
    assert (forced[2], traced[2], natural[2]) == (0, 1, 1)
    assert hooks[:4] == [2] * 4
    assert hooks[4:8] == [3] * 4


def test_without_parts_only_the_headline_call_is_made():
    clock, spec = FakeClock(), small_spec(rounds=1, warmup=0)
    model = timed_t5(clock)
    result = measure_speed({"dense": model}, random_inputs(model, spec, 0), spec, clock=clock, parts=False)
    assert len(model.calls) == 2  # the reference and its twin
    assert "parts" not in result["models"]["dense"]


def test_throughput_and_achieved_flops_follow_from_the_median():
    clock, spec = FakeClock(), small_spec(new_tokens=5)
    model = timed_t5(clock)
    result = measure_speed({"dense": model}, random_inputs(model, spec, 0), spec, clock=clock)
    dense = result["models"]["dense"]
    assert dense["samples_per_s"] == pytest.approx(2 / 0.0155)
    assert dense["tokens_per_s"] == pytest.approx(2 * 5 / 0.0155)
    assert dense["macs"] == dense["achieved_gflops"] == 0  # the fake one multiplies nothing


def test_macs_are_those_of_the_timed_call():
    model, spec = tiny("t5"), small_spec(new_tokens=3)
    inputs = random_inputs(model, spec, 0)
    found = measure_speed({"dense": model}, inputs, spec, parts=False)["models"]["dense"]["macs"]
    shorter = small_spec(new_tokens=2)
    assert found > measure_speed({"dense": model}, inputs, shorter, parts=False)["models"]["dense"]["macs"]
    bert = tiny("bert")
    inputs = random_inputs(bert, spec, 0)
    found = measure_speed({"dense": bert}, inputs, spec)["models"]["dense"]
    assert found["macs"] == count_macs(bert, inputs)
    assert found["achieved_gflops"] == pytest.approx(2 * found["macs"] / found["median_ms"] / 1e6)


def test_one_new_token_has_no_time_per_further_token():
    clock, spec = FakeClock(), small_spec(new_tokens=1)
    model = timed_t5(clock)
    result = measure_speed({"dense": model}, random_inputs(model, spec, 0), spec, clock=clock)
    assert sorted(result["models"]["dense"]["parts"]) == [
        "decoder",
        "encoder",
        "first_token",
        "lm_head",
        "natural",
        "rest",
        "traced",
    ]


def test_forced_and_natural_lengths_differ_only_in_the_minimum():
    clock, spec = FakeClock(), small_spec(new_tokens=5, num_beams=3, rounds=1, warmup=0)
    model = timed_t5(clock)
    inputs = random_inputs(model, spec, 0) | {"labels": torch.ones(2, 3, dtype=torch.long)}
    measure_speed({"dense": model}, inputs, spec, clock=clock)
    (forced, given, _), (traced, _, _), (natural, _, _) = model.calls[:3]
    assert (forced.min_new_tokens, forced.max_new_tokens) == (5, 5)
    assert (traced.min_new_tokens, traced.max_new_tokens) == (5, 5)
    assert (natural.min_new_tokens, natural.max_new_tokens) == (None, 5)
    assert all((config.num_beams, config.do_sample) == (3, False) for config in (forced, natural))
    assert "labels" not in given


def test_a_forced_call_that_ends_early_is_refused():
    class Early(TimedT5):
        def generate(self, generation_config, stopping_criteria=(), **inputs):
            generation_config.min_new_tokens = 3
            return super().generate(generation_config, stopping_criteria, **inputs)

    clock, spec = FakeClock(), small_spec(new_tokens=5)
    model = timed_t5(clock, Early)
    with pytest.raises(PrunekitError, match="generate ran for 3 tokens where 5 were forced"):
        measure_speed({"dense": model}, random_inputs(model, spec, 0), spec, clock=clock)
