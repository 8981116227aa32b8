"""Whole-or-nothing files: a crash, a full disk or a read-only folder leaves the old file or the new one."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from prunekit import ranks
from prunekit.errors import RunFolderError

PARTIAL = ".partial"
"""How names end of what is being written."""

_NAME_LENGTH = 50
"""Characters of a file's name that its partial file keeps: four bytes each, they fit every file system."""
# safetensors writes into such a file first, and leaves it there if it is killed.
_LEFTOVER = re.compile(r".*\.partial|\.tmp[A-Za-z0-9]{6}")
_CAUSES = {
    errno.ENOSPC: ("the disk is full", "Free some space"),
    errno.EDQUOT: ("your quota on that disk is used up", "Free some space"),
    errno.EFBIG: ("files may not become that large here (see `ulimit -f`)", "Raise the limit"),
    errno.EROFS: ("it is on a disk that can only be read", "Give a folder elsewhere with --out"),
    errno.EACCES: ("you may not write there", "Change the rights, or give another folder with --out"),
    errno.EPERM: ("you may not write there", "Change the rights, or give another folder with --out"),
    errno.ENAMETOOLONG: (
        "the name is too long for that disk",
        "Give a shorter one with --out",
    ),
    errno.ENOTDIR: ("what should be its folder is a file", "Give another folder with --out"),
    errno.EIO: ("the disk failed", "Give a folder on another disk with --out"),
}
"""By error number what happened, and what to do before the command is given again."""


def write_text(path: Path, text: str) -> None:
    """Write ``text`` so that a crash leaves the old file or the new one, never half of it.

    A file that holds the same text already is not touched. Of several processes the first alone writes.

    Raises:
        RunFolderError: if it cannot be written; the old file stays.
    """
    if not ranks.is_first():
        return
    data = text.encode("utf-8")
    with writing(path):
        if path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data:
            return
    with replacing(path) as partial:
        partial.write_bytes(data)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file beside ``path`` to write into, which takes its place, on the disk for good, once that went well.

    Where it did not, the old file stays and the new one is removed.

    Raises:
        RunFolderError: if the system refused to write.
    """
    partial = _partial(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            mode = _mode_of_new(path.parent)
            yield partial
            _give_mode(partial, mode)
            _sync(partial)
            os.replace(partial, path)
        except BaseException:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise
        _sync(path.parent)


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """As ``replacing``, for a folder with all that is in it; an old one goes only once the new one is there.

    A crash between the two renames leaves neither under its name; no stage counts as done then.

    Raises:
        RunFolderError: if the system refused to write.
    """
    partial, old = _partial(folder), _partial(folder)
    with writing(folder):
        try:
            partial.mkdir(parents=True)
            mode = _mode_of_new(partial)
            yield partial
            for path in [*partial.rglob("*"), partial]:
                if path.is_file():
                    _give_mode(path, mode)
                _sync(path)
            if folder.exists():
                os.replace(folder, old)
            os.replace(partial, folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            if old.exists() and not folder.exists():
                with suppress(OSError):
                    os.replace(old, folder)
            raise
        shutil.rmtree(old, ignore_errors=True)
        _sync(folder.parent)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the system's refusal to write ``path`` into an error that says why, and what to do.

    Raises:
        RunFolderError: if the system refused.
    """
    try:
        yield
    except Exception as error:
        number = _number(error)
        if number is None:
            raise
        cause, advice = _CAUSES.get(number, (os.strerror(number), "See to that"))
        raise RunFolderError(
            f"{path} cannot be written: {cause}. What was written before stays. {advice} and give the same "
            "command again; it goes on where it was."
        ) from error


def sweep(folder: Path, wanted: Callable[[str], bool] = lambda name: True) -> None:
    """Remove from ``folder``, not from folders in it, what writing left there that a crash ended.

    Only the one process that may write there should call this. What cannot be removed stays.

    Args:
        folder: where to look; it need not be there.
        wanted: given a leftover's name, whether to remove it.
    """
    with suppress(OSError):
        for path in sorted(folder.iterdir()):
            if is_leftover(path.name) and wanted(path.name):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    with suppress(OSError):
                        path.unlink()


def is_leftover(name: str) -> bool:
    """Whether a file of this name is one that was being written."""
    return _LEFTOVER.fullmatch(name) is not None


def _partial(path: Path) -> Path:
    # Its own for each writer: two runs may write the same scores of a dense model at a time.
    return path.with_name(f"{path.name[:_NAME_LENGTH]}.{secrets.token_hex(4)}{PARTIAL}")


def _mode_of_new(folder: Path) -> int:
    """Who may read and write a new file there, as the umask and the folder say."""
    probe = _partial(folder / "mode")
    handle = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        return stat.S_IMODE(os.fstat(handle).st_mode)
    finally:
        os.close(handle)
        probe.unlink()


def _give_mode(path: Path, mode: int) -> None:
    """Safetensors makes files that nobody else may read; they are to be as all others."""
    if stat.S_IMODE(path.stat().st_mode) != mode:
        path.chmod(mode)


def _sync(path: Path) -> None:
    """Have the system put a file, or a folder's names, on the disk now."""
    if path.is_dir() and os.name == "nt":
        return  # Windows opens no folders
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network disks cannot
            raise
    finally:
        os.close(handle)


def _number(error: Exception) -> int | None:
    """The system's error number; safetensors, which writes by itself, tells it in its text."""
    if isinstance(error, OSError):
        return error.errno
    if type(error).__name__ == "SafetensorError" and (said := re.search(r"\(os error (\d+)\)", str(error))):
        return int(said[1])
    return None
