"""Experiments on tiny models: in invented time, where every verdict is known, and for real without a time."""

from __future__ import annotations

import json

import pytest
import torch
from doctor_calls import fake_measure, shape, small_spec, split_by_depth
from transformers import DistilBertConfig, DistilBertForSequenceClassification

from prunekit.doctor import diagnose as module
from prunekit.doctor.diagnose import MODEL, batches, examine
from prunekit.doctor.subject import Side, Subject, load_subject, make_side
from prunekit.errors import CheckpointError, PrunekitError
from prunekit.pruning.plan import PruningPlan
from prunekit.reports.doctor import render_markdown
from prunekit.testing.tiny import tiny_model

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

NO_MEMORY = "out of memory: ask for a smaller batch or length, or fewer models at a time."


def side(name, adapters):
    return make_side(name, tiny_model(name), adapters)


def seconds_in_the_decoder(model, spec, batch):
    """1 ms an encoder block, 10 ms a decoder block, 5 ms a beam, 2 ms an example."""
    found = shape(model)
    return found.encoder + 10 * found.decoder + 5 * spec.num_beams + 2 * batch


@pytest.fixture
def invented(monkeypatch):
    """Sets what a call costs."""

    def set_cost(cost, **more):
        monkeypatch.setattr(module, "measure_speed", fake_measure(cost, **more))

    return set_cost


# Diagnosis in invented time


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_the_decoders_depth_is_named_where_the_time_is_the_decoders(name, adapters, invented):
    invented(seconds_in_the_decoder)
    found = examine(Subject(side(name, adapters), small_spec()))
    # 3 + 30 + 10 + 4 = 47 ms; without a decoder block 37, with one beam 42, without an encoder block 46.
    assert found["median_ms"] == 47
    assert found["dominant"]["factor"] == "decoder depth"
    assert found["dominant"]["speedup"] == pytest.approx(47 / 37)
    assert found["dominant"]["clear"]
    assert found["says"]["dominant"] == (
        "Dominant factor: decoder depth. Half the decoder's blocks is 1.27x [1.27, 1.27] as fast, the next "
        "cut of half (encoder depth) 1.02x [1.02, 1.02]."
    )
    gains = {row["name"]: row["verdict"] for row in found["experiments"]}
    assert gains["greedy in place of beams"] == "faster"
    assert gains["bf16"] == gains["half the decoder's neurons"] == "no difference"


def test_small_batches_are_overhead_bound_and_larger_ones_are_not(adapters, invented):
    invented(lambda model, spec, batch: 90 + batch)
    found = examine(Subject(side("bert", adapters), small_spec()))
    assert found["bound"]["verdict"] == "overhead-bound"  # 92 to 94 ms
    assert found["says"]["bound"].startswith(
        "Overhead-bound at batch 2: from batch 2 to 4 a call takes 1.02x"
    )
    assert "about 98% of a call does not depend on the batch" in found["says"]["bound"]
    assert found["experiments"][0]["name"] == "batch 4"
    assert found["experiments"][0]["speedup"] == pytest.approx(2 * 92 / 94)


def test_width_matters_from_the_batch_where_neurons_outweigh_the_rest(adapters, invented):
    # Below batch 8 the overhead of 1000 ms hides the neurons' time.
    invented(lambda model, spec, batch: max(1000.0, shape(model).neurons * batch * 2.5))
    found = examine(Subject(side("bert", adapters), small_spec()))
    assert found["width_from"] == 8  # 60 neurons: 1200 ms; 30: 1000 ms
    assert found["says"]["width"].startswith("Width matters from batch 8 (measured: 1, 2, 4, 8, 16")


def test_the_ladder_ends_once_both_questions_are_settled(adapters, invented):
    seen = []
    invented(lambda model, spec, batch: shape(model).neurons * batch, seen=seen)
    examine(Subject(side("bert", adapters), small_spec(batch_size=8)))
    assert [batch for names, batch in seen if names == [MODEL, "half the neurons"]] == [1, 2, 4, 8, 16]


def test_the_ladder_goes_on_to_the_limit_where_they_are_not(adapters, invented):
    invented(lambda model, spec, batch: 100.0)
    found = examine(Subject(side("bert", adapters), small_spec()))
    assert [row["batch"] for row in found["batches"]] == [1, 2, 4, 8, 16, 32, 64]
    assert found["says"]["width"] == (
        "Width does not matter up to batch 64: half the neurons is nowhere faster beyond the noise."
    )


def test_batches_include_the_asked_one_and_its_double():
    assert batches(6) == [1, 2, 4, 6, 8, 12, 16, 32, 64]
    assert batches(100)[-2:] == [128, 200]


def test_a_batch_that_does_not_fit_ends_the_ladder_with_its_reason(adapters, invented):
    def cost(model, spec, batch):
        if batch > 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB")
        return 10.0 * batch

    invented(cost)
    found = examine(Subject(side("bert", adapters), small_spec(batch_size=4)))
    assert found["batches"][-1] == {"batch": 8, "error": NO_MEMORY}
    assert found["bound"]["batch"] == 2
    assert "throughput" not in {row["kind"] for row in found["experiments"]}
    assert "Batch 8 could not be measured, nor any larger one: out of memory: ask" in render_markdown(found)


def test_an_experiment_that_fails_costs_only_its_row(adapters, invented):
    def cost(model, spec, batch):
        if spec.dtype == "bf16":
            raise RuntimeError("no bf16 kernel on this device\nmore lines")
        return 10.0

    invented(cost)
    found = examine(Subject(side("bert", adapters), small_spec()))
    assert found["experiments"][-1]["error"] == "RuntimeError: no bf16 kernel on this device"
    assert "not measured: RuntimeError: no bf16 kernel on this device" in render_markdown(found)


def test_a_model_that_cannot_be_run_is_refused(adapters, invented):
    def cost(model, spec, batch):
        raise torch.OutOfMemoryError("CUDA out of memory")

    invented(cost)
    with pytest.raises(
        PrunekitError, match="bert cannot be measured at batch 2: out of memory: ask for a smaller"
    ):
        examine(Subject(side("bert", adapters), small_spec()))


def test_a_model_without_an_adapter_gets_the_settings_and_a_line(adapters, invented):
    invented(lambda model, spec, batch: 10.0 if spec.dtype == "fp32" else 5.0)
    alone = Side("gpt", tiny_model("bert"), None, "there is no adapter for 'gpt'.")
    found = examine(Subject(alone, small_spec()))
    assert found["experiments"][0]["name"] == "bf16"
    assert {row["kind"] for row in found["experiments"]} == {"setting", "throughput"}
    assert found["says"]["cuts"] == "No cuts were tried: there is no adapter for 'gpt'."
    assert found["says"]["width"] is found["says"]["dominant"] is None


# Runs


def test_a_run_is_compared_with_its_dense_model_part_by_part(adapters, prunable, invented):
    invented(lambda *at: sum(split_by_depth(*at).values()), split=split_by_depth)
    dense = prunable(tiny_model("t5"))
    pruned = dense.pruned(PruningPlan(keep={"decoder.blocks": (0, 2), "encoder.0.ffn.neurons": (0, 1)}))
    subject = Subject(
        make_side("runs/demo", pruned.model, adapters),
        small_spec(),
        make_side("embedded:x", dense.model, adapters),
    )
    found = examine(subject)
    run = found["run"]
    assert (run["dense_ms"], run["pruned_ms"]) == (47, 37)
    assert [row["removed_ms"] for row in run["parts"]] == [0, 10, 0, 0]
    decoder = next(row for row in run["kept"] if row["stack"] == "decoder")
    assert (decoder["block"], decoder["head"], decoder["neuron"]) == ([3, 2], [24, 16], [60, 40])
    assert "Of the time that went: decoder 100% (30.0 -> 20.0 ms)" in found["says"]["run"]
    assert found["time"][1]["part"] == "decoder"


def finished(folder, saved, **report):
    saved.save_pretrained(folder / "model")
    (folder / "report.json").write_text(json.dumps(report))
    return str(folder)


def test_a_run_folder_brings_its_settings_and_its_dense_model(tmp_path, prunable, adapters):
    dense = prunable(tiny_model("bert"))
    dense.model.save_pretrained(tmp_path / "dense")
    pruned = dense.pruned(PruningPlan(keep={"encoder.0.ffn.neurons": (0, 1)}))
    speed = {"batch_size": 3, "rounds": 7, "key of a later version": 1}
    run = finished(
        tmp_path / "run",
        pruned.model,
        model=str(tmp_path / "dense"),
        recipe={"speed": speed},
        speed={"input_tokens": 9},
    )
    subject = load_subject(run, {"rounds": 2}, adapters)
    assert (subject.spec.batch_size, subject.spec.rounds, subject.spec.input_tokens) == (3, 2, 9)
    assert subject.dense.target.groups["encoder.0.ffn.neurons"].size == 20
    assert subject.side.target.groups["encoder.0.ffn.neurons"].size == 2


def test_a_run_without_its_dense_model_is_looked_at_alone(tmp_path, adapters, invented):
    invented(lambda model, spec, batch: 10.0)
    gone = str(tmp_path / "gone")
    run = finished(tmp_path / "run", tiny_model("bert"), model=gone, speed={})
    found = examine(load_subject(run, {"rounds": 2}, adapters))
    assert found["says"]["run"].startswith(
        f"Dense and pruned model were not compared: {gone}: no such folder"
    )
    assert "Against the dense model" in render_markdown(found)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "cannot be read: not JSON: line 1, column 2"),
        ("[]", "no pruning run's report"),
        ("{}", "has no `model`"),
    ],
)
def test_a_damaged_report_says_what_to_give_instead(text, said, tmp_path, adapters):
    tiny_model("bert").save_pretrained(tmp_path / "model")
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(CheckpointError, match=said) as caught:
        load_subject(str(tmp_path), {}, adapters)
    assert str(tmp_path / "model") in str(caught.value)


# For real


@pytest.mark.parametrize("name", ["t5", "bart", "bert", "vit", "deit"])
def test_tiny_models_are_diagnosed_for_real(name, adapters, monkeypatch):
    monkeypatch.setattr(module, "LARGEST_BATCH", 4)
    found = examine(Subject(side(name, adapters), small_spec()))
    assert json.loads(json.dumps(found)) == found
    assert [row["error"] for row in found["experiments"] if "error" in row] == []
    names = {row["name"] for row in found["experiments"]}
    whose = ["the decoder's", "the encoder's"] if name in ("t5", "bart") else ["the"]
    units = {f"half {each} {kind}" for each in whose for kind in ("neurons", "heads")}
    assert {"half the encoder's blocks", "bf16", *units} <= names
    assert ("half the decoder's blocks" in names) == (name in ("t5", "bart"))
    assert [row["batch"] for row in found["batches"]] == [1, 2, 4]
    assert render_markdown(found)
    if name in ("t5", "bart"):
        assert [row["part"] for row in found["time"]] == ["encoder", "decoder", "lm_head", "rest"]
        assert sum(row["share"] for row in found["time"]) == pytest.approx(1)


def test_an_irregular_model_is_diagnosed_for_real(adapters, prunable, monkeypatch):
    monkeypatch.setattr(module, "LARGEST_BATCH", 4)
    keep = {"encoder.0.ffn.neurons": (), "decoder.1.self_attn.heads": (), "encoder.2.self_attn.heads": (1, 3)}
    dense = prunable(tiny_model("t5"))
    pruned = dense.pruned(PruningPlan(keep=keep))
    subject = Subject(
        make_side("pruned", pruned.model, adapters), small_spec(), make_side("dense", dense.model, adapters)
    )
    found = examine(subject)
    assert [row["error"] for row in found["experiments"] if "error" in row] == []
    assert found["run"]["dense_ms"] > 0


def test_a_model_of_an_unknown_architecture_is_diagnosed_for_real(adapters, monkeypatch):
    monkeypatch.setattr(module, "LARGEST_BATCH", 4)
    sizes = {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 20, "max_position_embeddings": 16}
    model = DistilBertForSequenceClassification(DistilBertConfig(vocab_size=40, **sizes)).eval()
    found = examine(Subject(make_side("distilbert", model, adapters), small_spec()))
    assert "'distilbert', for which there is no adapter" in found["says"]["cuts"]
    assert {row["name"] for row in found["experiments"]} == {"bf16", "batch 4"}
    assert found["widths"]["missing"]["8"] > 0


@pytest.mark.gpu
def test_on_a_gpu_the_doctor_times_events(adapters, monkeypatch):
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    monkeypatch.setattr(module, "LARGEST_BATCH", 4)
    found = examine(Subject(make_side("t5", tiny_model("t5").cuda(), adapters), small_spec()))
    assert (found["settings"]["device"], found["settings"]["clock"]) == ("cuda", "cuda events")
