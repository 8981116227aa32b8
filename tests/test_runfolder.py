"""A run's folder has one writer, is swept of what a crash left, and goes on only with whole files."""

import errno
import json
import os
import socket
import subprocess
import sys
import threading

import pytest

from prunekit import manifest
from prunekit.errors import RunFolderError
from prunekit.runfolder import LOCK, RunFolder, one_writer, training_log

RECIPE = "version: 1\n"
HOLDER = """
import sys
from pathlib import Path
from prunekit.runfolder import one_writer
with one_writer(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def refuse():
    raise AssertionError("computed again")


@pytest.fixture
def run(tmp_path):
    """A folder with two finished stages; the first wrote a plan, the second a model."""
    folder = RunFolder(tmp_path / "run", RECIPE)

    def plan():
        (folder.path / "plan.json").write_text('{"keep": {}}')
        return {"plan_s": 1}

    def train():
        (folder.path / "model").mkdir(exist_ok=True)
        (folder.path / "model" / "model.safetensors").write_bytes(b"weights")
        return {"steps": 2}

    folder.stage("verify", plan)
    folder.stage("recover", train)
    return folder.path


@pytest.fixture
def holder(tmp_path):
    """A process that holds the folder ``run`` until it is told to end."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path / "run")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


# One writer


def test_a_second_writer_is_refused_at_once_with_process_and_host_of_the_first(tmp_path, holder):
    with pytest.raises(RunFolderError) as caught, one_writer(tmp_path / "run"):
        pass
    assert str(caught.value) == (
        f"{tmp_path / 'run'} is being written by process {holder.pid} on {socket.gethostname()}. Wait until "
        "that has ended, or stop it, and give the same command again; or give another folder with --out."
    )


def test_the_refused_writer_leaves_the_first_ones_lock(tmp_path, holder):
    with pytest.raises(RunFolderError), one_writer(tmp_path / "run"):
        pass
    assert json.loads((tmp_path / "run" / LOCK).read_text())["pid"] == holder.pid


def test_the_lock_of_a_killed_process_does_not_block(tmp_path, holder):
    holder.kill()
    holder.wait()
    assert names(tmp_path / "run") == [LOCK]
    with one_writer(tmp_path / "run"):
        assert json.loads((tmp_path / "run" / LOCK).read_text())["pid"] == os.getpid()


def test_a_folder_is_free_once_its_writer_has_ended(tmp_path, holder):
    holder.communicate("\n")
    with one_writer(tmp_path / "run"):
        pass
    assert holder.returncode == 0


def test_another_thread_is_another_writer(tmp_path):
    said = []

    def write():
        try:
            with one_writer(tmp_path / "run"):
                said.append("written")
        except RunFolderError as error:
            said.append(str(error))

    with one_writer(tmp_path / "run"):
        thread = threading.Thread(target=write)
        thread.start()
        thread.join()
    assert f"is being written by process {os.getpid()} on" in said[0]


def test_a_lock_that_says_nothing_yet_is_held_by_another_process(tmp_path, holder):
    (tmp_path / "run" / LOCK).write_text("")
    with (
        pytest.raises(RunFolderError, match="is being written by another process"),
        one_writer(tmp_path / "run"),
    ):
        pass


def test_a_writer_that_fails_leaves_no_lock_and_no_empty_folder(tmp_path):
    with pytest.raises(KeyboardInterrupt), one_writer(tmp_path / "run"):
        raise KeyboardInterrupt
    assert names(tmp_path) == []


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_done(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.EROFS, "")

    (tmp_path / "run").mkdir()
    monkeypatch.setattr(os, "open", full)
    said = r"cannot be written: it is on a disk that can only be read\."
    with pytest.raises(RunFolderError, match=said), one_writer(tmp_path / "run"):
        pass


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "run").write_text("")
    said = r"run is a file\. Give another folder with --out\.$"
    with pytest.raises(RunFolderError, match=said), one_writer(tmp_path / "run"):
        pass


# What a crash leaves


def test_half_written_files_of_a_run_are_swept_when_it_goes_on(run):
    left = ["plan.json.01234567.partial", "checkpoints/recover-last.89abcdef.partial", "model/.tmpAb12Cd"]
    (run / "checkpoints").mkdir()
    for name in left:
        (run / name).write_text("half")
    with one_writer(run):
        assert [name for name in left if (run / name).exists()] == []


def test_files_that_look_half_written_in_a_folder_without_a_run_stay(tmp_path):
    (tmp_path / "film.partial").write_text("")
    with one_writer(tmp_path):
        pass
    assert names(tmp_path) == ["film.partial"]


def test_a_run_killed_while_it_wrote_its_first_file_starts_again(tmp_path):
    (tmp_path / "recipe.yaml.01234567.partial").write_text("vers")
    with one_writer(tmp_path):
        RunFolder(tmp_path, RECIPE)
        assert names(tmp_path) == [LOCK, "recipe.yaml"]


def test_a_stage_that_failed_counts_as_not_done(tmp_path):
    folder = RunFolder(tmp_path / "run", RECIPE)
    with pytest.raises(ZeroDivisionError):
        folder.stage("verify", lambda: {"share": 1 / 0})
    assert not folder.has("verify")
    assert names(folder.path) == ["recipe.yaml"]


def test_a_full_disk_at_the_end_of_a_stage_leaves_the_stages_before_it(run, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "")

    folder = RunFolder(run, RECIPE)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(
            RunFolderError, match=r"quality\.json cannot be written: the disk is full\. What was"
        ):
            folder.stage("quality", lambda: {"n": 1})
    again = RunFolder(run, RECIPE)
    assert [again.has(name) for name in ("verify", "recover", "quality")] == [True, True, False]


def test_a_crash_before_the_manifest_was_written_computes_nothing_again(run):
    (run / "manifest.json").unlink()
    folder = RunFolder(run, RECIPE)
    assert folder.stage("verify", refuse) == {"plan_s": 1}
    assert folder.stage("recover", refuse) == {"steps": 2}
    recorded = json.loads((run / "manifest.json").read_text())["files"]
    assert {name: entry["stage"] for name, entry in recorded.items()} == {
        "model/model.safetensors": "recover",
        "plan.json": "verify",
        "recover.json": "recover",
        "verify.json": "verify",
    }


# Files that changed


@pytest.mark.parametrize(
    ("name", "stage"),
    [("plan.json", "verify"), ("verify.json", "verify"), ("model/model.safetensors", "recover")],
)
@pytest.mark.parametrize("damage", ["cut off", "one bit"])
def test_a_damaged_file_is_named_with_its_stage_before_anything_is_read(run, name, stage, damage):
    data = (run / name).read_bytes()
    (run / name).write_bytes(data[:-3] if damage == "cut off" else bytes([data[0] ^ 1]) + data[1:])
    what = (
        f"has {len(data) - 3} bytes where {len(data)} were written"
        if damage == "cut off"
        else "has the sha256"
    )
    with pytest.raises(RunFolderError) as caught:
        RunFolder(run, RECIPE)
    assert str(caught.value).startswith(
        f"{run}: not as the run left it:\n  {name} of the stage {stage} {what}"
    )
    assert str(caught.value).endswith(
        "\nDelete it to compute that stage again, and what was computed from it, with the command that began "
        "the run; or bring back the file as it was."
    )


def test_deleting_the_named_file_computes_its_stage_and_what_was_built_on_it_again(run, caplog):
    (run / "plan.json").unlink()
    folder = RunFolder(run, RECIPE)
    assert [folder.has(name) for name in ("verify", "recover")] == [False, False]
    assert caplog.messages == [f"plan.json is missing from {run}: verify is computed again"]


def test_a_stage_on_which_nothing_missing_bears_stays(run):
    (run / "model" / "model.safetensors").unlink()
    folder = RunFolder(run, RECIPE)
    assert [folder.has(name) for name in ("verify", "recover")] == [True, False]


def test_a_stage_computed_again_takes_what_was_built_on_it_along_even_if_it_fails(run):
    (run / "checkpoints").mkdir()
    for name in ("verify-last.safetensors", "recover-last.safetensors"):
        (run / "checkpoints" / name).write_text("state")
    (run / "verify.json").unlink()
    with pytest.raises(ZeroDivisionError):
        RunFolder(run, RECIPE).stage("verify", lambda: {"share": 1 / 0})
    assert not (run / "recover.json").exists()
    assert names(run / "checkpoints") == ["verify-last.safetensors"]


def test_a_damaged_stage_of_a_run_without_a_manifest_is_named(run):
    (run / "manifest.json").unlink()
    (run / "verify.json").write_text('{"plan_s": ')
    with pytest.raises(RunFolderError) as caught:
        RunFolder(run, RECIPE).stage("verify", refuse)
    assert str(caught.value) == (
        f"{run / 'verify.json'} is damaged: not JSON: line 1, column 12: Expecting value. Delete it to "
        "compute the stage verify again."
    )


def test_a_damaged_recipe_is_not_taken_for_this_runs(run):
    (run / "recipe.yaml").write_bytes(b"\xff\x00")
    with pytest.raises(RunFolderError, match="already holds a different run"):
        RunFolder(run, RECIPE)


# The log


def test_a_log_is_read_row_by_row(tmp_path):
    (tmp_path / "train.jsonl").write_text('{"step": 1}\n{"step": 2}\n')
    assert training_log(tmp_path) == [{"step": 1}, {"step": 2}]


@pytest.mark.parametrize(
    ("line", "problem"),
    [('{"step": ', "not JSON (Expecting value: line 1 column 10 (char 9))"), ("[2]", "not an object")],
)
def test_a_damaged_line_of_the_log_is_named(line, problem, tmp_path):
    (tmp_path / "train.jsonl").write_text(f'{{"step": 1}}\n{line}\n')
    with pytest.raises(RunFolderError) as caught:
        training_log(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path / 'train.jsonl'}, line 2: {problem}. Delete that line; only the curves of the "
        "report need it."
    )


def test_a_stage_that_is_dropped_takes_the_files_of_later_stages_with_it(tmp_path):
    folder = RunFolder(tmp_path / "run", RECIPE)

    def answer(text):
        return {"written": (folder.path / "answers-pruned.jsonl").write_text(text)}

    folder.stage("recover", lambda: {})
    folder.stage("quality", lambda: answer("old"))
    folder.drop("recover")
    folder.stage("recover", lambda: {})
    folder.stage("quality", lambda: answer("newer"))
    assert manifest.read(folder.path)["answers-pruned.jsonl"]["stage"] == "quality"
    assert manifest.check(folder.path) == []


def test_a_kill_while_a_stage_is_dropped_leaves_it_undone(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path / "run", RECIPE)

    folder.stage("verify", lambda: {"written": (folder.path / "plan.json").write_text("{}")})
    (folder.path / "plan.json").unlink()

    def killed(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(manifest, "forget", killed)
    with pytest.raises(KeyboardInterrupt):
        RunFolder(folder.path, RECIPE).drop("verify")
    monkeypatch.undo()
    assert not RunFolder(folder.path, RECIPE).has("verify")


def test_training_on_data_that_are_not_known_any_more_is_refused(tmp_path):
    folder = RunFolder(tmp_path / "run", RECIPE)
    folder.same("data", {"rows.csv": "1"}, "data")
    (folder.path / "checkpoints").mkdir()
    (folder.path / "checkpoints" / "prune-last.safetensors").write_bytes(b"")
    (folder.path / "data.json").unlink()
    with pytest.raises(
        RunFolderError,
        match=r"data\.json is missing, which says what data the run was begun with, and prune-last\.safe",
    ):
        RunFolder(folder.path, RECIPE).same("data", {"rows.csv": "2"}, "data")
