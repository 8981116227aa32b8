"""Stamps on a GPU, with fake events: what is recorded when, and nothing is read before the GPU is done."""

from types import SimpleNamespace

import pytest
import torch
from speed_calls import measure_bert, small_spec, timed_bert, timed_t5, tiny

from prunekit.measure import speed
from prunekit.measure.speed import measure_speed, random_inputs
from prunekit.measure.timing import CudaClock, HostClock

pytestmark = pytest.mark.usefixtures("one_thread")


class FakeCuda:
    """A GPU that works later than it is told to; its events know their time once it has been waited for."""

    def __init__(self):
        self.log = []
        self.queued_ms = self.done_ms = 0.0

    def spend(self, milliseconds, who="work"):
        self.queued_ms += milliseconds
        self.log.append(who)

    def current_stream(self, device):
        return f"stream of {device}"

    def synchronize(self, device):
        self.done_ms = self.queued_ms
        self.log.append("synchronize")

    def Event(self, *, enable_timing):
        assert enable_timing
        return FakeEvent(self)

    def __deepcopy__(self, memo):
        return self


class FakeEvent:
    def __init__(self, cuda):
        self.cuda = cuda

    def record(self, stream):
        assert stream == "stream of cuda"
        self.at_ms = self.cuda.queued_ms
        self.cuda.log.append("record")

    def elapsed_time(self, end):
        assert end.at_ms <= self.cuda.done_ms, "read before the GPU got there"
        return end.at_ms - self.at_ms


def clock_of(cuda):
    return CudaClock(torch.device("cuda"), cuda)


def test_a_call_is_enclosed_by_events_and_the_device_is_settled_before_and_after():
    cuda, spec = FakeCuda(), small_spec(rounds=1, warmup=0)
    model = timed_bert(cuda, "call", [3.0, 5.0])
    result = measure_speed({"dense": model}, random_inputs(model, spec, 0), spec, clock=clock_of(cuda))
    assert cuda.log == ["synchronize", "record", "call", "record", "synchronize"] * 2
    assert result["models"]["dense"]["samples_ms"] == [5.0]
    assert result["clock"] == "cuda events"


def test_parts_are_stamped_without_stopping_the_stream():
    cuda, spec = FakeCuda(), small_spec(rounds=1, warmup=0, new_tokens=2)
    model = timed_t5(cuda)
    result = measure_speed({"dense": model}, random_inputs(model, spec, 0), spec, clock=clock_of(cuda))
    calls = "".join("s" if entry == "synchronize" else "r" if entry == "record" else "" for entry in cuda.log)
    headline, natural = "s" + "rr" + "s", "s" + "r" + 3 * "r" + "r" + "s"
    # Start; encoder in and out; per token: decoder and head in and out, and the token; end.
    traced = "s" + "r" + 2 * "r" + 2 * 5 * "r" + "r" + "s"
    assert calls == (headline + traced + natural) * 2
    parts = result["models"]["dense"]["parts"]
    assert {name: parts[name]["median_ms"] for name in ("encoder", "decoder", "lm_head", "rest")} == {
        "encoder": 4.0,
        "decoder": 3.0,
        "lm_head": 0.5,
        "rest": 2.0,
    }


def test_the_host_clock_gives_milliseconds():
    clock = HostClock(iter([1.0, 1.25]).__next__)
    start, end = clock.stamp(), clock.stamp()
    assert clock.elapsed_ms(start, end) == pytest.approx(250.0)


def test_warm_up_rounds_are_made_and_thrown_away():
    costs = {"dense": iter([1.0, 1.0, 99.0, 99.0, 2.0, 2.0])}
    result, clock = measure_bert(costs, rounds=1, warmup=2)
    assert clock.log == ["dense"] * 6
    assert result["models"]["dense"]["samples_ms"] == pytest.approx([2.0])


class FakeReader:
    """A GPU whose counter moves by 700 mJ between two readings, and which gets slower."""

    def __init__(self):
        self.millijoules, self.clocks = 0, iter([1980, 1500])

    def energy_mj(self):
        self.millijoules += 700
        return self.millijoules

    def state(self):
        return {"source": "fake", "sm_clock_mhz": next(self.clocks)}


@pytest.mark.parametrize(("cost", "joules"), [(600.0, 0.7), (400.0, None)])
def test_energy_is_of_one_call_and_told_only_where_the_counter_could_follow(monkeypatch, cost, joules):
    monkeypatch.setattr(speed, "gpu_reader", lambda device: FakeReader())
    result, _ = measure_bert({"dense": iter([cost] * 4)}, rounds=2, warmup=0)
    assert result["models"]["dense"]["energy_j"] == joules


def test_the_state_of_the_gpu_is_read_before_and_after(monkeypatch):
    monkeypatch.setattr(speed, "gpu_reader", lambda device: FakeReader())
    result, _ = measure_bert({"dense": iter([1.0] * 4)}, rounds=2, warmup=0)
    clocks = [result["state"][when]["gpu"]["sm_clock_mhz"] for when in ("before", "after")]
    assert clocks == [1980, 1500]


def test_without_a_gpu_there_is_neither_state_nor_energy():
    result, _ = measure_bert({"dense": iter([1.0] * 4)}, rounds=2, warmup=0)
    assert result["state"]["before"]["gpu"] is None
    assert result["models"]["dense"]["energy_j"] is None


@pytest.mark.gpu
def test_on_cuda_the_parts_of_generation_add_up_to_the_traced_call():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    model, spec = tiny("t5").cuda(), small_spec()
    result = measure_speed({"dense": model}, random_inputs(model, spec, 0), spec)
    parts = SimpleNamespace(**result["models"]["dense"]["parts"])
    for index, whole in enumerate(parts.traced["samples_ms"]):
        inside = (parts.encoder, parts.decoder, parts.lm_head, parts.rest)
        assert sum(part["samples_ms"][index] for part in inside) == pytest.approx(whole, rel=1e-3)
    assert result["state"]["before"]["gpu"] is None or result["state"]["before"]["gpu"]["driver"]
