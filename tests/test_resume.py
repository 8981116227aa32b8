"""Training that was interrupted ends exactly as if it had not been; checkpoints hold no pickle."""

from __future__ import annotations

import re
import struct

import pytest
import torch
from number_task import equal_weights, fit, log_rows, net, spec, squared_error, weights
from safetensors import safe_open
from torch import nn

from prunekit.errors import CheckpointError
from prunekit.training.loop import Assessment, ParameterGroup

pytestmark = pytest.mark.usefixtures("one_thread")

# Six updates an epoch (two batches each, one left over), a checkpoint every third.
SETTINGS = spec(epochs=4, batch_size=3, gradient_accumulation=2, checkpoint_every=3)


class Stopped(Exception):
    """The interruption."""


class Run:
    """A model with dropout, a sampled module beside it and multipliers: everything that has a state."""

    def __init__(self, folder):
        self.folder = folder
        self.model = net(dropout=0.5)
        self.beside = nn.Linear(1, 3, bias=False)
        nn.init.ones_(self.beside.weight)
        self.multiplier = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(self.multiplier.weight)

    def loss(self, batch, step):
        noise = torch.rand(self.beside.weight.shape)
        gap = (self.beside.weight * noise).sum() - 0.1 * step
        penalty = self.multiplier.weight.sum() * gap
        return squared_error(self.model)(batch, step)[0] + penalty, {"gap": gap}

    def assess(self, step):
        # Rises and falls with the step, so that the best state lies in the middle.
        return Assessment({"score": -abs(step - 6.5)}, step > 3, (-abs(step - 6.5),))

    def fit(self, stop_after=None):
        def after_step(step):
            if step == stop_after:
                raise Stopped

        return fit(
            self.folder,
            self.model,
            SETTINGS,
            loss=self.loss,
            groups=[
                ParameterGroup(list(self.beside.parameters()), 0.1),
                ParameterGroup(list(self.multiplier.parameters()), 0.1, maximize=True),
            ],
            modules={"beside": self.beside, "multiplier": self.multiplier},
            after_step=after_step,
            assess=self.assess,
            assess_every=2,
        )

    def state(self):
        modules = {"model": self.model, "beside": self.beside, "multiplier": self.multiplier}
        return {f"{name}.{key}": t for name, m in modules.items() for key, t in weights(m).items()}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    run = Run(tmp_path_factory.mktemp("whole"))
    return run, run.fit()


def interrupted(folder, *stops):
    for stop in stops:
        with pytest.raises(Stopped):
            Run(folder).fit(stop_after=stop)
    run = Run(folder)
    return run, run.fit()


# Before the first checkpoint, inside an epoch, at a checkpoint, after the best state, twice.
@pytest.mark.parametrize("stops", [(2,), (5,), (7,), (9,), (13,), (4, 11)])
def test_a_resumed_run_ends_bit_identical(tmp_path, uninterrupted, stops):
    whole, result = uninterrupted
    run, resumed = interrupted(tmp_path, *stops)
    assert equal_weights(run.state(), whole.state())
    assert log_rows(tmp_path) == log_rows(whole.folder)
    assert (resumed.steps, resumed.best_step, resumed.best_rank, resumed.figures) == (
        result.steps,
        result.best_step,
        result.best_rank,
        result.figures,
    )
    assert result.best_step == 6


def test_a_finished_stage_is_not_trained_again(tmp_path, uninterrupted):
    whole, result = uninterrupted
    run = Run(tmp_path)
    run.fit()
    rows = log_rows(tmp_path)
    again = Run(tmp_path)
    again.loss = None  # never called
    assert again.fit().best_step == result.best_step
    assert log_rows(tmp_path) == rows
    assert equal_weights(again.state(), whole.state())


def test_a_half_written_log_line_is_dropped(tmp_path, uninterrupted):
    with pytest.raises(Stopped):
        Run(tmp_path).fit(stop_after=5)
    with (tmp_path / "train.jsonl").open("a") as log:
        log.write('{"stage": "stage", "st')
    Run(tmp_path).fit()
    assert log_rows(tmp_path) == log_rows(uninterrupted[0].folder)


def test_checkpoints_are_safetensors_and_nothing_else(uninterrupted):
    files = sorted((uninterrupted[0].folder / "checkpoints").iterdir())
    assert [file.name for file in files] == ["stage-best.safetensors", "stage-last.safetensors"]
    for file in files:
        size = struct.unpack("<Q", file.read_bytes()[:8])[0]
        assert file.read_bytes()[8:9] == b"{"
        assert size < file.stat().st_size
        with safe_open(file, framework="pt") as content:
            assert set(content.metadata()) == {"format", "facts"}


@pytest.mark.parametrize("damage", ["cut", "text", "pickle"])
def test_a_damaged_checkpoint_is_an_error_that_says_what_to_delete(tmp_path, damage):
    with pytest.raises(Stopped):
        Run(tmp_path).fit(stop_after=5)
    last = tmp_path / "checkpoints" / "stage-last.safetensors"
    if damage == "cut":
        last.write_bytes(last.read_bytes()[:200])
    elif damage == "text":
        last.write_text("not tensors")
    else:
        torch.save({"a": torch.ones(1)}, last)
    with pytest.raises(
        CheckpointError,
        match=r"^stage-last\.safetensors cannot be read \(.+\)\. Delete it to start this stage again\.$",
    ):
        Run(tmp_path).fit()
    last.unlink()
    assert Run(tmp_path).fit().steps == 14


def test_a_checkpoint_of_another_format_is_an_error(tmp_path):
    from safetensors.torch import save_file

    (tmp_path / "checkpoints").mkdir()
    save_file({"a": torch.ones(1)}, tmp_path / "checkpoints" / "stage-last.safetensors", {"format": "7"})
    text = (
        "stage-last.safetensors has format '7'; this prunekit reads 1. Delete it to start this stage again."
    )
    with pytest.raises(CheckpointError, match=f"^{re.escape(text)}$"):
        Run(tmp_path).fit()
