"""Contestants with settings of their own: shared weights, static cache, compiling, the check of outputs."""

import copy
from itertools import repeat

import pytest
import torch
from speed_calls import FakeClock, small_spec, timed_bert, tiny
from transformers.modeling_outputs import SequenceClassifierOutput

from prunekit.errors import PrunekitError
from prunekit.measure import accelerate
from prunekit.measure.baselines import with_baselines
from prunekit.measure.contestants import make_entries
from prunekit.measure.speed import Contestant, measure_speed, random_inputs

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


def measure(models, spec, **options):
    model = next(iter(models.values()))
    inputs = random_inputs(model.model if isinstance(model, Contestant) else model, spec, 0)
    return measure_speed(models, inputs, spec, **options)["models"]


def fake_compiler(monkeypatch, change=lambda output: output):
    """Compile by wrapping; the value lists what was compiled. `change` is what the compiler gets wrong."""
    compiled = []

    def compile_(forward):
        compiled.append(forward)
        return lambda *arguments, **named: change(forward(*arguments, **named))

    monkeypatch.setattr(torch, "compile", compile_)
    return compiled


@pytest.mark.parametrize("name", ["t5", "bart", "bert", "vit"])
def test_one_model_takes_part_in_several_formats_and_is_left_as_it_was(name):
    model, spec = tiny(name), small_spec()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    bf16 = Contestant(model, small_spec(dtype="bf16"))
    found = measure({"dense": model, "bf16": bf16, "same": Contestant(model, spec)}, spec)
    assert found["bf16"]["settings"] == {"dtype": "bf16"}
    assert found["bf16"]["weights_mib"] < 0.6 * found["dense"]["weights_mib"]
    assert "settings" not in found["same"]
    after = model.state_dict()
    assert all(after[key].dtype == old.dtype and after[key].equal(old) for key, old in before.items())


def test_variants_of_one_model_share_its_weights():
    model, spec = tiny("t5"), small_spec()
    variant = Contestant(model, small_spec(static_cache=True))
    dense, cached = make_entries({"dense": model, "cached": variant}, spec)
    assert cached.model is not model
    assert dense.model is model
    pairs = zip(model.parameters(), cached.model.parameters(), strict=True)
    assert all(mine.data_ptr() == theirs.data_ptr() for mine, theirs in pairs)
    assert cached.model.lm_head.weight is cached.model.shared.weight


def test_rounds_batch_and_seed_are_those_of_the_measurement():
    own = small_spec(rounds=9, batch_size=7, seed=4, num_beams=2)
    [entry] = make_entries({"a": Contestant(tiny("t5"), own)}, small_spec())
    assert entry.spec == small_spec(num_beams=2)
    assert entry.own == {"num_beams": 2}


def test_contestants_take_turns_with_the_others():
    clock, spec = FakeClock(), small_spec(rounds=2, warmup=0)
    model = timed_bert(clock, "dense", repeat(4.0))
    found = measure({"dense": model, "bf16": Contestant(model, small_spec(dtype="bf16"))}, spec, clock=clock)
    assert clock.log == ["dense"] * 6
    assert found["bf16"]["speedup"] == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["t5", "bart"])
@pytest.mark.parametrize("beams", [1, 3])
def test_a_static_cache_generates_the_same_tokens(name, beams):
    model, spec = tiny(name), small_spec(num_beams=beams)
    variant = Contestant(model, small_spec(num_beams=beams, static_cache=True))
    found = measure({"dense": model, "static": variant}, spec)
    assert found["static"]["output_check"] == {"compared": "tokens", "equal": 1.0}


def test_length_penalty_is_the_models_own_unless_given():
    seen = []

    def watch(model):
        generate = model.generate

        def watching(generation_config, **inputs):
            seen.append(generation_config.length_penalty)
            return generate(generation_config=generation_config, **inputs)

        model.generate = watching
        return model

    for given, beams in ((None, 2), (0.5, 2), (0.5, 1)):
        model, spec = tiny("t5"), small_spec(num_beams=beams, length_penalty=given)
        model.generation_config.length_penalty = 2.0
        measure({"dense": watch(model)}, spec)
        assert set(seen) == {2.0 if given is None else given if beams > 1 else None}
        seen.clear()


def test_forward_and_the_encoder_are_compiled_and_put_back(monkeypatch):
    compiled = fake_compiler(monkeypatch)
    model, spec = tiny("t5"), small_spec(compile=True)
    found = measure({"dense": model}, spec)
    assert [forward.__self__ for forward in compiled] == [model, model.encoder]
    assert "forward" not in vars(model)
    assert "forward" not in vars(model.encoder)
    assert found["dense"]["output_check"] == {"compared": "tokens", "equal": 1.0}


def test_a_compiled_model_has_one_part_for_decoder_and_head(monkeypatch):
    fake_compiler(monkeypatch)
    model, spec = tiny("t5"), small_spec()
    compiled = Contestant(model, small_spec(compile=True))
    parts = measure({"dense": model, "compiled": compiled}, spec)["compiled"]["parts"]
    assert {"encoder", "decoder_and_lm_head", "rest"} < parts.keys()
    assert parts.keys().isdisjoint({"decoder", "lm_head"})
    assert "speedup" not in parts["decoder_and_lm_head"]


def test_other_tokens_are_an_error_of_that_row_alone(monkeypatch):
    def worse(output):
        if hasattr(output, "logits"):
            output.logits = -output.logits
        return output

    fake_compiler(monkeypatch, worse)
    model, spec = tiny("t5"), small_spec()
    found = measure({"dense": model, "compiled": Contestant(model, small_spec(compile=True))}, spec)
    assert "error" not in found["dense"]
    [key] = found["compiled"]
    assert key == "error"
    assert found["compiled"]["error"].startswith("generates other tokens with torch.compile: ")


@pytest.mark.parametrize("wrong", [lambda x: x + 0.1, lambda x: x * float("nan")])
def test_other_outputs_of_forward_are_an_error_of_that_row_alone(monkeypatch, wrong):
    fake_compiler(monkeypatch, lambda output: SequenceClassifierOutput(logits=wrong(output.logits)))
    model, spec = tiny("bert"), small_spec()
    found = measure({"dense": model, "compiled": Contestant(model, small_spec(compile=True))}, spec)
    assert found["compiled"]["error"].startswith("computes something else with torch.compile: outputs differ")
    assert found["dense"]["median_ms"] > 0


def test_a_compiler_that_fails_is_an_error_of_that_row_alone(monkeypatch):
    def fail(output):
        raise LookupError("no C++ compiler\nlong story")

    fake_compiler(monkeypatch, fail)
    model, spec = tiny("bert"), small_spec()
    found = measure({"dense": model, "compiled": Contestant(model, small_spec(compile=True))}, spec)
    assert found["compiled"]["error"] == (
        "does not run with torch.compile: LookupError: no C++ compiler. Measure it without, or with other "
        "versions of torch and transformers."
    )
    assert found["dense"]["median_ms"] > 0
    assert "forward" not in vars(model)


def test_in_16_bits_the_share_of_equal_tokens_is_told():
    plain = torch.tensor([[0, 5, 6, 7]])
    other = torch.tensor([[0, 5, 6, 8]])
    spec = small_spec(dtype="bf16", compile=True)
    assert accelerate.check_output(plain, lambda: other, spec) == {"compared": "tokens", "equal": 0.75}


def test_a_static_cache_for_a_model_without_one_is_an_error_of_that_row_alone():
    model, spec = tiny("bert"), small_spec()
    found = measure({"dense": model, "static": Contestant(model, small_spec(static_cache=True))}, spec)
    assert found["static"]["error"] == (
        "speed.static_cache: BertForSequenceClassification is timed by forward, which keeps no cache. "
        "Leave it out."
    )


def test_a_reference_that_fails_is_refused():
    with pytest.raises(PrunekitError, match=r"speed\.static_cache: .* keeps no cache"):
        measure({"dense": tiny("bert")}, small_spec(static_cache=True))


def test_bf16_is_refused_where_a_gpu_only_emulates_it(monkeypatch):
    model = tiny("bert")
    [entry] = make_entries({"dense": model}, small_spec(dtype="bf16"))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    monkeypatch.setattr(type(model), "device", torch.device("cuda"))
    with pytest.raises(PrunekitError, match="bf16, which this GPU only emulates"):
        entry._check_settings({})


def test_baselines_are_the_settings_that_the_model_does_not_have_yet():
    spec = small_spec()
    generating = with_baselines("t5", tiny("t5"), spec)
    assert list(generating) == ["t5", "t5 (bf16)", "t5 (compiled)", "t5 (static cache)"]
    assert generating["t5 (compiled)"].spec == small_spec(compile=True)
    assert list(with_baselines("bert", tiny("bert"), small_spec(dtype="bf16"))) == ["bert", "bert (compiled)"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's compiler uses what torch itself calls deprecated
def test_torch_compile_is_measured_for_real():
    model, spec = tiny("bert"), small_spec()
    weights = copy.deepcopy(model.state_dict())
    found = measure({"dense": model, "compiled": Contestant(model, small_spec(compile=True))}, spec)
    row = found["compiled"]
    # A machine without a C++ compiler says so.
    assert row.get("error", "").startswith("does not run with") or row["output_check"]["max_abs"] < 1e-4
    assert all(model.state_dict()[key].equal(tensor) for key, tensor in weights.items())
