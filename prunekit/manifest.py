"""What the finished stages of a run wrote: size and sha256 of each file, in ``manifest.json``.

The JSON files of stages, plans, answers, scores and the models' folders are in it. What changes by right is
not: the log, the states of training (they carry a digest of their own), the pages for people and the card.

Hashing everything takes as long as reading it, so that is done where a run goes on. Where a run is only shown
or compared, the files that are read there are hashed, and of all others, the weights, the sizes are compared.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from prunekit.errors import RunFolderError
from prunekit.files import is_leftover, write_text, writing
from prunekit.json_files import read_json

FILE = "manifest.json"
FORMAT = 1

BUILT_ON = {
    "verify": ("recover", "quality", "milestones", "speed", "report"),
    "recover": ("quality", "speed", "report"),
    "quality": ("report",),
    "milestones": ("report",),
    "speed": ("report",),
}
"""The stages that were computed from a stage's result, so that they go when it is computed again."""

MISSING = "is missing"
_MODELS = ("model", "checkpoints/pruned", "milestones")
_SUFFIXES = (".json", ".jsonl", ".safetensors")
_LEFT_OUT = (FILE, "train.jsonl", "README.md")

Entries = dict[str, dict[str, Any]]
"""By path in the run folder: ``stage``, ``size`` in bytes, ``sha256``."""


class Fault(NamedTuple):
    """A file that is not as its stage left it."""

    file: str
    what: str
    stage: str


def read(folder: Path) -> Entries:
    """What is recorded of a run's files; nothing where there is no manifest, as in older runs.

    Raises:
        RunFolderError: if the manifest is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return {}
    advice = "Delete it, and the run's other files are taken as they are."
    found = read_json(path, advice)
    entries: Any = found.get("files")
    is_one = isinstance(entries, dict) and all(map(_is_entry, entries.items()))
    if found.get("format") != FORMAT or not is_one:
        raise RunFolderError(
            f"{path} is damaged, or of another prunekit: it lists no files in format {FORMAT}. {advice}"
        )
    listed: Entries = entries
    return listed


def record(folder: Path, stage: str) -> None:
    """Add what a stage wrote: its JSON file, and all files there that are not recorded and no younger.

    Raises:
        RunFolderError: if a file cannot be read, or the manifest not be written.
    """
    entries = read(folder)
    with writing(folder / FILE):
        until = (folder / f"{stage}.json").stat().st_mtime_ns
        for path in _eligible(folder):
            name = path.relative_to(folder).as_posix()
            if name not in entries and path.stat().st_mtime_ns <= until:
                entries[name] = {"stage": stage, "size": path.stat().st_size, "sha256": sha256_of(path)}
    _write(folder, entries)


def forget(folder: Path, stages: Collection[str]) -> None:
    """Take out what stages wrote, before they write again.

    Raises:
        RunFolderError: if the manifest is damaged or cannot be written.
    """
    entries = read(folder)
    left = {name: entry for name, entry in entries.items() if entry["stage"] not in stages}
    if len(left) < len(entries):
        _write(folder, left)


def check(folder: Path) -> list[tuple[str, str]]:
    """Return every file that is not as its stage left it, and what is wrong with it; empty if all is well.

    Raises:
        RunFolderError: if the manifest is damaged.
    """
    return [(fault.file, fault.what) for fault in faults(folder)]


def faults(folder: Path, hashed: Collection[str] | None = None) -> list[Fault]:
    """Return the files that are not as their stages left them, in the order of their names.

    Args:
        folder: the run folder.
        hashed: the files to hash, of the others the size is compared; by default all are hashed.

    Raises:
        RunFolderError: if the manifest is damaged.
    """
    found = []
    for name, entry in sorted(read(folder).items()):
        what = _fault(folder / name, entry, hashed=hashed is None or name in hashed)
        if what is not None:
            found.append(Fault(name, what, entry["stage"]))
    return found


def check_read(folder: Path, *names: str) -> None:
    """Refuse to read a run of which a file was changed or cut off since it was written.

    Args:
        folder: the run folder; one without a manifest is taken as it is.
        names: the files that will be read; these are hashed, of the others the size is compared. What is
            missing is for the reader to tell.

    Raises:
        RunFolderError: if so; it names the files, their stages, and what to delete.
    """
    refuse(folder, faults(folder, names))


def refuse(folder: Path, found: Collection[Fault]) -> None:
    """Raise for the faults, if any is of a file that is there.

    Raises:
        RunFolderError: if so.
    """
    changed = [fault for fault in found if fault.what != MISSING]
    if not changed:
        return
    rows = "".join(f"\n  {fault.file} of the stage {fault.stage} {fault.what}" for fault in changed)
    raise RunFolderError(
        f"{folder}: not as the run left it:{rows}\n"
        "Delete it to compute that stage again, and what was computed from it, with the command that began "
        "the run; or bring back the file as it was."
    )


def sha256_of(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fault(path: Path, entry: Mapping[str, Any], *, hashed: bool) -> str | None:
    try:
        if not path.is_file():
            return MISSING
        size = path.stat().st_size
        if size != entry["size"]:
            return f"has {size:,} bytes where {entry['size']:,} were written"
        if hashed and (found := sha256_of(path)) != entry["sha256"]:
            return f"has the sha256 {found[:12]}… where {entry['sha256'][:12]}… was written"
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    return None


def _eligible(folder: Path) -> Iterator[Path]:
    """The files of a run that do not change once their stage is done."""
    for path in folder.iterdir():
        if path.suffix in _SUFFIXES and path.name not in _LEFT_OUT and _is_plain(path):
            yield path
    for name in _MODELS:
        for path in sorted((folder / name).rglob("*")):
            if path.name not in _LEFT_OUT and _is_plain(path):
                yield path


def _is_plain(path: Path) -> bool:
    return path.is_file() and not path.is_symlink() and not is_leftover(path.name)


def _is_entry(item: tuple[str, Any]) -> bool:
    name, entry = item
    return (
        not Path(name).is_absolute()
        and ".." not in Path(name).parts
        and isinstance(entry, dict)
        and isinstance(entry.get("size"), int)
        and all(isinstance(entry.get(key), str) for key in ("stage", "sha256"))
    )


def _write(folder: Path, entries: Entries) -> None:
    content = {"format": FORMAT, "files": dict(sorted(entries.items()))}
    write_text(folder / FILE, json.dumps(content, indent=1) + "\n")
