"""The stopwatch that measures: which models are timed, what their times make, and when they are reused."""

import json
from itertools import count

import pytest
import torch
from latency_calls import Layout

from prunekit.latency import measured
from prunekit.latency.grid import cuts, tabulated
from prunekit.latency.measured import MeasuredStopwatch
from prunekit.pruning.plan import PruningPlan
from prunekit.recipe import SpeedSpec
from prunekit.testing.tiny import tiny_model

pytestmark = pytest.mark.slow

SPEC = SpeedSpec(batch_size=2, input_tokens=6, num_beams=2, new_tokens=3, rounds=12, warmup=1, threads=1)
CPU = torch.device("cpu")


def by_size(ms_of):
    """In place of ``measure_speed``: times that are a function of the model, and what was asked."""
    calls = []

    def measure(models, inputs, spec, **_):
        times = {name: ms_of(model) for name, model in models.items()}
        reference = times["dense"]
        calls.append((list(models), spec))
        return {
            "models": {
                name: {
                    "median_ms": ms,
                    "speedup": reference / ms,
                    "speedup_low": 0.9 * reference / ms,
                    "speedup_high": 1.25 * reference / ms,
                }
                for name, ms in times.items()
            }
        }

    measure.calls = calls
    return measure


def parameters_ms(model):
    """A thousandth of a millisecond for each parameter outside the norms: every unit adds the same."""
    return sum(p.numel() for name, p in model.named_parameters() if "norm" not in name.lower()) / 1000


@pytest.fixture
def watch(prunable, tmp_path, monkeypatch):
    """A stopwatch of a tiny BERT, to which time is parameters."""

    def make(label="a", ms_of=parameters_ms, spec=SPEC, model=None):
        measure = by_size(ms_of)
        monkeypatch.setattr(measured, "measure_speed", measure)
        made = MeasuredStopwatch(prunable(model or tiny_model("bert")), spec, tmp_path / label, device=CPU)
        made.calls = measure.calls
        return made

    return make


# The cuts


def test_every_role_is_cut_alike_in_all_blocks():
    layout = Layout(encoder=(3, {"self_attn": (12, 64), "ffn": (3072, 1)}))
    found = cuts(layout)
    assert list(found) == [("encoder", "self_attn"), ("encoder", "ffn"), ("encoder", "blocks")]
    heads = [set(cut.kept.values()) for cut in found["encoder", "self_attn"]]
    assert heads == [{0}, {1}, {3}, {6}, {9}]
    neurons = [set(cut.kept.values()) for cut in found["encoder", "ffn"]]
    assert neurons == [{0}, {8}, {768}, {1536}, {2304}]
    assert found["encoder", "ffn"][1].plan.keep["encoder.2.ffn.units"] == tuple(range(8))
    assert found["encoder", "blocks"][0].plan.keep == {"encoder.blocks": (0, 1)}


def test_counts_are_multiples_of_eight_entries():
    layout = Layout(encoder=(1, {"self_attn": (6, 4), "ffn": (20, 1)}))
    found = cuts(layout)
    assert [cut.kept["encoder.0.self_attn"] for cut in found["encoder", "self_attn"]] == [0, 2, 4]
    assert [cut.kept["encoder.0.ffn"] for cut in found["encoder", "ffn"]] == [0, 8, 16]
    assert ("encoder", "blocks") not in found


def test_a_cut_of_sublayers_of_different_sizes_takes_a_share_of_each():
    layout = Layout(encoder=(2, {"ffn": (64, 1)}))
    small = layout.sublayers["encoder.1.ffn"]
    small.units = type(small.units)(small.units.name, "neuron", 16, 1)
    kept = [tuple(cut.kept.values()) for cut in cuts(layout)["encoder", "ffn"]]
    assert kept == [(0, 0), (8, 8), (16, 0), (32, 8), (48, 16)]


def test_differences_of_whole_models_are_shared_out_over_depth():
    layout = Layout(encoder=(4, {"ffn": (32, 1)}))
    found = cuts(layout)
    ratios = dict(zip((0, 8, 16, 24), (0.4, 0.6, 0.7, 0.9), strict=True))
    timed = [(cut, ratios[cut.kept["encoder.0.ffn"]]) for cut in found["encoder", "ffn"]]
    table = tabulated(layout, [*timed, (found["encoder", "blocks"][0], 0.65)], 100.0)
    expected = {0: 0.0, 8: 5.0, 16: 7.5, 24: 12.5, 32: 15.0}
    assert table.sublayers["encoder.3.ffn"] == pytest.approx(expected)
    # Two of four blocks save 35 ms, 30 of which are their sublayers'.
    assert table.block_ms == {"encoder": pytest.approx(2.5)}
    assert table.total_ms == 100


def test_noise_makes_no_time_that_falls_with_the_units():
    layout = Layout(encoder=(2, {"ffn": (32, 1)}))
    found = cuts(layout)
    timed = list(zip(found["encoder", "ffn"], (0.5, 0.8, 0.6, 1.02), strict=True))
    table = tabulated(layout, [*timed, (found["encoder", "blocks"][0], 0.9)], 100.0)
    times = list(table.sublayers["encoder.0.ffn"].values())
    assert times == pytest.approx([0.0, 10.0, 10.0, 25.5, 25.5])
    assert table.block_ms == {"encoder": 0.0}


# The stopwatch


def test_the_table_has_what_every_unit_takes(watch):
    found = watch().table()
    # A head of the tiny BERT: four projections of 16 x 4 and three biases; its sublayer's own bias is 16.
    assert found.sublayers["encoder.1.self_attn"] == pytest.approx({0: 0, 2: 0.552, 4: 1.088})
    assert found.sublayers["encoder.2.ffn"] == pytest.approx({0: 0, 8: 0.28, 16: 0.544, 20: 0.676})
    assert found.block_ms["encoder"] == pytest.approx(0)
    assert found.total_ms == pytest.approx(parameters_ms(tiny_model("bert")))


def test_one_role_at_a_time_is_measured_beside_the_dense_model(watch):
    made = watch()
    made.table()
    assert [names for names, _ in made.calls] == [
        ["dense", "0", "1"],
        ["dense", "0", "1", "2"],
        ["dense", "0"],
    ]
    assert {(spec.rounds, spec.warmup, spec.batch_size) for _, spec in made.calls} == {(10, 1, 2)}


def test_the_ratio_is_of_the_cut_model_over_the_dense_one(watch):
    made = watch()
    plan = PruningPlan(keep={"encoder.0.ffn.neurons": tuple(range(8)), "encoder.2.self_attn.heads": ()})
    found = made.ratio(plan)
    left = made.table().predict({"encoder.0.ffn": 8, "encoder.2.self_attn": 0})
    assert found.ratio == pytest.approx(left / made.table().total_ms)
    assert (found.low, found.high) == pytest.approx((0.8 * found.ratio, found.ratio / 0.9))
    assert made.calls[0] == (["dense", "pruned"], SPEC)


def test_a_table_is_measured_once_and_kept(watch, tmp_path):
    made = watch()
    assert made.table() is made.table()
    stored = json.loads((tmp_path / "a" / "latency.json").read_text())
    assert stored["fingerprint"]["speed"]["batch_size"] == 2
    assert stored["fingerprint"]["device"] == "cpu"
    assert stored["rounds"] == 10
    assert stored["environment"]["torch"] == torch.__version__
    heads = stored["measurements"][0]
    assert (heads["stack"], heads["role"], len(heads["cuts"])) == ("encoder", "self_attn", 2)
    again = watch()
    assert again.table() == made.table()
    assert again.calls == []


def test_another_label_reuses_the_table(watch, tmp_path):
    first = watch("a").table()
    other = watch("b", spec=SPEC.model_copy(update={"rounds": 3, "warmup": 0, "seed": 5}))
    assert other.table() == first
    assert other.calls == []
    assert (tmp_path / "b" / "latency.json").read_bytes() == (tmp_path / "a" / "latency.json").read_bytes()


@pytest.mark.parametrize(
    "change",
    [
        {"spec": SPEC.model_copy(update={"batch_size": 4})},
        {"spec": SPEC.model_copy(update={"input_tokens": 7})},
        {"spec": SPEC.model_copy(update={"dtype": "bf16"})},
        {"model": tiny_model("vit")},
    ],
)
def test_other_settings_and_other_shapes_are_measured_anew(watch, change):
    watch("a").table()
    other = watch("b", **change)
    other.table()
    assert len(other.calls) == 3


def test_another_device_is_measured_anew_even_in_the_same_folder(watch, tmp_path):
    watch("a").table()
    path = tmp_path / "a" / "latency.json"
    stored = json.loads(path.read_text())
    stored["fingerprint"]["cpu"] = "another one"
    path.write_text(json.dumps(stored))
    again = watch("a")
    again.table()
    assert len(again.calls) == 3
    assert json.loads(path.read_text())["fingerprint"]["cpu"] != "another one"


@pytest.mark.parametrize("text", ["", "[]", "[" * 10_000, '{"format": 1}', '{"format": 2}'])
def test_a_file_that_is_no_table_counts_as_none(watch, tmp_path, text):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "latency.json").write_text(text)
    assert watch("a").table().total_ms > 0


def test_a_damaged_table_is_told(watch, tmp_path, caplog):
    path = tmp_path / "a" / "latency.json"
    path.parent.mkdir()
    path.write_text("{")
    watch("a").table()
    (message,) = [each for each in caplog.messages if "latency.json" in each]
    assert message.startswith(f"{path} is damaged: not JSON: line 1, column 2: ")
    assert message.endswith(". Times are measured again.")


def test_weights_change_no_table(watch):
    watch("a").table()
    other = watch("b", model=tiny_model("bert", seed=7))
    other.table()
    assert other.calls == []


@pytest.mark.parametrize("name", ["t5", "bart", "bert", "vit"])
def test_every_architecture_can_be_measured(prunable, tmp_path, name):
    model = tiny_model(name)
    ticks = count()
    spec = SPEC.model_copy(update={"rounds": 1, "warmup": 0})
    made = MeasuredStopwatch(
        prunable(model), spec, tmp_path / "run", device=CPU, clock=lambda: float(next(ticks))
    )
    before = {key: value.clone() for key, value in model.state_dict().items()}
    table = made.table()
    # The clock ticks once a look, so that every model takes as long as every other.
    assert {ms for points in table.sublayers.values() for ms in points.values()} == {0.0}
    assert set(table.sublayers) == set(prunable(model).structure.sublayers)
    assert table.total_ms > 0
    assert made.ratio(PruningPlan(keep={"encoder.0.ffn.neurons": ()})).ratio == 1
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["t5", "bert"])
def test_every_architecture_can_be_measured_on_a_gpu(prunable, tmp_path, name):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    spec = SPEC.model_copy(update={"rounds": 1, "warmup": 0})
    target = prunable(tiny_model(name))
    made = MeasuredStopwatch(target, spec, tmp_path / "run", device=torch.device("cuda"))
    assert made.table().total_ms > 0
    assert made.fingerprint()["device"] == "cuda"
    assert made.ratio(PruningPlan(keep={"encoder.0.ffn.neurons": ()})).ratio > 0
    assert target.model.device.type == "cpu"
