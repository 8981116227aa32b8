"""Speed on a fake clock (exact figures), and real runs of tiny models without asserting a time."""

import json
import logging
import random
from collections import Counter
from itertools import pairwise, repeat

import pytest
import torch
from speed_calls import TINY, FakeClock, measure_bert, small_spec, timed_bert, tiny

from prunekit.errors import PrunekitError
from prunekit.measure.speed import as_pair, measure_speed, random_inputs

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


def test_medians_percentiles_and_samples_are_those_of_the_timed_rounds():
    costs = {"dense": repeat(60.0), "pruned": [999.0, 10.0, 20.0, 30.0, 40.0, 50.0]}
    result, _ = measure_bert(costs, rounds=5, warmup=1)
    pruned = result["models"]["pruned"]
    assert pruned["samples_ms"] == pytest.approx([10.0, 20.0, 30.0, 40.0, 50.0])
    assert (pruned["median_ms"], pruned["p10_ms"], pruned["p90_ms"]) == pytest.approx((30.0, 14.0, 46.0))
    assert pruned["p99_ms"] == pytest.approx(49.6)
    assert pruned["speedup"] == pytest.approx(2.0)


@pytest.mark.parametrize(("cost", "verdict"), [(10.0, "faster"), (40.0, "slower"), (20.0, "no difference")])
def test_verdict_says_which_way_a_clear_difference_goes(cost, verdict):
    result, _ = measure_bert({"dense": repeat(20.0), "pruned": repeat(cost)})
    assert result["models"]["pruned"]["verdict"] == verdict
    assert result["models"]["pruned"]["speedup"] == pytest.approx(20.0 / cost)


def test_a_model_against_itself_is_no_difference():
    noise = random.Random(0)
    clock, spec = FakeClock(), small_spec(rounds=20)
    model = timed_bert(clock, "dense", iter(lambda: noise.uniform(90.0, 110.0), None))
    result = measure_speed({"dense": model, "same": model}, random_inputs(model, spec, 0), spec, clock=clock)
    same = result["models"]["same"]
    assert same["verdict"] == "no difference"
    assert same["speedup_low"] < same["speedup"] < same["speedup_high"]


def test_every_round_runs_the_reference_twice_and_every_other_model_once():
    costs = {name: repeat(1.0) for name in ("dense", "a", "b")}
    _, clock = measure_bert(costs, rounds=7, warmup=1)
    rounds = [clock.log[start : start + 4] for start in range(0, len(clock.log), 4)]
    assert len(rounds) == 8
    assert all(sorted(names) == ["a", "b", "dense", "dense"] for names in rounds)


def test_each_model_follows_each_other_one_equally_often():
    costs = {name: repeat(1.0) for name in ("dense", "a", "b")}
    _, clock = measure_bert(costs, rounds=8, warmup=0)
    rounds = [clock.log[start : start + 4] for start in range(0, len(clock.log), 4)]
    follows = Counter(pair for names in rounds for pair in pairwise(names))
    assert follows["a", "b"] == follows["b", "a"] == 2
    assert {follows["dense", "a"], follows["a", "dense"], follows["dense", "b"], follows["b", "dense"]} == {4}


def test_labels_are_not_passed_on_when_only_forward_is_timed():
    clock, spec = FakeClock(), small_spec()
    model = timed_bert(clock, "dense", repeat(1.0))
    inputs = random_inputs(model, spec, 0) | {"labels": torch.zeros(2, dtype=torch.long)}
    measure_speed({"dense": model}, inputs, spec, clock=clock)
    assert sorted(model.received) == ["attention_mask", "input_ids"]


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("beams", [1, 2])
def test_tiny_models_are_measured_for_real(name, beams):
    model, spec = tiny(name), small_spec(num_beams=beams)
    result = measure_speed({"dense": model, "pruned": tiny(name)}, random_inputs(model, spec, 0), spec)
    assert json.loads(json.dumps(result)) == result
    assert result["mode"] == ("generate" if name in ("t5", "bart") else "forward")
    assert (result["device"], result["dtype"], result["attention"]) == ("cpu", "fp32", "sdpa")
    assert [len(entry["samples_ms"]) for entry in result["models"].values()] == [2, 2]
    assert result["models"]["dense"]["parameters"] == sum(p.numel() for p in model.parameters())
    assert result["models"]["dense"]["peak_mib"] is None


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_generation_settings_of_a_checkpoint_neither_warn_nor_change_the_length(name):
    heard = []
    listener = logging.Handler(logging.WARNING)
    listener.emit = heard.append
    model, spec = tiny(name), small_spec()
    own = model.generation_config
    own.update(max_length=142, min_length=9, early_stopping=True, length_penalty=2.0, num_beams=4)
    own.update(do_sample=True, temperature=0.5, no_repeat_ngram_size=3)
    logging.getLogger("transformers").addHandler(listener)
    try:
        result = measure_speed({"dense": model}, random_inputs(model, spec, 0), spec)
    finally:
        logging.getLogger("transformers").removeHandler(listener)
    assert [record.getMessage() for record in heard] == []
    assert result["models"]["dense"]["parts"]["natural"]["tokens"] <= 4


@pytest.mark.parametrize("name", TINY)
def test_a_model_is_left_exactly_as_it_was(name):
    model, spec = tiny(name), small_spec(dtype="bf16", attention="eager")
    model.train()
    next(model.children()).eval()
    modes = [module.training for module in model.modules()]
    tensors = {key: tensor.clone() for key, tensor in model.state_dict(keep_vars=True).items()}
    own = getattr(model, "generation_config", None)
    result = measure_speed({"dense": model}, random_inputs(model, spec, 0), spec)
    assert (result["dtype"], result["attention"]) == ("bf16", "eager")
    assert [module.training for module in model.modules()] == modes
    assert model.config._attn_implementation == "sdpa"
    assert getattr(model, "generation_config", None) is own
    after = model.state_dict(keep_vars=True)
    assert all(
        after[key].dtype == before.dtype and after[key].equal(before) for key, before in tensors.items()
    )


def test_threads_are_those_asked_for_only_while_measuring():
    result, _ = measure_bert({"dense": repeat(1.0)}, threads=2)
    assert (result["threads"], torch.get_num_threads()) == (2, 1)


def test_a_model_is_restored_when_the_measurement_fails():
    clock, spec = FakeClock(), small_spec(dtype="bf16")
    model = timed_bert(clock, "dense", [1.0])  # the second call finds no cost and raises
    model.train()
    with pytest.raises(StopIteration):
        measure_speed({"dense": model}, random_inputs(model, spec, 0), spec, clock=clock)
    assert model.training
    assert model.dtype == torch.float32


def test_models_that_cannot_be_compared_are_refused():
    spec = small_spec()
    bert, t5 = tiny("bert"), tiny("t5")
    inputs = random_inputs(bert, spec, 0)
    with pytest.raises(PrunekitError, match="no model to measure"):
        measure_speed({}, inputs, spec)
    with pytest.raises(PrunekitError, match="cannot be compared: a by forward, b by generate"):
        measure_speed({"a": bert, "b": t5}, inputs, spec)
    with pytest.raises(PrunekitError, match="one device, cpu or cuda; found a on cpu, b on meta"):
        measure_speed({"a": bert, "b": tiny("bert").to("meta")}, inputs, spec)


def test_more_new_tokens_than_decoder_positions_are_refused():
    spec = small_spec(new_tokens=25)
    model = tiny("bart")
    with pytest.raises(PrunekitError, match=r"speed.new_tokens = 25, but .* has 24 positions"):
        measure_speed({"dense": model}, random_inputs(model, spec, 0), spec)


def test_a_pair_has_the_shape_of_a_run_report():
    costs = {"dense": repeat(20.0), "a": repeat(10.0), "b": repeat(5.0)}
    result, _ = measure_bert(costs)
    pair = as_pair(result, "dense", "b")
    assert (pair["speedup"], pair["verdict"]) == (pytest.approx(4.0), "faster")
    assert pair["dense"]["median_ms"] == pytest.approx(20.0)
    assert pair["pruned"]["median_ms"] == pytest.approx(5.0)
    assert "speedup" not in pair["pruned"]
    with pytest.raises(PrunekitError, match=r"no speedup of 'b' over 'a' .* reference is 'dense'"):
        as_pair(result, "a", "b")


@pytest.mark.gpu
def test_on_cuda_events_time_the_call_and_peak_memory_exceeds_the_weights():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    model, spec = tiny("t5").cuda(), small_spec()
    result = measure_speed({"dense": model}, random_inputs(model, spec, 0), spec)
    dense = result["models"]["dense"]
    assert (result["device"], result["clock"]) == ("cuda", "cuda events")
    assert dense["peak_mib"] > dense["weights_mib"]
