"""The folder of one run: which run it belongs to, and which of its stages are done."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from filelock import BaseFileLock, FileLock, Timeout

from prunekit import manifest, ranks
from prunekit.errors import RunFolderError
from prunekit.files import is_leftover, sweep, write_text, writing
from prunekit.json_files import read_json
from prunekit.recipe import Recipe, Source, dump_recipe

RUNS = Path("runs")
"""Where runs go that are given no folder."""

LOCK = ".lock"
"""File that is there while a process writes into a run's folder; it says which."""

_IS_FILE = "{} is a file. Give another folder with --out."
_log = logging.getLogger(__name__)


def sha256(text: str) -> str:
    """Hex digest of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def recipe_name(source: Source, recipe: Recipe) -> str:
    """What runs of a recipe are called: its file's name, or of one without a file its task and a digest.

    Args:
        source: where the recipe comes from.
        recipe: what was read there.
    """
    if isinstance(source, str | Path):
        return Path(source).stem
    return f"{recipe.task.name}-{sha256(dump_recipe(recipe))[:8]}"


def training_log(folder: Path) -> list[dict[str, Any]]:
    """A run's ``train.jsonl``, an entry a step; empty where nothing was trained.

    Raises:
        RunFolderError: if a line is damaged; the text says which.
    """
    path = folder / "train.jsonl"
    if not path.is_file():
        return []
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            row, problem = None, f"not JSON ({error})"
        else:
            problem = "not an object"
        if not isinstance(row, dict):
            raise RunFolderError(
                f"{path}, line {number}: {problem}. Delete that line; only the curves of the report need it."
            )
        rows.append(row)
    return rows


@contextmanager
def one_writer(path: Path) -> Iterator[None]:
    """Hold a run's or a comparison's folder, so that no other process writes into it meanwhile.

    The folder is made if need be, and removed again if it stays empty; what a crash left half-written in it
    is removed. A process that has died holds nothing: the system itself lets go of its lock.

    Args:
        path: the folder.

    Raises:
        RunFolderError: if another process, or another thread of this one, holds it, or it cannot be written.
    """
    if path.is_file():
        raise RunFolderError(_IS_FILE.format(path))
    taken: list[_Taken] = []  # by the first process, for all
    try:
        ranks.from_first(lambda: taken.append(_take(path)))
        yield
    finally:
        for one in taken:
            one.release()


class _Taken(NamedTuple):
    """A folder that this process holds."""

    path: Path
    lock: BaseFileLock
    made: bool

    def release(self) -> None:
        with suppress(OSError):
            (self.path / LOCK).unlink()  # before the release: who gets the lock then sees its file is gone
        self.lock.release()
        if self.made:
            with suppress(OSError):
                self.path.rmdir()


def _take(path: Path) -> _Taken:
    own = path / LOCK
    taken = _Taken(path, FileLock(own), made=not path.exists())
    with writing(own):
        path.mkdir(parents=True, exist_ok=True)
        try:
            taken.lock.acquire(blocking=False)
        except Timeout:
            raise RunFolderError(_held(path)) from None
    try:
        with writing(own):
            own.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
        _sweep(path)
    except BaseException:
        taken.release()
        raise
    return taken


def _held(path: Path) -> str:
    """What to say of a folder that another process holds."""
    try:
        holder = json.loads((path / LOCK).read_text(encoding="utf-8"))
        by = f"process {int(holder['pid'])} on {holder['host']}"
    except (OSError, ValueError, KeyError, TypeError):  # it is only just writing that
        by = "another process"
    return (
        f"{path} is being written by {by}. Wait until that has ended, or stop it, and give the same command "
        "again; or give another folder with --out."
    )


def _sweep(path: Path) -> None:
    if any((path / name).is_file() for name in ("recipe.yaml", "comparison.json", "timing.json")):
        for folder in (path, path / "checkpoints", path / "model"):
            sweep(folder)
    else:  # a run that was killed at its first file; anything else in there is somebody's own
        sweep(path, lambda name: name.startswith("recipe.yaml."))


class RunFolder:
    """Opens ``path`` for one run, or goes on with that run if it is there already.

    Args:
        path: the folder; made if need be.
        recipe: the resolved recipe as text, label included; it identifies the run.

    A folder whose run failed before it produced anything is taken over.

    Raises:
        RunFolderError: if the folder holds another run or other files, or a file of a finished stage is not
            as that stage left it; nothing in the folder is touched.
    """

    def __init__(self, path: Path, recipe: str) -> None:
        self.path = path
        self.recipe_sha256 = sha256(recipe)
        own = path / "recipe.yaml"
        if path.is_file():
            raise RunFolderError(_IS_FILE.format(path))
        with writing(path):
            entries = [entry.name for entry in path.iterdir()] if path.is_dir() else []
        others = [name for name in entries if name not in (own.name, LOCK) and not is_leftover(name)]
        if own.is_file():
            if others and own.read_text(encoding="utf-8", errors="replace") != recipe:
                raise RunFolderError(
                    f"{path} already holds a different run (its recipe.yaml is not this run's). "
                    "Give another folder with --out, or delete that one."
                )
        elif others:
            raise RunFolderError(
                f"{path} is not empty and holds no run. Give another folder with --out, or empty it."
            )
        self._incomplete = self._checked()
        write_text(own, recipe)
        ranks.wait()

    def _checked(self) -> set[str]:
        """The stages to compute again, as a file of theirs is missing, or of a stage that they build on."""
        found = manifest.faults(self.path)
        manifest.refuse(self.path, found)
        for fault in found:
            if (self.path / f"{fault.stage}.json").is_file():
                _log.warning(
                    "%s is missing from %s: %s is computed again", fault.file, self.path, fault.stage
                )
        gone = {fault.stage for fault in found}
        return gone.union(*(manifest.BUILT_ON.get(stage, ()) for stage in gone))

    def has(self, name: str) -> bool:
        """Whether a stage is done: its file is there, and all that it and those before it wrote."""
        return (self.path / f"{name}.json").is_file() and name not in self._incomplete

    def stage(self, name: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The content of ``<name>.json``, computed and written only if the stage is not done yet.

        All that a stage wrote goes into the manifest then. The results of stages that build on one which is
        computed again are removed first.

        Raises:
            RunFolderError: if the file is damaged, or cannot be written.
        """
        stored = ranks.from_first(lambda: self._stored(name))
        if stored is not None:
            return stored
        ranks.from_first(lambda: self.drop(name))
        value = compute()
        return ranks.from_first(lambda: self._kept(name, value))

    def _stored(self, name: str) -> dict[str, Any] | None:
        path = self.path / f"{name}.json"
        if not self.has(name):
            return None
        stored = read_json(path, f"Delete it to compute the stage {name} again.")
        if path.name not in manifest.read(self.path):  # a crash came between, or an older prunekit wrote it
            manifest.record(self.path, name)
        return stored

    def _kept(self, name: str, value: dict[str, Any]) -> dict[str, Any]:
        write_text(self.path / f"{name}.json", json.dumps(value, indent=1) + "\n")
        manifest.record(self.path, name)
        return value

    def drop(self, name: str) -> None:
        """Make a stage undone, and those that build on it, whose files and states of training go as well.

        Its own state of training stays: what was interrupted goes on from there. The manifest forgets them
        last, so that a stage that is half dropped counts as one with missing files.

        Raises:
            RunFolderError: if the manifest cannot be written, or a file not be removed.
        """
        built = manifest.BUILT_ON.get(name, ())
        gone = (name, *built)
        # Else the stage that is computed again would take the old files of later ones for its own.
        written = [file for file, entry in manifest.read(self.path).items() if entry["stage"] in built]
        files = [f"{stage}.json" for stage in gone] + written
        states = [f"checkpoints/{stage}-*.safetensors" for stage in built]
        for path in [*map(self.path.joinpath, files), *chain(*map(self.path.glob, states))]:
            with writing(path):
                path.unlink(missing_ok=True)
        manifest.forget(self.path, gone)
        self._incomplete.difference_update(gone)

    def same(self, name: str, value: dict[str, str], what: str) -> None:
        """Keep ``value``, unless it is empty, in ``<name>.json``; refuse to go on where another was kept.

        Raises:
            RunFolderError: if so; the text says which of ``what`` differ.
        """
        if value:
            ranks.from_first(lambda: self._check_known(name, what))
        before = self.stage(name, lambda: value) if value else value
        if before != value:
            changed = sorted(key for key in {*before, *value} if before.get(key) != value.get(key))
            raise RunFolderError(
                f"{self.path} was begun with other {what}: {', '.join(changed)} changed since. Give another "
                "folder with --out, or bring back what was there."
            )

    def _check_known(self, name: str, what: str) -> None:
        """Refuse to go on with training on what is not known any more."""
        trained = sorted(self.path.glob("checkpoints/*-last.safetensors"))
        if trained and not self.has(name):
            raise RunFolderError(
                f"{self.path / name}.json is missing, which says what {what} the run was begun with, and "
                f"{trained[0].name} was trained on that. Bring it back, or give another folder with --out."
            )
