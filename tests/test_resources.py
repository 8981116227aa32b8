"""Memory and disk: what is estimated before a run, what is refused, and what is said when memory runs out."""

from __future__ import annotations

import json
import os
import shutil
from types import SimpleNamespace

import pytest
import torch
from pipeline_calls import REGISTRY, quick_recipe, run, saved_tiny
from torch import nn

from prunekit import pipeline, rehearsal, resources
from prunekit.determinism import CUBLAS, deterministic
from prunekit.errors import PrunekitError, RunFolderError
from prunekit.measure.environment import environment_record
from prunekit.recipe import resolve_method

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("module_on_one_thread")]


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    return saved_tiny(tmp_path_factory.mktemp("dense") / "t5")


# Counting bytes


def test_live_bytes_are_those_of_tensors_that_live_at_once():
    with resources.LiveBytes() as live:
        first = torch.zeros(256)
        second = first + 1  # 2 KiB alive
        del first
        third = second * 2
        view = third.view(16, 16)
    assert (live.peak, live.now) == (2048, 2048)
    del second, third, view
    assert live.now == 0


def test_what_a_backward_pass_keeps_is_counted():
    layer = nn.Linear(64, 64, bias=False)
    with resources.LiveBytes() as live:
        inputs = torch.ones(8, 64, requires_grad=True)
        layer(inputs).relu().sum().backward()
    # Inputs, the hidden values before and after, and the layer's gradient at least.
    assert live.peak >= 4 * (3 * 8 * 64 + 64 * 64)


def test_a_line_through_two_counts_leaves_out_what_all_examples_share():
    weights = torch.ones(1000)

    def work(count):
        shared = weights + 1
        return shared, torch.zeros(count, 100)

    found = rehearsal.line(work, 32)
    assert (found.kept, found.batch) == (0, 32 * 400)


def test_the_largest_tensor_of_a_batch_grows_with_it():
    assert rehearsal.line(lambda count: torch.zeros(count, 100), 32).largest == 32 * 400


def test_the_heap_keeps_a_few_of_the_largest_tensors_but_none_over_32_mib():
    small, large = (rehearsal.Need(largest=mib * resources.MIB) for mib in (3, 500))
    assert (small.freed, large.freed) == (12 * resources.MIB, 128 * resources.MIB)


# The estimate


def test_a_dry_run_states_memory_and_disk_by_parts(dense):
    found = pipeline.dry_run(quick_recipe(dense), "nash", registry=REGISTRY)
    stages = ["planning", "checking", "recovery", "evaluation", "timing"]
    memory = found["memory_mib"]
    assert list(memory) == ["process", "data", "libraries", *stages, "peak", "total", "available"]
    assert memory["peak"] >= max(memory[stage] for stage in stages)
    assert memory["total"] == pytest.approx(memory["process"] + memory["peak"], abs=0.11)
    assert list(found["disk_mib"]) == ["models", "states", "writing", "peak"]
    assert json.loads(json.dumps(found)) == found


def test_what_a_method_holds_beside_the_model_is_estimated(dense):
    def planning(weight):
        nash = {"decoder_layers": 2, "label_weight": 1, "prediction_weight": weight}
        hidden = {"encoder_hidden_weight": 0, "decoder_hidden_weight": 0}
        train = {"epochs": 500, "batch_size": 512, "mask_learning_rate": 1.0}
        recipe = quick_recipe(dense, methods={"nash": {**nash, **hidden}}, train=train)
        return pipeline.dry_run(recipe, "nash", registry=REGISTRY)["memory_mib"]["planning"]

    # A teacher, and its answers beside the student's.
    assert planning(1.0) > planning(0.0)


def test_a_method_that_only_scores_is_tried_for_a_limited_time(dense, monkeypatch):
    monkeypatch.setattr(rehearsal, "PATIENCE_S", -1.0)
    recipe = quick_recipe(dense, methods={"magnitude": {}})
    memory = pipeline.dry_run(recipe, "magnitude", registry=REGISTRY)["memory_mib"]
    assert memory["planning"] == 0.0


def test_a_method_that_takes_half_of_the_memory_is_tried_no_further(dense, monkeypatch):
    monkeypatch.setattr(rehearsal, "available_mib", lambda: 0.0)
    recipe = quick_recipe(dense, methods={"magnitude": {}})
    memory = pipeline.dry_run(recipe, "magnitude", registry=REGISTRY)["memory_mib"]
    assert memory["peak"] > 0.0


def test_memory_is_given_back_after_a_stage(monkeypatch):
    given = []
    monkeypatch.setattr(resources, "release_memory", lambda: given.append(True))
    with resources.lower_if_out_of_memory("timing"):
        assert not given
    assert given


def test_a_larger_batch_is_estimated_larger(dense):
    def recovery(batch):
        recipe = quick_recipe(dense, recover={"epochs": 1, "batch_size": batch})
        return pipeline.dry_run(recipe, "nash", registry=REGISTRY)["memory_mib"]["recovery"]

    assert recovery(1024) > 4 * recovery(64)


def test_a_dry_run_leaves_the_model_and_the_random_state_alone(dense):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    pipeline.dry_run(quick_recipe(dense), "nash", registry=REGISTRY)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_run_needs_no_more_disk_than_estimated(dense, tmp_path):
    recipe = quick_recipe(dense)
    report = run(recipe, tmp_path / "run")
    method = resolve_method(recipe, "nash", REGISTRY)
    weights = sum(path.stat().st_size for path in (tmp_path / "run").rglob("*.safetensors")) / resources.MIB
    assert weights < resources.disk_estimate(report["achieved"]["params"]["dense"], method)["peak"]


# Disk


def test_too_little_disk_is_refused_with_both_figures(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=100 * resources.MIB))
    with pytest.raises(RunFolderError) as caught:
        resources.check_disk(tmp_path / "run", 2500.4)
    assert str(caught.value) == (
        f"{tmp_path / 'run'}: the run may need 2,500 MiB of disk, and there are 100 MiB free. Make room "
        "there, or give a folder on another disk with --out."
    )


def test_what_the_folder_holds_counts_as_room(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    (tmp_path / "state").write_bytes(bytes(resources.MIB))
    resources.check_disk(tmp_path, 1.0)


def test_a_run_on_a_full_disk_does_not_start(dense, tmp_path, monkeypatch):
    monkeypatch.setattr(resources, "free_mib", lambda folder: 0.0)
    with pytest.raises(RunFolderError, match="MiB of disk, and there are 0 MiB free"):
        run(quick_recipe(dense), tmp_path / "run")
    assert not (tmp_path / "run" / "plan.json").exists()


# Out of memory

ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    MemoryError(),
]


@pytest.mark.parametrize("error", ERRORS, ids=["gpu", "cpu", "python"])
def test_memory_that_ran_out_is_told_with_what_to_lower(error):
    with (
        pytest.raises(
            PrunekitError, match=r"^out of memory while evaluating \(.+\)\. Lower evaluate.batch_size"
        ),
        resources.lower_if_out_of_memory("evaluating"),
    ):
        raise error


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match=r"^shapes$"), resources.lower_if_out_of_memory("training"):
        raise RuntimeError("shapes")


STAGES = [
    ("Trainer.fit", "planning", "Lower train.batch_size"),
    ("recover", "recovering", "Lower recover.batch_size"),
    ("score", "evaluating", "Lower evaluate.batch_size or evaluate.num_beams"),
    ("measure_speed", "timing", "Lower speed.batch_size"),
]


@pytest.mark.parametrize(("name", "doing", "advice"), STAGES)
def test_a_stage_without_memory_says_so_and_the_run_goes_on_later(
    dense, tmp_path, monkeypatch, name, doing, advice
):
    def fail(*arguments, **named):
        raise torch.OutOfMemoryError("CUDA out of memory")

    recipe = quick_recipe(dense)
    with monkeypatch.context() as patched:
        patched.setattr(f"prunekit.job.{name}", fail)
        with pytest.raises(PrunekitError) as caught:
            run(recipe, tmp_path / "run")
    assert str(caught.value).startswith(f"out of memory while {doing} (CUDA out of memory). {advice}")
    assert run(recipe, tmp_path / "run")["quality"]["n"] == 8


# Determinism


def made(folder, names=("plan.json", "model/model.safetensors", "checkpoints/pruned/model.safetensors")):
    return [(folder / name).read_bytes() for name in names]


def test_the_same_recipe_and_seed_give_the_same_bytes(dense, tmp_path):
    for name in ("a", "b"):
        with deterministic():
            report = run(quick_recipe(dense), tmp_path / name)
        torch.rand(3)  # what was drawn before must not matter
    assert made(tmp_path / "a") == made(tmp_path / "b")
    assert report["environment"]["deterministic"] is True


def test_deterministic_kernels_are_in_force_inside_and_not_afterwards(monkeypatch):
    monkeypatch.delenv(CUBLAS, raising=False)
    with deterministic():
        assert environment_record()["deterministic"] is True
        assert os.environ[CUBLAS] == ":4096:8"
        assert (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark) == (True, False)
    assert environment_record()["deterministic"] is False
    assert CUBLAS not in os.environ
    assert torch.backends.cudnn.deterministic is False


def test_what_the_user_set_for_cublas_stays(monkeypatch):
    monkeypatch.setenv(CUBLAS, ":16:8")
    with deterministic():
        assert os.environ[CUBLAS] == ":16:8"
    assert os.environ[CUBLAS] == ":16:8"


def test_without_the_option_nothing_is_set():
    with deterministic(False):
        assert environment_record()["deterministic"] is False
