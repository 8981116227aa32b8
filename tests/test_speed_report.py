"""Tables of a speed measurement: what stands in them, what is left out, what is said below."""

import subprocess
import sys

from prunekit.reports.speed import machine_sentence, render_speed_markdown, speed_tables


def row(median, **more):
    facts = {"parameters": 11_000_000, "macs": 2_500_000_000, "achieved_gflops": 50.0}
    spread = {"p10_ms": median - 1, "p90_ms": median + 1, "p99_ms": median + 2}
    nothing = {"peak_mib": None, "energy_j": None}
    return {"median_ms": median, **spread, "samples_per_s": 8000 / median, **facts, **nothing, **more}


GAIN = {"speedup": 2.0, "speedup_low": 1.9, "speedup_high": 2.125, "verdict": "faster"}
QUIET = {"says": "the reference against itself differs by up to 1.0%; differences inside it are none."}


def cell(**changes):
    models = {"dense": row(100.0), "pruned": row(50.0, **GAIN)}
    settings = {"device": "cpu", "threads": 2, "dtype": "fp32", "attention": "sdpa", "mode": "forward"}
    options = {"static_cache": None, "compile": False, "rounds": 20, "warmup": 3}
    state = {"before": {"gpu": None}, "after": {"gpu": None}}
    sizes = {"batch_size": 8, "input_tokens": 64, "reference": "dense", "models": models}
    return settings | options | sizes | {"state": state, "noise": QUIET} | changes


def result(*cells):
    environment = {"cpu": "Chip 9000", "gpu": "Card 100", "torch": "2.13"}
    return {"reference": "dense", "cells": list(cells), "environment": environment}


def the_table(one):
    [found] = speed_tables(result(one))
    return found


def test_a_row_has_times_speedup_and_rates():
    found = the_table(cell())
    assert found.title == "batch 8, 64 input tokens"
    assert dict(zip(found.header, found.rows[1], strict=True)) == {
        "model": "pruned",
        "ms: median (p10 to p90)": "50.0 (49.0 to 51.0)",
        "p99": "52.0",
        "speedup, 95 % interval": "2.00x [1.90, 2.12], faster",
        "samples/s": "160",
        "parameters": "11,000,000",
        "GMACs": "2.5",
        "GFLOP/s": "50",
    }
    assert found.rows[0][3] == "reference"
    assert list(found.parts) == []


def test_columns_that_a_gpu_fills_are_shown_there():
    gpu = row(100.0, peak_mib=2048.4, energy_j=31.25, tokens_per_s=1280.0)
    found = the_table(cell(models={"dense": gpu}))
    shown = dict(zip(found.header, found.rows[0], strict=True))
    assert (shown["peak MiB"], shown["J a call"], shown["tokens/s"]) == ("2,048", "31.2", "1,280")


def test_parts_of_generation_stand_in_a_table_of_their_own():
    parts = {
        "traced": row(101.0),
        "encoder": row(20.0),
        "decoder": row(60.0),
        "lm_head": row(5.0),
        "rest": row(15.0),
        "natural": row(80.0, tokens=13),
    }
    found = the_table(cell(models={"dense": row(100.0, parts=parts)}))
    assert list(found.parts_header) == [
        "ms, median",
        "encoder",
        "decoder",
        "LM head",
        "rest",
        "natural length",
    ]
    assert found.parts == [("dense", "20.0", "60.0", "5", "15.0", "80.0 (13 tokens)")]


def test_a_row_that_failed_says_why_below_the_table():
    found = the_table(cell(models={"dense": row(100.0), "big": {"error": "out of memory"}}))
    assert found.rows[1][:2] == ("big", "not measured")
    assert found.notes[0] == "big: out of memory"


def test_a_cell_in_which_nothing_ran_has_only_reasons():
    nothing = {"batch_size": 8, "input_tokens": None, "reference": "dense"}
    found = the_table(nothing | {"models": {"dense": {"error": "no"}}})
    assert (found.title, found.notes) == ("batch 8", ["dense: no"])
    assert machine_sentence(result(nothing)) == "Nothing could be measured."


def test_noise_and_few_rounds_are_told():
    found = the_table(cell(noise={"says": "too noisy: by 9%."}, rounds=2))
    assert found.notes == [
        "Too noisy: by 9%.",
        "Only 2 timed rounds: too few for the interval to mean much.",
    ]


def test_clocks_held_down_and_other_processes_on_the_gpu_are_told():
    own, other = {"pid": 1, "own": True}, {"pid": 7, "own": False}
    before = {"throttle_reasons": ["idle"], "processes": [own, other]}
    after = {"throttle_reasons": ["power cap"], "processes": [own]}
    found = the_table(cell(state={"before": {"gpu": before}, "after": {"gpu": after}}))
    assert found.notes[1:] == [
        "The GPU's clocks were held down: power cap.",
        "Other processes were on the GPU: 7.",
    ]
    unknown = {"throttle_reasons": None, "processes": []}
    assert len(the_table(cell(state={"before": {"gpu": unknown}, "after": {"gpu": None}})).notes) == 1


def test_the_machine_and_the_call_are_said_once():
    assert machine_sentence(result(cell())) == (
        "Chip 9000, threads 2, fp32, sdpa, torch 2.13: forward; 20 interleaved rounds after 3 to warm up; "
        "compared with dense."
    )
    generating = {
        "mode": "generate",
        "new_tokens": 16,
        "num_beams": 4,
        "static_cache": True,
        "device": "cuda",
    }
    assert machine_sentence(result(cell(**generating))) == (
        "Card 100, fp32, sdpa, torch 2.13, static cache: generate, 16 tokens forced, beams 4; 20 interleaved "
        "rounds after 3 to warm up; compared with dense."
    )


def test_markdown_has_a_section_for_each_cell():
    text = render_speed_markdown(result(cell(), cell(batch_size=32, input_tokens=None)))
    assert text.startswith("# Speed\n\nChip 9000, ")
    assert "\n## batch 8, 64 input tokens\n\n| model | ms: median (p10 to p90) |" in text
    assert "\n## batch 32\n" in text
    assert "\n| pruned | 50.0 (49.0 to 51.0) | 52.0 | 2.00x [1.90, 2.12], faster | 160 |" in text
    assert "\n- The reference against itself differs by up to 1.0%;" in text


def test_speed_reports_import_no_torch():
    code = "import sys, prunekit.reports.speed; print('torch' in sys.modules, 'transformers' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.split() == ["False", "False"]
