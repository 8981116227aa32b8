"""Speed on a fake clock (exact figures), and real runs of tiny models without asserting a time."""

import json
import logging
import random
from collections import Counter
from itertools import pairwise, repeat

import pytest
import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForSequenceClassification,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTForImageClassification,
)

from prunekit.errors import PrunekitError, UnsupportedModelError
from prunekit.measure.speed import as_pair, measure_speed, random_inputs
from prunekit.recipe import SpeedSpec

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = {"vocab_size": 50, "max_position_embeddings": 24}
LAYERS = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
STACK = {"layers": 2, "attention_heads": 2, "ffn_dim": 32}
STACKS = {f"{stack}_{name}": size for stack in ("encoder", "decoder") for name, size in STACK.items()}
BERT = BertConfig(**SMALL, **LAYERS)
VIT = ViTConfig(**LAYERS, image_size=16, patch_size=8)
BART = BartConfig(**SMALL, **STACKS, d_model=16)
T5 = T5Config(vocab_size=50, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, decoder_start_token_id=0)
TINY = {
    "t5": (T5ForConditionalGeneration, T5),
    "bart": (BartForConditionalGeneration, BART),
    "bert": (BertForSequenceClassification, BERT),
    "vit": (ViTForImageClassification, VIT),
}


def tiny(name):
    model_class, config = TINY[name]
    torch.manual_seed(0)
    return model_class(config)


def small_spec(**changes):
    return SpeedSpec(**{"batch_size": 2, "num_beams": 1, "new_tokens": 4, "rounds": 2, "warmup": 1} | changes)


class FakeClock:
    """A clock that moves only when told to; remembers who moved it."""

    def __init__(self):
        self.seconds = 0.0
        self.log = []

    def __call__(self):
        return self.seconds

    def spend(self, milliseconds, who=None):
        self.seconds += milliseconds / 1000.0
        if who:
            self.log.append(who)


class TimedBert(BertForSequenceClassification):
    """Its forward takes the next of the given costs."""

    def forward(self, **inputs):
        self.received = inputs
        self.clock.spend(next(self.costs), self.name)


def timed_bert(clock, name, costs):
    model = TimedBert(BERT)
    model.clock, model.name, model.costs = clock, name, iter(costs)
    return model


class TimedT5(T5ForConditionalGeneration):
    """Generates in fake time: set-up 1 ms, encoder 4 ms, a token 2 ms, tidying 0.5 ms; ends after 3."""

    def generate(self, generation_config, stopping_criteria, **inputs):
        self.calls.append((generation_config, inputs))
        self.clock.spend(1.0)
        self.encoder(input_ids=inputs["input_ids"])
        for _ in range(generation_config.min_new_tokens or 3):
            self.clock.spend(2.0)
            stopping_criteria(inputs["input_ids"], None)
        self.clock.spend(0.5)


def timed_t5(clock):
    model = TimedT5(T5)
    model.clock, model.calls = clock, []
    model.encoder.register_forward_hook(lambda *_: clock.spend(4.0))
    return model


def measure_bert(costs, **changes):
    clock, spec = FakeClock(), small_spec(**changes)
    models = {name: timed_bert(clock, name, of_model) for name, of_model in costs.items()}
    inputs = random_inputs(models["dense"], spec, seed=0)
    return measure_speed(models, inputs, spec, clock=clock), clock


def test_medians_percentiles_and_samples_are_those_of_the_timed_rounds():
    costs = {"dense": repeat(60.0), "pruned": [999.0, 10.0, 20.0, 30.0, 40.0, 50.0]}
    result, _ = measure_bert(costs, rounds=5, warmup=1)
    pruned = result["models"]["pruned"]
    assert pruned["samples_ms"] == pytest.approx([10.0, 20.0, 30.0, 40.0, 50.0])
    assert (pruned["median_ms"], pruned["p10_ms"], pruned["p90_ms"]) == pytest.approx((30.0, 14.0, 46.0))
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


def test_parts_of_generation_come_out_of_one_forced_call():
    clock, spec = FakeClock(), small_spec(new_tokens=5)
    model = timed_t5(clock)
    result = measure_speed({"dense": model}, random_inputs(model, spec, 0), spec, clock=clock)
    dense = result["models"]["dense"]
    assert dense["median_ms"] == pytest.approx(1.0 + 4.0 + 5 * 2.0 + 0.5)
    medians = {name: part["median_ms"] for name, part in dense["parts"].items()}
    assert medians == pytest.approx({"natural": 11.5, "encoder": 4.0, "first_token": 7.0, "per_token": 2.0})
    assert dense["parts"]["natural"]["tokens"] == 3


def test_one_new_token_has_no_time_per_further_token():
    clock, spec = FakeClock(), small_spec(new_tokens=1)
    model = timed_t5(clock)
    result = measure_speed({"dense": model}, random_inputs(model, spec, 0), spec, clock=clock)
    assert sorted(result["models"]["dense"]["parts"]) == ["encoder", "first_token", "natural"]


def test_forced_and_natural_lengths_differ_only_in_the_minimum():
    clock, spec = FakeClock(), small_spec(new_tokens=5, num_beams=3, rounds=1, warmup=0)
    model = timed_t5(clock)
    inputs = random_inputs(model, spec, 0) | {"labels": torch.ones(2, 3, dtype=torch.long)}
    measure_speed({"dense": model}, inputs, spec, clock=clock)
    (forced, given), (natural, _) = model.calls[:2]
    assert (forced.min_new_tokens, forced.max_new_tokens) == (5, 5)
    assert (natural.min_new_tokens, natural.max_new_tokens) == (None, 5)
    assert all((config.num_beams, config.do_sample) == (3, False) for config in (forced, natural))
    assert "labels" not in given


def test_a_forced_call_that_ends_early_is_refused():
    class Early(TimedT5):
        def generate(self, generation_config, stopping_criteria, **inputs):
            generation_config.min_new_tokens = 3
            super().generate(generation_config, stopping_criteria, **inputs)

    clock, spec = FakeClock(), small_spec(new_tokens=5)
    model = Early(T5)
    model.clock, model.calls = clock, []
    with pytest.raises(PrunekitError, match="generate ran for 3 tokens where 5 were forced"):
        measure_speed({"dense": model}, random_inputs(model, spec, 0), spec, clock=clock)


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


@pytest.mark.gpu
def test_on_cuda_events_time_the_call_and_peak_memory_exceeds_the_weights():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    model, spec = tiny("t5").cuda(), small_spec()
    result = measure_speed({"dense": model}, random_inputs(model, spec, 0), spec)
    dense = result["models"]["dense"]
    assert (result["device"], result["clock"]) == ("cuda", "cuda events")
    assert dense["peak_mib"] > dense["weights_mib"]
