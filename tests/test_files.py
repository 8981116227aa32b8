"""Files are written whole or not at all, and a refusal of the system is told with what to do."""

import errno
import os
import re
import resource
import signal
from contextlib import contextmanager

import pytest
import torch
from safetensors.torch import save_file

from prunekit.errors import RunFolderError
from prunekit.files import is_leftover, replacing, replacing_folder, sweep, write_text
from prunekit.json_files import read_json

LAST = "What was written before stays. {} and give the same command again; it goes on where it was."


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def refuse(number):
    def call(*_, **__):
        raise OSError(number, os.strerror(number))

    return call


@contextmanager
def small_files():
    """A limit of 4 KiB a file that the system itself enforces: writing fails half-way.

    No fixture: pytest's own output may go to a file that is longer already.
    """
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.getsignal(signal.SIGXFSZ)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_text_is_written_into_folders_that_are_not_there_yet(tmp_path):
    write_text(tmp_path / "a" / "b" / "plan.json", "日本\n")
    assert (tmp_path / "a" / "b" / "plan.json").read_bytes() == "日本\n".encode()
    assert names(tmp_path / "a" / "b") == ["plan.json"]


def test_a_file_that_holds_the_text_already_is_not_touched(tmp_path, monkeypatch):
    write_text(tmp_path / "plan.json", "same")
    monkeypatch.setattr(os, "replace", refuse(errno.EROFS))
    write_text(tmp_path / "plan.json", "same")


def test_the_file_and_its_folder_are_on_the_disk_before_writing_is_done(tmp_path, monkeypatch):
    done = []
    sync, rename = os.fsync, os.replace

    def synced(handle):
        done.append("folder" if os.path.isdir(f"/proc/self/fd/{handle}") else "file")
        sync(handle)

    def renamed(*paths):
        done.append("rename")
        rename(*paths)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    write_text(tmp_path / "plan.json", "text")
    assert done == ["file", "rename", "folder"]


@pytest.mark.parametrize(
    ("number", "cause", "advice"),
    [
        (errno.ENOSPC, "the disk is full", "Free some space"),
        (errno.EDQUOT, "your quota on that disk is used up", "Free some space"),
        (errno.EROFS, "it is on a disk that can only be read", "Give a folder elsewhere with --out"),
        (errno.EACCES, "you may not write there", "Change the rights, or give another folder with --out"),
        (errno.ENAMETOOLONG, "the name is too long for that disk", "Give a shorter one with --out"),
        (errno.EIO, "the disk failed", "Give a folder on another disk with --out"),
        (errno.EBUSY, os.strerror(errno.EBUSY), "See to that"),
    ],
)
@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_a_refusal_names_path_cause_and_way_out_and_leaves_the_old_file(
    number, cause, advice, call, tmp_path, monkeypatch
):
    path = tmp_path / "plan.json"
    write_text(path, "old")
    monkeypatch.setattr(os, call, refuse(number))
    with pytest.raises(RunFolderError) as caught:
        write_text(path, "new")
    assert str(caught.value) == f"{path} cannot be written: {cause}. {LAST.format(advice)}"
    assert path.read_text() == "old"
    assert names(tmp_path) == ["plan.json"]


def test_a_write_that_the_system_cuts_off_leaves_the_old_file(tmp_path):
    path = tmp_path / "plan.json"
    write_text(path, "old")
    with (
        pytest.raises(RunFolderError, match=r"plan\.json cannot be written: files may not become that large"),
        small_files(),
    ):
        write_text(path, "x" * 10_000)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["plan.json"]


def test_tensors_that_the_system_cuts_off_are_told_the_same_way(tmp_path):
    path = tmp_path / "scores.safetensors"
    with (
        pytest.raises(RunFolderError, match=r"scores\.safetensors cannot be written: files may not become"),
        small_files(),
        replacing(path) as partial,
    ):
        save_file({"a": torch.zeros(10_000)}, partial)
    assert not path.exists()


def test_a_name_that_the_disk_does_not_take_is_refused_by_the_disk(tmp_path):
    path = tmp_path / ("a" * 300)
    with pytest.raises(RunFolderError, match="cannot be written: the name is too long for that disk"):
        write_text(path, "text")


def test_a_name_as_long_as_the_disk_takes_is_written(tmp_path):
    write_text(tmp_path / ("a" * 255), "text")
    assert names(tmp_path) == ["a" * 255]


def test_a_file_where_the_folder_should_be_is_told(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(RunFolderError, match=r"plan\.json cannot be written: what should be its folder is a"):
        write_text(tmp_path / "run" / "inner" / "plan.json", "text")


def test_an_error_of_the_writer_itself_is_not_taken_for_the_disks(tmp_path):
    path = tmp_path / "plan.json"
    with pytest.raises(ZeroDivisionError), replacing(path) as partial:
        partial.write_text(str(1 / 0))
    assert names(tmp_path) == []


def test_a_folder_appears_whole_in_place_of_the_old_one(tmp_path):
    for text in ("old", "new"):
        with replacing_folder(tmp_path / "model") as partial:
            (partial / "sub").mkdir()
            (partial / "sub" / text).write_text(text)
    assert names(tmp_path) == ["model"]
    assert names(tmp_path / "model" / "sub") == ["new"]


@pytest.mark.parametrize("failing", [1, 2])
def test_the_old_folder_stays_where_the_new_one_cannot_take_its_place(failing, tmp_path, monkeypatch):
    rename, calls = os.replace, []

    def fail(*paths):
        calls.append(paths)
        if len(calls) == failing:
            raise OSError(errno.ENOSPC, "")
        rename(*paths)

    with replacing_folder(tmp_path / "model") as partial:
        (partial / "old").write_text("")
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(RunFolderError, match=r"model cannot be written: the disk is full\."):  # noqa: SIM117
        with replacing_folder(tmp_path / "model") as partial:
            (partial / "new").write_text("")
    assert names(tmp_path) == ["model"]
    assert names(tmp_path / "model") == ["old"]


@pytest.fixture(params=[0o022, 0o007], ids=oct)
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_a_file_of_tensors_may_be_read_by_those_who_may_read_the_others(umask, tmp_path):
    with replacing(tmp_path / "state.safetensors") as partial:
        save_file({"a": torch.ones(1)}, partial)
    with replacing_folder(tmp_path / "model") as folder:
        save_file({"a": torch.ones(1)}, folder / "model.safetensors")
    write_text(tmp_path / "plan.json", "{}")
    modes = {path.stat().st_mode & 0o777 for path in tmp_path.rglob("*") if path.is_file()}
    assert modes == {0o666 & ~umask}


def test_leftovers_of_a_crash_are_swept_and_nothing_else(tmp_path):
    for name in ("plan.json.0a1b2c3d.partial", ".tmpAb12Cd", "partial", "plan.json", ".tmpfile", "x.tmp"):
        (tmp_path / name).write_text("")
    (tmp_path / "model.01234567.partial" / "deep").mkdir(parents=True)
    (tmp_path / "model").mkdir()
    sweep(tmp_path)
    assert names(tmp_path) == [".tmpfile", "model", "partial", "plan.json", "x.tmp"]


def test_a_link_among_the_leftovers_is_removed_and_what_it_points_to_stays(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "years.tex").write_text("of work")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model.partial").symlink_to(tmp_path / "thesis")
    sweep(tmp_path / "run")
    assert names(tmp_path / "run") == []
    assert names(tmp_path / "thesis") == ["years.tex"]


def test_every_partial_file_is_known_as_a_leftover(tmp_path):
    with replacing(tmp_path / "plan.json") as partial:
        partial.write_text("")
        assert is_leftover(partial.name)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"a": 1', "is damaged: not JSON: line 1, column 8: Expecting ',' delimiter"),
        (b"\xff\xfe", "is damaged: 'utf-8' codec"),
        (b"", "is damaged: not JSON: line 1, column 1: Expecting value"),
        (b"[1]", "is damaged: it holds no mapping"),
        (b'{"a": 1, "a": 2}', "is damaged: the key 'a' stands twice"),
        (b"[" * 100_000, "is damaged: its objects and lists lie too deep"),
    ],
)
def test_damaged_json_is_named_with_what_to_do(content, said, tmp_path):
    path = tmp_path / "quality.json"
    path.write_bytes(content)
    with pytest.raises(RunFolderError, match=f"{re.escape(said)}.*Delete it\\.$"):
        read_json(path, "Delete it.")


def test_json_that_is_not_there_is_named(tmp_path):
    with pytest.raises(RunFolderError, match=r"none\.json cannot be read \(No such file.*\)\. Delete it\.$"):
        read_json(tmp_path / "none.json", "Delete it.")
