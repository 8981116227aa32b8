"""The speed benchmarks run, print what they claim, and leave every sample behind."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
import torch
from transformers.models.t5.modeling_t5 import T5Stack

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


@pytest.fixture
def script(monkeypatch):
    """Imports a file of ``benchmarks/`` as running it would."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


@pytest.fixture
def smoke(script, tmp_path, capsys):
    """Runs a script on tiny shapes; gives the cells of its table, what it printed, and its JSON."""

    def run(name, *options):
        out = tmp_path / "results" / f"{name}.json"
        script(name).main(["--smoke", "--device", "cpu", "--threads", "1", "--out", str(out), *options])
        printed = capsys.readouterr().out
        lines = [line for line in printed.splitlines() if line.startswith("| ")]
        return [line[2:-2].split(" | ") for line in lines], printed, json.loads(out.read_text())

    return run


def first_cells(cells):
    return [row[0] for row in cells[2:]]


def assert_whole(printed, written, labels):
    """Samples of every contestant, the environment once, and one line of it under the table."""
    assert "These figures mean nothing." in printed
    assert f"1 threads; torch {torch.__version__}, transformers" in printed
    assert {"cpu", "torch", "transformers", "gpu"} <= set(written["environment"])
    assert list(written["results"]) == labels
    for label, result in written["results"].items():
        assert f"- {label}: " in printed
        assert len(result["control"]["samples_ms"]) == 2
        assert [len(entry["samples_ms"]) for entry in result["models"].values()] == [2] * len(
            result["models"]
        )


def test_seq2seq_speed_has_a_row_a_shape_with_the_papers_speedup(smoke):
    cells, printed, written = smoke("seq2seq_speed")
    assert_whole(printed, written, ["t5-base", "bart-base"])
    shapes = ["dense", "NASH-4", "NASH-3", "NASH-2", "CoFi, narrow"]
    assert first_cells(cells) == [f"t5-base, {shape}" for shape in [*shapes, "CoFi, sublayers"]] + [
        f"bart-base, {shape}" for shape in shapes
    ]
    assert [row[-1].strip() for row in cells[2:6]] == ["", "1.64 to 2.99", "2.42 to 4.24", "3.74 to 5.53"]


def test_loaded_overhead_gives_a_verdict_for_every_pair(smoke):
    cells, printed, written = smoke("loaded_overhead")
    assert_whole(printed, written, ["t5-nash", "t5-narrow", "bert-narrow"])
    assert {row[1] for row in cells[2:]} == {
        "PrunekitT5ForConditionalGeneration",
        "PrunekitBertForSequenceClassification",
    }
    verdicts = {"holds", "does not hold", "the interval is too wide to tell"}
    assert {row[-1] for row in cells[2:]} <= verdicts


def test_loaded_overhead_refuses_to_time_models_that_differ(smoke, script, monkeypatch):
    overhead = script("loaded_overhead")
    right = overhead.stock_weights
    monkeypatch.setattr(
        overhead, "stock_weights", lambda loaded: {n: 2 * t for n, t in right(loaded).items()}
    )
    with pytest.raises(SystemExit, match="bert-narrow: the stock and the loaded model differ by"):
        smoke("loaded_overhead", "--cases", "bert-narrow")


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.98, 1.02, "holds"),
        (1.01, 1.03, "the interval is too wide to tell"),
        (1.021, 1.03, "does not hold"),
    ],
)
def test_the_two_percent_are_judged_by_the_whole_interval(script, low, high, expected):
    assert script("loaded_overhead").verdict(low, high) == expected


def test_layer_time_has_widths_parts_the_rest_and_a_control_for_each_stack(smoke):
    cells, printed, written = smoke("layer_time")
    stacks = ("encoder", "decoder")
    assert_whole(printed, written, [f"{stack}, length {length}" for stack in stacks for length in (1, 4)])
    rows = ["heads 12, FFN 48", "heads 9", "heads 6", "heads 3", "heads 1", "FFN 36", "FFN 24", "FFN 12"]
    rows += ["FFN 4", "attention alone", "FFN alone", "norms alone", "the rest"]
    rows += ["the full layer again (control)"]
    assert first_cells(cells) == [f"{stack}, {row}" for stack in stacks for row in rows]


@pytest.mark.parametrize("is_decoder", [False, True])
def test_a_chain_of_layers_computes_what_a_stack_does(script, is_decoder):
    torch.manual_seed(0)
    config = script("shapes").t5_config(True, num_layers=2, is_decoder=is_decoder, use_cache=is_decoder)
    chain = script("layer_time").Chain(config, depth=2, source=6).eval()
    stack = T5Stack(config).eval()
    with torch.no_grad():
        for parameter in chain.parameters():
            parameter.normal_()
    stack.block.load_state_dict(chain.blocks.state_dict())
    states = torch.randn(2, 4, config.d_model)
    around = {"encoder_hidden_states": torch.zeros(2, 6, config.d_model)} if is_decoder else {}
    with torch.no_grad():
        expected = stack(inputs_embeds=states, **around).last_hidden_state
        for _ in range(2):  # the second call finds its surroundings made
            torch.testing.assert_close(stack.final_layer_norm(chain(states)), expected)


def test_encoder_macs_shows_the_share_of_macs_beside_that_of_time(smoke):
    cells, printed, written = smoke("encoder_macs", "--retained", "0.8", "0.4")
    assert_whole(printed, written, ["bert-base", "vit-b"])
    models = ("bert-base", "vit-b")
    assert first_cells(cells) == [f"{name}, {share}" for name in models for share in ("dense", "0.8", "0.4")]
    for shares in written["shares"].values():
        assert [round(each["prunable"], 2) for each in shares.values()] == [1, 0.8, 0.4]
        assert shares["0.4"]["whole"] < shares["0.8"]["whole"] < 1


def test_shapes_cut_evenly_have_the_parameters_asked_for(script):
    shapes, seq2seq = script("shapes"), script("seq2seq_speed")
    target = shapes.make_target("t5-base", tiny=True, seed=0, device="cpu")
    found = {name: shapes.parameters(target, keep) for name, keep in seq2seq.plans(target, "t5-base").items()}
    a_neuron_of_each_layer = 2 * 24 * 24  # in and out, hidden width 24, 24 layers
    for name in ("CoFi, narrow", "CoFi, sublayers"):
        assert found["NASH-2"] - a_neuron_of_each_layer < found[name] <= found["NASH-2"]
    pruned = target.pruned(seq2seq.PruningPlan(keep=seq2seq.plans(target, "t5-base")["CoFi, sublayers"]))
    assert sum(p.numel() for p in pruned.model.parameters()) == found["CoFi, sublayers"]


def test_more_than_narrowing_can_remove_is_refused(script):
    shapes = script("shapes")
    target = shapes.make_target("bert-base", tiny=True, seed=0, device="cpu")
    total = shapes.prunable(target, "encoder")
    with pytest.raises(ValueError, match=r"parameters cannot be removed by narrowing encoder\."):
        shapes.narrowed(target, {}, 1.01 * total, ["encoder"])


def test_the_rest_is_what_parts_leave_of_the_whole(script):
    share, low, high = script("bench").rest_of([10.0, 10, 10], [[4.0, 4, 4], [3.0, 3, 3]], seed=0)
    assert (share, low, high) == (pytest.approx(0.3), pytest.approx(0.3), pytest.approx(0.3))
    share, low, high = script("bench").rest_of([8.0, 10, 12], [[5.0, 5, 5]], seed=0)
    assert share == pytest.approx(0.5)
    assert low == pytest.approx(1 - 5 / 8)
    assert high == pytest.approx(1 - 5 / 12)


def test_a_contestant_that_cannot_be_measured_ends_the_benchmark_with_its_reason(script):
    bench, shapes = script("bench"), script("shapes")
    models = {}
    for positions in (32, 4):
        target = shapes.make_target("bert-base", tiny=True, seed=0, device="cpu")
        target.model.config.max_position_embeddings = positions
        models[f"{positions} positions"] = target.model
    inputs = {"input_ids": torch.ones(1, 6, dtype=torch.long)}
    options = bench.argparse.Namespace(batch=1, rounds=1, warmup=0, dtype="fp32", threads=1, seed=0)
    with pytest.raises(SystemExit, match=r"^4 positions: .* has 4 positions"):
        bench.measured(models, inputs, bench.spec_of(options))


def test_a_size_that_is_given_beats_every_default(script):
    bench = script("bench")
    made = bench.parser("Title")
    bench.sizes(made, rounds=(8, 2, 30))
    assert bench.parsed(made, ["--device", "cpu"]).rounds == 8
    made = bench.parser("Title")
    bench.sizes(made, rounds=(8, 2, 30))
    assert bench.parsed(made, ["--device", "cuda"]).rounds == 30
    made = bench.parser("Title")
    bench.sizes(made, rounds=(8, 2, 30))
    assert bench.parsed(made, ["--smoke", "--rounds", "5"]).rounds == 5
