"""Several processes give what one gives: two of them over gloo on the CPU, against this one."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import in_processes
import pytest
import torch
from cli_calls import call_main
from pipeline_calls import quick_recipe, run, saved_tiny
from safetensors.torch import load_file

from prunekit import ranks
from prunekit.recipe import Recipe

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("module_on_one_thread")]

PROCESSES = 2
TESTS = Path(__file__).parent
METHODS = ("nash", "cofi", "fisher", "optin")


def environment(rank, port):
    return {
        **os.environ,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(PROCESSES),
        "LOCAL_WORLD_SIZE": str(PROCESSES),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "true",
        "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path]),
    }


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def recipes(model):
    """A recipe for each method, its data such that a batch has an example less than there are processes."""
    task = {"name": "copy", "train_examples": 33}
    train = quick_recipe(model).train.model_dump(exclude_unset=True)
    recover = quick_recipe(model).recover.model_dump(exclude_unset=True)
    oneshot = {"examples": 12, "batch_size": 4}
    labels = {
        "nash": {**quick_recipe(model).methods["nash"].model_dump(exclude_unset=True)},
        "cofi": {"method": "cofi", "sparsity_tolerance": 0.9, "layer_matching": "windows"},
        "fisher": {"method": "fisher", "tune": True, **oneshot},
        "optin": {"method": "optin", "rearrange": True, **oneshot},
        "magnitude": {"method": "magnitude"},
    }
    return {
        label: quick_recipe(
            model,
            task=task,
            methods={label: entry},
            budget={"sparsity": 0.3, **({"scope": ["encoder.*"]} if label == "nash" else {})},
            train={**train, "gradient_accumulation": 2, "precision": "fp32"},
            recover={**recover, "precision": "fp32", "distill": {"logits": 1.0}},
            # Both make the teacher's folder in the same moment.
            teacher={"train": {**train, "epochs": 1, "precision": "fp32"}} if label == "magnitude" else None,
        ).model_dump(mode="json", exclude_unset=True)
        for label, entry in labels.items()
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the runs of this process and of two others, and what those found out."""
    folder = tmp_path_factory.mktemp("processes")
    model = saved_tiny(folder / "t5")
    settings = json.loads((model / "config.json").read_text())
    # Dropout is drawn by each process for its own examples.
    (model / "config.json").write_text(json.dumps({**settings, "dropout_rate": 0.0}))
    cases = recipes(model)
    (folder / "cases.json").write_text(json.dumps(cases))
    in_processes.train(folder / "begun-by-one", stop_at=in_processes.STOP_AFTER)
    port = free_port()
    command = [sys.executable, str(TESTS / "in_processes.py"), str(folder)]
    started = [
        subprocess.Popen(
            command, env=environment(rank, port), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        for rank in range(PROCESSES)
    ]
    for name, keys in cases.items():
        # Apart from the others' runs: scores are reused from folders beside a run's.
        run(Recipe.model_validate(keys), folder / "one" / name, name)
    try:
        said = [process.communicate(timeout=300)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0] * PROCESSES, "\n".join(said)
    return folder


@pytest.fixture(scope="module")
def found(folder):
    return [json.loads((folder / f"found-{rank}.json").read_text()) for rank in range(PROCESSES)]


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def tensors(folder, method, name):
    return [load_file(folder / kind / method / name) for kind in ("one", "many")]


def both(folder, method, name):
    return [json.loads((folder / kind / method / name).read_text()) for kind in ("one", "many")]


# The same run


@pytest.mark.parametrize("method", METHODS)
def test_the_plan_is_that_of_one_process(folder, method):
    one, many = both(folder, method, "plan.json")
    assert many["keep"] == one["keep"]
    assert many["scale"].keys() == one["scale"].keys()


@pytest.mark.parametrize("method", METHODS)
def test_the_weights_are_those_of_one_process(folder, method):
    one, many = tensors(folder, method, "model/model.safetensors")
    assert one.keys() == many.keys()
    for name in one:
        torch.testing.assert_close(many[name], one[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_the_log_is_that_of_one_process(folder, method):
    one, many = (rows(folder / kind / method / "train.jsonl") for kind in ("one", "many"))
    assert [(row["stage"], row["step"]) for row in many] == [(row["stage"], row["step"]) for row in one]
    for mine, theirs in zip(one, many, strict=True):
        assert figures(theirs) == pytest.approx(figures(mine), rel=1e-3, abs=1e-5)


def figures(row):
    return {name: value for name, value in row.items() if name != "stage"}


@pytest.mark.parametrize("method", ["fisher", "optin"])
def test_scores_are_bit_for_bit_those_of_one_process(folder, method):
    one, many = tensors(folder, method, "scores.safetensors")
    assert one.keys() == many.keys()
    # As bytes: what is not scored is not a number.
    assert all(one[name].numpy().tobytes() == many[name].numpy().tobytes() for name in one)


def test_a_teacher_is_trained_by_all_processes_together(folder):
    one, many = (
        load_file(next(folder.glob(f"{kind}/teachers/*/model/model.safetensors"))) for kind in ("one", "many")
    )
    for name in one:
        torch.testing.assert_close(many[name], one[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_each_example_is_answered_once(folder, method):
    one, many = (rows(folder / kind / method / "answers-dense.jsonl") for kind in ("one", "many"))
    assert many == one


def test_both_processes_end_with_the_same_weights(found):
    assert found[0]["numbers"]["weights"] == found[1]["numbers"]["weights"]


def test_training_gives_the_weights_of_one_process(folder, found):
    one = in_processes.train(folder / "one" / "numbers")["weights"]
    for name, values in found[0]["numbers"]["weights"].items():
        torch.testing.assert_close(torch.tensor(values), torch.tensor(one[name]), rtol=1e-4, atol=1e-6)


# What is shared, and what is not


def test_masks_are_drawn_alike(found):
    assert found[0]["drawn"]["masks"] == found[1]["drawn"]["masks"]


def test_compared_blocks_are_drawn_alike(found):
    assert found[0]["drawn"]["blocks"] == found[1]["drawn"]["blocks"]


def test_dropout_is_not_drawn_alike(found):
    assert found[0]["drawn"]["own"] != found[1]["drawn"]["own"]


def test_items_that_were_dealt_out_come_back_in_order(found):
    assert [each["dealt"] for each in found] == [list("ABCDE")] * PROCESSES


def test_the_second_process_writes_nothing(found):
    assert found[0]["written"]
    assert found[1]["written"] == []


# Failures and signals


def test_a_failure_while_sharing_work_is_told_by_the_one_that_failed(found):
    assert [each["failed"][0] for each in found] == [
        [True, "process 1 of 2 failed; what it has to say of that is above."],
        [False, "item 1 is broken"],
    ]


def test_a_failure_of_the_first_ends_the_others(found):
    assert [each["failed"][1] for each in found] == [
        [False, "nothing can be written"],
        [True, "process 0 of 2 failed; what it has to say of that is above."],
    ]


def test_a_signal_to_one_process_stops_all_after_the_same_step(found):
    saved = f"after step {in_processes.STOP_AFTER} of 11 of stage, whose state is saved"
    assert all(saved in each["stopped"]["said"] for each in found)


def test_going_on_after_a_signal_gives_the_weights_of_an_unbroken_run(found):
    for each in found:
        assert each["gone-on"]["weights"] == each["whole"]["weights"]


def test_a_run_begun_by_one_process_goes_on_with_two(folder, found):
    whole = found[0]["numbers"]["weights"]
    for name, values in found[0]["after-one"]["weights"].items():
        torch.testing.assert_close(torch.tensor(values), torch.tensor(whole[name]), rtol=1e-4, atol=1e-6)


# The command line


def test_a_launcher_starts_the_program(folder):
    recipe = folder / "nash.yaml"
    recipe.write_text(
        "version: 1\nmodel: embedded:bert-gloss\ntask: {name: gloss}\nbudget: {sparsity: 0.3}\n"
        "methods: {magnitude: {}}\nrecover: {epochs: 0}\nevaluate: {limit: 16}\n"
        "speed: {batch_size: 1, input_tokens: 4, rounds: 2, warmup: 0, threads: 1}\n"
    )
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(PROCESSES)]
    command += [
        "-m",
        "prunekit",
        "prune",
        str(recipe),
        "--method",
        "magnitude",
        "--out",
        str(folder / "launched"),
    ]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, *command], env=env, text=True, capture_output=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Report:") == 1
    assert (
        json.loads((folder / "launched" / "report.json").read_text())["environment"]["processes"] == PROCESSES
    )


@pytest.fixture
def second_of_two(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")


@pytest.mark.parametrize(
    ("variable", "engine"),
    [("ACCELERATE_USE_FSDP", "FSDP"), ("ACCELERATE_USE_DEEPSPEED", "DeepSpeed")],
)
def test_engines_that_split_the_model_are_refused(monkeypatch, capsys, variable, engine):
    monkeypatch.setenv(variable, "true")
    done = call_main(capsys, "prune", "recipe.yaml")
    assert done.code == 1
    assert re.match(
        f"PrunekitError: launched with {engine}, which gives each process only a part of every weight. .*"
        r"Launch with data parallelism alone: `accelerate launch --multi_gpu --num_processes N -m prunekit",
        done.err,
    )


def test_commands_that_share_no_work_are_refused(second_of_two, capsys):
    assert call_main(capsys, "compare", "recipe.yaml").err == (
        "[process 1] PrunekitError: `prunekit compare` was launched as 2 processes, and would do everything "
        "2 times. Start it without a launcher; only prune and finetune share work between processes.\n"
    )


def test_processes_that_do_not_know_of_each_other_are_refused(monkeypatch, capsys):
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert "started by MPI or Slurm as 4 processes" in call_main(capsys, "prune", "recipe.yaml").err


def test_a_dry_run_in_several_processes_is_refused(second_of_two, capsys):
    recipe = Path(__file__).parents[1] / "recipes" / "quickstart.yaml"
    done = call_main(capsys, "prune", str(recipe), "--method", "nash", "--dry-run")
    assert "`prunekit prune --dry-run` was launched as 2 processes" in done.err


def test_one_process_meets_nobody(monkeypatch):
    monkeypatch.setattr(torch.distributed, "init_process_group", None)
    assert (ranks.from_first(lambda: 3), ranks.each([1, 2], lambda item: item + 1), ranks.gathered(4)) == (
        3,
        [2, 3],
        [4],
    )
