"""How costs grow: the arithmetic of exponents, what a curve holds, and the page that is made of curves."""

from __future__ import annotations

import importlib
import json
import runpy
import subprocess

import pytest
import torch
from fences import ROOT
from transformers import T5Config, T5ForConditionalGeneration

pytestmark = pytest.mark.usefixtures("one_thread")

PAGE = runpy.run_path(str(ROOT / "docs" / "scaling.py"))


@pytest.fixture
def scaling(monkeypatch):
    """The benchmark, imported as running it would; the device that it chooses is forgotten afterwards."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    return importlib.import_module("scaling")


@pytest.fixture
def measured(scaling, tmp_path, capsys):
    """Runs it on tiny models; gives what it printed and its JSON."""

    def run(*options):
        out = tmp_path / "results" / "scaling.json"
        scaling.main(["--smoke", "--out", str(out), *options])
        return capsys.readouterr().out, json.loads(out.read_text())

    return run


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0])
def test_the_exponent_of_a_power_law_is_its_power(scaling, power):
    sizes = [2, 4, 8, 16]
    assert scaling.exponent(sizes, [7 * size**power for size in sizes]) == pytest.approx(power)


def test_a_fixed_part_makes_the_exponent_smaller_than_1(scaling):
    sizes = [1, 2, 4]
    assert 0 < scaling.exponent(sizes, [3 + size for size in sizes]) < 1


def test_the_interval_of_an_exponent_is_as_wide_as_the_rounds_differ(scaling):
    same = scaling.exponent_interval([1, 2], [[1.0, 1, 1], [2.0, 2, 2]], seed=0)
    assert same == pytest.approx((1, 1, 1))
    middle, low, high = scaling.exponent_interval([1, 2], [[1.0, 1, 1], [1.0, 2, 4]], seed=0)
    assert middle == pytest.approx(1)
    assert (low, high) == (pytest.approx(0), pytest.approx(2))


def test_growth_is_how_many_times_as_long_a_point_takes(scaling):
    assert scaling.growth([10.0, 10, 10], [30.0, 30, 30], seed=0) == pytest.approx((3, 3, 3))
    middle, low, high = scaling.growth([10.0, 10, 10], [20.0, 30, 40], seed=0)
    assert (middle, low, high) == (pytest.approx(3), pytest.approx(2), pytest.approx(4))


def test_every_job_has_its_turn_in_every_round_that_counts(scaling):
    seen = []
    jobs = {name: lambda name=name: seen.append(name) or len(seen) / 1000 for name in "abc"}
    found = scaling.in_turns(jobs, rounds=2, warmup=1, label="turns")
    assert sorted(seen) == sorted("abc" * 3)
    # The first three were to warm up.
    assert sorted(time for times in found.values() for time in times) == pytest.approx([4, 5, 6, 7, 8, 9])


def test_a_curve_has_its_middle_in_common_with_the_others_of_its_operation(scaling):
    for operation in scaling.OPERATIONS.values():
        middle = scaling.shape_of(operation, tiny=False)
        for axis in operation.theory:
            assert getattr(middle, axis) in scaling.sizes_of(operation, axis, tiny=False)


def test_several_processes_are_launched_by_turns_and_compared_with_the_first(scaling, monkeypatch):
    launches = []

    def launched(count, options):
        launches.append(count)
        return {"fisher": [12.0 / count, 12.0 / count]}

    monkeypatch.setattr(scaling, "launched", launched)
    options = scaling.parsed(["--processes", "1", "2", "--operations", "fisher"])
    one, two = scaling.together(options)
    assert sorted(launches) == [1] * scaling.LAUNCHES + [2] * scaling.LAUNCHES
    assert launches[:3] != launches[3:]  # the order changes
    assert len(two["samples_ms"]) == 2 * scaling.LAUNCHES
    assert one["speedup"] == pytest.approx((1, 1, 1))
    assert two["speedup"] == pytest.approx((2, 2, 2))


def test_a_launch_hands_on_all_that_decides_a_time(scaling, monkeypatch):
    commands = []

    def run(command, **_):
        commands.append(command)
        return subprocess.CompletedProcess(command, 0, 'noise\n{"fisher": [1.0]}\n')

    monkeypatch.setattr(scaling.subprocess, "run", run)
    options = scaling.parsed(
        ["--smoke", "--operations", "fisher", "--rounds", "4", "--threads", "2", "--seed", "3"]
    )
    assert scaling.launched(2, options) == {"fisher": [1.0]}
    told = " ".join(commands[0])
    assert "--nproc-per-node=2" in told
    assert told.endswith("--child --operations fisher --rounds 4 --warmup 1 --threads 2 --seed 3 --smoke")


def test_no_answer_of_a_random_model_ends_early(scaling):
    work = scaling.work.Work(scaling.work.Shape(1, 2, 8, batch=4, examples=4, tiny=True), seed=0)
    ids = torch.cat([batch["input_ids"] for batch in work.batches])
    options = {"max_new_tokens": 12, "eos_token_id": work.task.tokenizer.eos_token_id, "do_sample": False}
    answers = work.target.model.generate(input_ids=ids, **options)
    assert answers.shape[1] == 13
    assert work.task.tokenizer.eos_token_id not in answers


def test_a_curve_holds_every_sample_growths_memory_and_macs(measured):
    printed, written = measured("--operations", "fisher", "--axes", "layers")
    assert "These figures mean nothing." in printed
    (curve,) = written["curves"]
    assert [point["size"] for point in curve["points"]] == [2, 4]
    assert [len(point["samples_ms"]) for point in curve["points"]] == [2, 2]
    assert curve["points"][0]["growth"] == [1, 1, 1]
    small, large = (point["macs"] for point in curve["points"])
    assert small < large
    assert curve["points"][1]["tensor_mib"] > curve["points"][0]["tensor_mib"] > curve["weights_mib"]
    assert "| fisher: layers | 2 to 4 |" in printed


@pytest.mark.slow
def test_every_operation_is_measured_along_its_axes(measured, scaling):
    _, written = measured()
    assert [(curve["operation"], curve["axis"]) for curve in written["curves"]] == [
        (name, axis)
        for name, each in scaling.OPERATIONS.items()
        for axis in ("layers", "heads", "neurons", "batch", "examples")
        if axis in each.theory
    ]


@pytest.mark.slow
def test_two_processes_score_and_answer_together(scaling):
    options = scaling.parsed(["--smoke", "--operations", "fisher", "training step"])
    found = scaling.launched(2, options)
    assert {name: len(times) for name, times in found.items()} == {"fisher": 2, "training step": 2}


def test_a_t5_is_said_to_have_the_parameters_that_it_has():
    vocabulary, width, size, heads, neurons, depth = PAGE["T5"]["t5-base"]
    config = T5Config(
        vocab_size=vocabulary, d_model=width, d_kv=size, num_heads=heads, d_ff=neurons, num_layers=depth
    )
    with torch.device("meta"):
        model = T5ForConditionalGeneration(config)
    assert PAGE["parameters"](*PAGE["T5"]["t5-base"]) == model.num_parameters()


def test_the_picture_tells_every_exponent_to_whoever_cannot_see_it():
    stored = json.loads(PAGE["STORED"].read_text())
    drawn = PAGE["picture"]()
    for curve in stored["curves"]:
        told = f"{curve['operation']} by {curve['axis']}: exponent {curve['exponents']['time'][0]:.2f}"
        assert told in drawn


def test_the_stored_picture_is_that_of_the_stored_curves():
    stored = json.loads(PAGE["STORED"].read_text())
    told = [
        f"{c['operation']} by {c['axis']}: exponent {c['exponents']['time'][0]:.2f}" for c in stored["curves"]
    ]
    drawn = PAGE["PICTURE"].read_text()
    assert [text for text in told if text not in drawn] == [], "Run `python docs/scaling.py`."
