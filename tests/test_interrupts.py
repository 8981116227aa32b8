"""SIGINT and SIGTERM: training ends after its step with its state saved, everything else where it is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from cli_calls import call_main
from number_task import equal_weights, fit, log_rows, net, spec, squared_error
from pipeline_calls import quick_recipe, run, saved_tiny
from stopping_plugin import stopping
from test_resume import Run

from prunekit import interrupts
from prunekit.interrupts import Interrupted
from prunekit.recipe import dump_recipe
from prunekit.training import checkpoints

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

INT, TERM = signal.SIGINT, signal.SIGTERM
GO_ON = "Give the same command again to go on."


@pytest.fixture(autouse=True)
def sigint_as_in_a_shell():
    """Python's own handler: a job in the background begins with SIGINT ignored."""
    before = signal.signal(INT, signal.default_int_handler)
    yield
    signal.signal(INT, before)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    run = Run(tmp_path_factory.mktemp("whole"))
    return run, run.fit()


class Signalled(Run):
    """The run with a signal in it.

    Args:
        folder: of the run.
        step: in whose update the signal comes, counted from 1.
        place: ``loss`` or ``assess``.
        numbers: the signals.
    """

    def __init__(self, folder, step, place="loss", numbers=(TERM,)):
        super().__init__(folder)
        self.step, self.place, self.numbers = step, place, numbers

    def _send(self, place, step):
        if (place, step) == (self.place, self.step):
            numbers, self.numbers = self.numbers, ()
            for number in numbers:
                signal.raise_signal(number)

    def loss(self, batch, step):
        self._send("loss", step + 1)
        return super().loss(batch, step)

    def assess(self, step):
        self._send("assess", step)
        torch.rand(1)
        return super().assess(step)

    def stopped(self):
        """The interruption that ends the run."""
        with interrupts.caught(), pytest.raises(Interrupted) as found:
            self.fit()
        return found.value


def saved(folder):
    return checkpoints.load_tensors(folder / "checkpoints" / "stage-last.safetensors")[1]


# Training


@pytest.mark.parametrize(("number", "code"), [(INT, 130), (TERM, 143)])
def test_the_step_is_finished_and_saved(tmp_path, number, code):
    stop = Signalled(tmp_path, 5, numbers=(number,)).stopped()
    assert str(stop) == f"Stopped by {number.name} after step 5 of 14 of stage, whose state is saved. {GO_ON}"
    assert stop.exit_code == code
    assert saved(tmp_path)["step"] == 5
    assert log_rows(tmp_path)[-1]["step"] == 5


# The first update, inside an epoch, before an assessment, at a checkpoint too, the last update.
@pytest.mark.parametrize("step", [1, 5, 8, 6, 14])
def test_a_run_that_was_stopped_and_goes_on_ends_bit_identical(tmp_path, whole, step):
    Signalled(tmp_path, step).stopped()
    run = Run(tmp_path)
    result = run.fit()
    assert saved(tmp_path)["step"] == 14
    assert equal_weights(run.state(), whole[0].state())
    assert (result.best_step, result.best_rank, result.figures) == (
        whole[1].best_step,
        whole[1].best_rank,
        whole[1].figures,
    )
    assert log_rows(tmp_path) == log_rows(whole[0].folder)


@pytest.mark.parametrize("step", [6, 14])
def test_an_assessment_stops_where_it_is_and_is_done_again(tmp_path, whole, step):
    stop = Signalled(tmp_path, step, "assess").stopped()
    assert f"after step {step} of 14 of stage, whose state is saved" in str(stop)
    assert log_rows(tmp_path)[-1]["step"] == step - 1
    run = Run(tmp_path)
    assert run.fit().best_step == whole[1].best_step
    assert equal_weights(run.state(), whole[0].state())
    assert log_rows(tmp_path) == log_rows(whole[0].folder)


def test_a_signal_before_an_assessment_does_not_wait_for_it(tmp_path):
    run = Signalled(tmp_path, 6)
    run.assess = lambda step: Run.assess(run, step) if step < 6 else pytest.fail("assessed")
    run.stopped()
    assert saved(tmp_path)["unjudged"].keys() == {"loss", "gap", "grad_norm", "learning_rate"}


def test_a_second_signal_stops_at_once(tmp_path, whole):
    stop = Signalled(tmp_path, 5, numbers=(INT, TERM)).stopped()
    assert str(stop) == f"Stopped by SIGTERM; every finished stage is kept. {GO_ON}"
    assert saved(tmp_path)["step"] == 3
    run = Run(tmp_path)
    run.fit()
    assert equal_weights(run.state(), whole[0].state())


def test_the_first_signal_is_answered_on_standard_error(tmp_path, capfd):
    Signalled(tmp_path, 5).stopped()
    assert "\nSIGTERM: saving after this step; once more stops at once.\n" in capfd.readouterr().err


def test_the_library_alone_catches_nothing(tmp_path):
    before = [signal.getsignal(number) for number in (INT, TERM)]
    model, seen = net(), []

    def loss(batch, step):
        seen.append([signal.getsignal(number) for number in (INT, TERM)])
        return squared_error(model)(batch, step)

    fit(tmp_path, model, spec(), loss=loss)
    assert all(handlers == before for handlers in seen)


# Elsewhere


@pytest.mark.parametrize(("number", "code"), [(INT, 130), (TERM, 143)])
def test_outside_training_the_command_stops_where_it_is(capsys, monkeypatch, number, code):
    monkeypatch.setattr("prunekit.plugins.get_registry", lambda: signal.raise_signal(number))
    result = call_main(capsys, "methods", "list")
    assert result.code == code
    assert result.err == f"Stopped by {number.name}; every finished stage is kept. {GO_ON}\n"


@pytest.fixture(scope="module")
def cheap(tmp_path_factory):
    """A recipe that trains two steps, and the folder of its run."""
    folder = tmp_path_factory.mktemp("cheap")
    recipe = quick_recipe(saved_tiny(folder / "dense"), methods={"first": {}}, recover={"max_steps": 2})
    run(recipe, folder / "whole")
    return recipe, folder / "whole"


@pytest.mark.slow
@pytest.mark.parametrize("place", ["verify", "save_model", "score", "measure_speed"])
def test_a_stage_that_was_stopped_leaves_whole_files_and_is_done_again(tmp_path, monkeypatch, cheap, place):
    recipe, finished = cheap
    with monkeypatch.context() as patch:
        patch.setattr(f"prunekit.job.{place}", lambda *arguments, **options: signal.raise_signal(TERM))
        with interrupts.caught(), pytest.raises(Interrupted):
            run(recipe, tmp_path / "run")
    for path in (tmp_path / "run").glob("*.json"):
        json.loads(path.read_text())
    assert not (tmp_path / "run" / "report.json").exists()
    run(recipe, tmp_path / "run")
    for name in ("plan.json", "model/model.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (finished / name).read_bytes()


def test_handlers_are_put_back():
    before = [signal.getsignal(number) for number in (INT, TERM)]
    with interrupts.caught():
        assert signal.getsignal(TERM) != before[1]
    assert [signal.getsignal(number) for number in (INT, TERM)] == before


def test_a_signal_that_the_process_ignores_stays_ignored(monkeypatch):
    before = signal.signal(INT, signal.SIG_IGN)
    try:
        with interrupts.caught():
            signal.raise_signal(INT)
            assert signal.getsignal(INT) == signal.SIG_IGN
    finally:
        signal.signal(INT, before)


def test_outside_the_main_thread_nothing_is_caught():
    found = []

    def work():
        with interrupts.caught():
            found.append(signal.getsignal(TERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(TERM)]


@pytest.mark.slow
def test_the_same_command_goes_on_after_a_sigterm_in_another_process(tmp_path, capsys, monkeypatch):
    recipe = tmp_path / "quick.yaml"
    model = saved_tiny(tmp_path / "dense")
    nash = {"decoder_layers": 2, "sparsity_tolerance": 0.9, "validation_limit": 4}
    recipe.write_text(dump_recipe(quick_recipe(model, methods={"stopping": nash})))

    def command(name):
        return ["prune", str(recipe), "--out", str(tmp_path / name)]

    program = str(Path(__file__).parent / "stopping_plugin.py")
    ended = subprocess.run(
        [sys.executable, program, "SIGTERM", "6", *command("run")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 143, ended.stderr
    assert f"Stopped by SIGTERM after step 6 of 10 of prune, whose state is saved. {GO_ON}\n" in ended.stderr
    monkeypatch.setattr("prunekit.plugins.get_registry", stopping)
    for name in ("run", "whole"):
        assert call_main(capsys, *command(name)).code == 0
    for name in ("plan.json", "train.jsonl", "model/model.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
