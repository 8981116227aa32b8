"""``prunekit speed`` end to end: options, tables, files, and what is refused."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import pytest
from cli_calls import call_main

import prunekit
from prunekit.recipe_models import SpeedSpec
from prunekit.testing.tiny import tiny_model

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders of a T5, another T5 and a BERT."""
    folder = tmp_path_factory.mktemp("models")
    for name, seed in (("t5", 0), ("t5", 1), ("bert", 0)):
        tiny_model(name, seed=seed).save_pretrained(folder / f"{name}-{seed}")
    return SimpleNamespace(
        **{
            name: str(folder / path)
            for name, path in (("first", "t5-0"), ("second", "t5-1"), ("bert", "bert-0"))
        }
    )


@pytest.fixture
def speed(capsys, monkeypatch):
    return lambda *arguments: call_main(capsys, "speed", *arguments)


@pytest.fixture
def quick(speed):
    small = ("--rounds", "1", "--new-tokens", "2", "--num-beams", "1", "--length", "4", "--threads", "1")
    return lambda *arguments: speed(*arguments, *small)


@pytest.fixture
def passed(monkeypatch):
    """What the pipeline is given."""
    calls = []

    def record(models, spec, batches, lengths, **named):
        calls.append((models, spec, batches, lengths, named))
        row = {"error": "not run"}
        cell = {"batch_size": 1, "input_tokens": None, "models": {"a": row}}
        return {"reference": "a", "cells": [cell], "environment": {}}

    monkeypatch.setitem(sys.modules, "prunekit.pipeline", SimpleNamespace(speed=record))
    monkeypatch.setattr(prunekit, "pipeline", sys.modules["prunekit.pipeline"], raising=False)
    return calls


def test_options_reach_the_pipeline(speed, passed):
    sizes = ("--batch", "1,8, 8", "--length", "64,128", "--new-tokens", "4", "--num-beams", "2")
    numbers = ("--length-penalty", "0.8", "--threads", "1", "--rounds", "2")
    flags = ("--static-cache", "--compile", "--dtype", "bf16", "--attention", "eager", "--baselines")
    speed("a", "b", *sizes, *numbers, *flags)
    [(models, spec, batches, lengths, named)] = passed
    assert (models, batches, lengths) == (["a", "b"], [1, 8], [64, 128])
    assert spec == SpeedSpec(
        new_tokens=4,
        num_beams=2,
        length_penalty=0.8,
        threads=1,
        rounds=2,
        static_cache=True,
        compile=True,
        dtype="bf16",
        attention="eager",
    )
    assert named["baselines"] is True


def test_without_options_the_recipes_defaults_hold(speed, passed):
    speed("a")
    [(_, spec, batches, lengths, named)] = passed
    assert (spec, batches, lengths, named["baselines"]) == (SpeedSpec(), [32], [None], False)
    assert "[default: 32]" in " ".join(speed("--help").out.split())


@pytest.mark.parametrize("text", ["8,x", "0", "", "1,,2", "-1"])
def test_sizes_that_are_none_are_refused(speed, passed, text):
    found = speed("a", f"--batch={text}")
    assert found.code == 2
    assert "is no size; give numbers from 1 with commas between them, such as 1,8,32." in found.err
    assert "--batch" in found.err
    assert passed == []


def test_a_format_that_does_not_exist_is_refused_with_those_that_do(speed, passed):
    found = speed("a", "--dtype", "fp8")
    assert found.code == 2
    assert "Invalid value for --dtype: 'fp8': Input should be 'fp32', 'bf16' or 'fp16'" in found.err


def test_one_table_a_size_and_a_model_that_does_not_fit_leaves_the_others(quick, models):
    found = quick(models.first, models.second, models.bert, "--batch", "1,2")
    assert found.code == 0
    lines = found.out.splitlines()
    assert "batch 1, 4 input tokens" in lines
    assert "batch 2, 4 input tokens" in lines
    assert sum(line.startswith(models.second) for line in lines) == 2 + 2  # times and parts
    assert sum(line.startswith(f"{models.bert}  not measured") for line in lines) == 2
    assert sum(line.startswith(f"{models.bert}: timed by forward") for line in lines) == 2


def test_json_and_the_file_hold_every_sample(quick, models, tmp_path):
    path = tmp_path / "out" / "speed.json"
    found = quick(models.first, models.second, "--batch", "1", "--json", "--out", str(path))
    result = json.loads(found.out)
    assert json.loads(path.read_text()) == result
    [cell] = result["cells"]
    assert [len(row["samples_ms"]) for row in cell["models"].values()] == [1, 1]
    assert cell.keys() >= {"state", "noise", "control", "threads", "environment"}


def test_markdown_replaces_the_tables(quick, models):
    found = quick(models.first, "--batch", "1", "--markdown")
    assert found.out.startswith("# Speed\n\n")
    assert "\n## batch 1, 4 input tokens\n" in found.out


def test_baselines_stand_beside_the_first_model(quick, models, monkeypatch):
    import torch

    monkeypatch.setattr(torch, "compile", lambda forward: lambda *given, **named: forward(*given, **named))
    result = json.loads(quick(models.first, models.second, "--batch", "1", "--baselines", "--json").out)
    first = [f"{models.first}{kind}" for kind in ("", " (bf16)", " (compiled)", " (static cache)")]
    assert list(result["cells"][0]["models"]) == [*first, models.second]
    assert all("median_ms" in row for row in result["cells"][0]["models"].values())


def test_where_nothing_could_be_measured_the_exit_code_says_so(quick, models):
    found = quick(models.bert, "--batch", "1", "--static-cache")
    assert found.code == 1
    assert "speed.static_cache: BertForSequenceClassification is timed by forward" in found.out


def test_a_model_that_does_not_exist_is_refused_at_once(quick, models):
    found = quick(models.first, "./nowhere")
    assert found.code == 1
    assert found.err == (
        "CheckpointError: ./nowhere: no such folder. Give a model folder, a run folder, a hub id or "
        "embedded:NAME.\n"
    )
