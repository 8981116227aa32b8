"""Training that was interrupted ends exactly as if it had not been; checkpoints hold no pickle."""

from __future__ import annotations

import itertools
import re
import struct

import pytest
import torch
from number_task import equal_weights, fit, log_rows, net, spec, squared_error, weights
from safetensors import safe_open
from torch import nn

from prunekit.errors import CheckpointError
from prunekit.training import checkpoints
from prunekit.training.loop import Assessment, ParameterGroup
from prunekit.training.stage import Stage

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


@pytest.mark.parametrize(
    "tail",
    [
        b'{"stage": "stage", "st',
        b'{"stage": "stage", "step": 3, "x": {}',  # ends as whole lines do
        b'{"stage": "st\xc3',  # half a character
        b"\0" * 40,  # what some file systems leave after a power cut
        b"7}",
    ],
)
def test_a_half_written_log_line_is_dropped(tmp_path, uninterrupted, tail):
    with pytest.raises(Stopped):
        Run(tmp_path).fit(stop_after=5)
    with (tmp_path / "train.jsonl").open("ab") as log:
        log.write(tail)
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
            assert set(content.metadata()) == {"format", "facts", "sha256"}


# The updates at which states are written: last 3, best 4, best 6, last 6, last 9, last 12, last 14.
@pytest.mark.parametrize("number", range(1, 8))
def test_a_crash_while_a_state_is_written_leaves_the_one_before(tmp_path, uninterrupted, monkeypatch, number):
    save, calls = checkpoints.save_file, itertools.count(1)

    def killed(tensors, path, metadata):
        save(tensors, path, metadata=metadata)
        if next(calls) == number:
            path.write_bytes(path.read_bytes()[:300])
            raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save_file", killed)
        with pytest.raises(Stopped):
            Run(tmp_path).fit()
    whole, result = uninterrupted
    run = Run(tmp_path)
    assert run.fit().best_step == result.best_step
    assert equal_weights(run.state(), whole.state())
    assert log_rows(tmp_path) == log_rows(whole.folder)


def test_a_crash_between_the_last_and_the_best_state_loses_neither(tmp_path, uninterrupted, monkeypatch):
    settle = Stage._settle_best

    def killed(stage):
        if stage.done == 6 and stage.best_step == 6:
            raise Stopped
        settle(stage)

    with monkeypatch.context() as patch:
        patch.setattr(Stage, "_settle_best", killed)
        with pytest.raises(Stopped):
            Run(tmp_path).fit()
    run = Run(tmp_path)
    assert run.fit().best_step == 6
    assert equal_weights(run.state(), uninterrupted[0].state())


def test_a_best_state_that_no_checkpoint_speaks_of_does_not_replace_the_one_before(tmp_path):
    # As where kernels are not deterministic: what was best before the crash is not best after it.
    verdicts = {2: 1.0, 4: 0.0, 6: 5.0}
    model, states = net(), {}

    def assess(step):
        states[step] = weights(model)
        return Assessment({}, rank=(verdicts.get(step, 0.0),))

    def stop(step):
        if step == 7:
            raise Stopped

    settings = spec(checkpoint_every=4)
    with pytest.raises(Stopped):
        fit(tmp_path, model, settings, assess=assess, assess_every=2, after_step=stop)
    second = states[2]
    verdicts[6] = 0.0
    model = net()
    assert fit(tmp_path, model, settings, assess=assess, assess_every=2).best_step == 2
    assert equal_weights(weights(model), second)


def test_a_best_state_of_another_step_is_an_error_that_says_what_to_delete(tmp_path):
    Run(tmp_path).fit()
    best = tmp_path / "checkpoints" / "stage-best.safetensors"
    checkpoints.save_tensors(best, checkpoints.load_tensors(best)[0], {"step": 4})
    text = (
        "stage-best.safetensors holds step 4, but the best state was that of step 6. Delete it and "
        "stage-last.safetensors to start this stage again."
    )
    with pytest.raises(CheckpointError, match=f"^{re.escape(text)}$"):
        Run(tmp_path).fit()


@pytest.mark.parametrize("damage", ["cut", "flipped", "text", "pickle"])
def test_a_damaged_checkpoint_is_an_error_that_says_what_to_delete(tmp_path, damage):
    with pytest.raises(Stopped):
        Run(tmp_path).fit(stop_after=5)
    last = tmp_path / "checkpoints" / "stage-last.safetensors"
    if damage == "cut":
        last.write_bytes(last.read_bytes()[:200])
    elif damage == "flipped":
        content = bytearray(last.read_bytes())
        content[-5] ^= 1
        last.write_bytes(content)
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
        "stage-last.safetensors has format '7'; this prunekit reads 2. Delete it to start this stage again."
    )
    with pytest.raises(CheckpointError, match=f"^{re.escape(text)}$"):
        Run(tmp_path).fit()


def test_a_lost_best_state_is_an_error_whose_advice_helps(tmp_path):
    whole = Run(tmp_path)
    whole.fit()
    (tmp_path / "checkpoints" / "stage-best.safetensors").write_bytes(b"cut")
    with pytest.raises(
        CheckpointError, match=r"Delete it and stage-last\.safetensors to start this stage again\.$"
    ):
        Run(tmp_path).fit()
    for name in ("stage-best.safetensors", "stage-last.safetensors"):
        (tmp_path / "checkpoints" / name).unlink()
    again = Run(tmp_path)
    again.fit()
    assert equal_weights(again.state(), whole.state())


@pytest.mark.parametrize("error", [MemoryError("no room"), RuntimeError("can't allocate memory: 1 byte")])
def test_memory_that_runs_out_is_no_damage(error, tmp_path, monkeypatch):
    with pytest.raises(Stopped):
        Run(tmp_path).fit(stop_after=5)

    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(checkpoints, "safe_open", fail)
    with pytest.raises(type(error), match=str(error)):
        Run(tmp_path).fit()
