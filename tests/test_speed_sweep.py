"""Every batch size and length: rows that fail say why, the others are still measured."""

import json
from itertools import repeat

import pytest
import torch
from speed_calls import FakeClock, TimedBert, small_spec, timed_bert, tiny

from prunekit.errors import PrunekitError
from prunekit.measure.failures import describe, is_out_of_memory
from prunekit.measure.speed import Contestant, as_pair, measure_speed, random_inputs
from prunekit.measure.sweep import measure_sweep

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

CPU_ALLOCATOR = (
    "[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried to"
)
NO_MEMORY = "out of memory: ask for a smaller batch or length, or fewer models at a time."


class Greedy(TimedBert):
    """Runs out of memory where a batch has more than `limit` tokens."""

    limit = 20

    def forward(self, **inputs):
        if inputs["input_ids"].numel() > self.limit:
            raise RuntimeError(CPU_ALLOCATOR)
        super().forward(**inputs)


def greedy(clock, name, cost):
    return timed_bert(clock, name, repeat(cost), Greedy)


def sweep(models, batches, lengths=(None,), **options):
    return measure_sweep(models, small_spec(), batches, lengths, **options)


def test_every_batch_size_is_measured_at_every_length():
    result = sweep({"dense": tiny("bert"), "same": tiny("bert")}, [1, 3], [4, 8])
    assert json.loads(json.dumps(result)) == result
    sizes = [(cell["batch_size"], cell["input_tokens"]) for cell in result["cells"]]
    assert sizes == [(1, 4), (1, 8), (3, 4), (3, 8)]
    assert [cell["input_shapes"]["input_ids"] for cell in result["cells"]] == [[1, 4], [1, 8], [3, 4], [3, 8]]
    assert all("speedup" in cell["models"]["same"] for cell in result["cells"])
    assert (result["reference"], result["mode"]) == ("dense", "forward")


def test_without_a_length_it_is_64_or_as_many_as_all_have_positions_for():
    assert sweep({"t5": tiny("t5")}, [1])["cells"][0]["input_tokens"] == 64
    assert sweep({"t5": tiny("t5"), "bart": tiny("bart")}, [1])["cells"][0]["input_tokens"] == 24


def test_images_have_no_length_and_one_column():
    cells = sweep({"vit": tiny("vit")}, [1, 2], [4, 8, 16])["cells"]
    assert [(cell["batch_size"], cell["input_tokens"]) for cell in cells] == [(1, None), (2, None)]
    assert all(cell["models"]["vit"]["median_ms"] > 0 for cell in cells)


def test_a_row_that_runs_out_of_memory_leaves_the_others_standing():
    clock = FakeClock()
    models = {"dense": timed_bert(clock, "dense", repeat(4.0)), "big": greedy(clock, "big", 2.0)}
    small, large = sweep(models, [1, 2], [12], clock=clock)["cells"]
    assert small["models"]["big"]["speedup"] == pytest.approx(2.0)
    assert large["models"]["big"] == {"error": NO_MEMORY}
    assert large["models"]["dense"]["median_ms"] == pytest.approx(4.0)
    assert large["noise"]["spread"] == pytest.approx(0.0)


def test_without_its_reference_a_cell_has_times_but_no_speedups():
    clock = FakeClock()
    models = {
        "dense": greedy(clock, "dense", 4.0),
        "a": timed_bert(clock, "a", repeat(2.0)),
        "b": timed_bert(clock, "b", repeat(1.0)),
    }
    _, large = sweep(models, [1, 2], [12], clock=clock)["cells"]
    assert large["reference"] == "dense"
    assert list(large["models"]) == ["dense", "a", "b"]
    assert large["models"]["dense"] == {"error": NO_MEMORY}
    assert [large["models"][name]["median_ms"] for name in "ab"] == pytest.approx([2.0, 1.0])
    assert large.keys().isdisjoint({"control", "noise"})
    assert "speedup" not in large["models"]["b"]


def test_parts_of_a_cell_without_reference_are_not_compared_either():
    models = {"bart": tiny("bart"), "t5": tiny("t5"), "same": tiny("t5")}
    [cell] = sweep(models, [1], [30])["cells"]
    text = "speed.input_tokens = 30, but BartForConditionalGeneration has 24 positions. Ask for 24 or fewer."
    assert cell["models"]["bart"] == {"error": text}
    assert "speedup" not in cell["models"]["same"]["parts"]["decoder"]
    assert cell["models"]["same"]["parts"]["decoder"]["median_ms"] > 0


def test_a_length_beyond_the_positions_fails_only_where_it_is_asked():
    short, long = sweep({"bert": tiny("bert")}, [1], [24, 25])["cells"]
    assert short["models"]["bert"]["median_ms"] > 0
    assert "has 24 positions" in long["models"]["bert"]["error"]
    assert long.keys() == {"batch_size", "input_tokens", "reference", "models"}


def test_a_model_that_cannot_generate_is_told_apart_from_a_reference_that_does():
    [cell] = sweep({"t5": tiny("t5"), "bert": tiny("bert"), "vit": tiny("vit")}, [1], [8])["cells"]
    assert cell["models"]["t5"]["median_ms"] > 0
    assert cell["models"]["bert"]["error"] == (
        "timed by forward on input_ids, but the reference t5 by generate on input_ids: the times cannot be "
        "compared. Measure it in a run of its own."
    )
    assert cell["models"]["vit"]["error"].startswith("timed by forward on pixel_values")


def test_settings_of_a_contestant_hold_in_every_cell():
    model = tiny("bert")
    models = {"dense": model, "bf16": Contestant(model, small_spec(dtype="bf16"))}
    cells = sweep(models, [1, 2], [4])["cells"]
    assert [cell["models"]["bf16"]["settings"] for cell in cells] == [{"dtype": "bf16"}] * 2


def test_a_sweep_of_nothing_is_refused():
    with pytest.raises(PrunekitError, match="no model to measure"):
        sweep({}, [1])


def test_a_model_that_fails_half_way_loses_its_samples_and_no_pair_is_made_of_it():
    class Fragile(TimedBert):
        def forward(self, **inputs):
            super().forward(**inputs)
            if self.clock.log.count("fragile") > 2:
                raise IndexError("index out of range in self")

    clock, spec = FakeClock(), small_spec(rounds=5, warmup=0)
    models = {
        "dense": timed_bert(clock, "dense", repeat(1.0)),
        "fragile": timed_bert(clock, "fragile", repeat(1.0), Fragile),
    }
    inputs = random_inputs(models["dense"], spec, 0)
    result = measure_speed(models, inputs, spec, clock=clock)
    assert result["models"]["fragile"] == {"error": "IndexError: index out of range in self"}
    assert (clock.log.count("fragile"), clock.log.count("dense")) == (3, 10)
    with pytest.raises(PrunekitError, match="fragile could not be measured: IndexError: index out of range"):
        as_pair(result, "dense", "fragile")


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        MemoryError(),
        RuntimeError(CPU_ALLOCATOR),
        RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
        RuntimeError("DefaultCPUAllocator: not enough memory"),
    ],
)
def test_every_allocators_way_to_say_it_is_understood(error):
    assert is_out_of_memory(error)
    assert describe(error) == NO_MEMORY


def test_other_failures_are_told_by_their_first_line():
    assert not is_out_of_memory(ValueError("out of memory of names"))
    assert describe(ValueError("sizes differ\nand more")) == "ValueError: sizes differ"
    assert describe(NotImplementedError()) == "NotImplementedError"
    assert describe(PrunekitError("what to do")) == "what to do"


@pytest.mark.gpu
def test_on_cuda_models_are_moved_and_a_batch_that_does_not_fit_is_one_rows_error():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    total = torch.cuda.get_device_properties(0).total_memory
    with_heads = tiny("bert")
    torch.cuda.set_per_process_memory_fraction(2**28 / total)
    try:
        small, large = sweep({"dense": with_heads}, [1, 2**20], [24])["cells"]
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert small["device"] == "cuda"
    assert large["models"]["dense"] == {"error": NO_MEMORY}
