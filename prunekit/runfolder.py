"""The folder of one run: which run it belongs to, and which of its stages are done."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prunekit.errors import RunFolderError
from prunekit.files import write_text
from prunekit.recipe import Recipe, Source, dump_recipe

RUNS = Path("runs")
"""Where runs go that are given no folder."""


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
    """A run's ``train.jsonl``, an entry a step; empty where nothing was trained."""
    path = folder / "train.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


class RunFolder:
    """Opens ``path`` for one run, or goes on with that run if it is there already.

    Args:
        path: the folder; made if need be.
        recipe: the resolved recipe as text, label included; it identifies the run.

    A folder whose run failed before it produced anything is taken over.

    Raises:
        RunFolderError: if the folder holds another run or other files; nothing in it is touched.
    """

    def __init__(self, path: Path, recipe: str) -> None:
        self.path = path
        self.recipe_sha256 = sha256(recipe)
        own = path / "recipe.yaml"
        if path.is_file():
            raise RunFolderError(f"{path} is a file. Give another folder with --out.")
        if own.is_file():
            started = any(entry.name != own.name for entry in path.iterdir())
            if started and own.read_text() != recipe:
                raise RunFolderError(
                    f"{path} already holds a different run (its recipe.yaml is not this run's). "
                    "Give another folder with --out, or delete that one."
                )
        elif path.is_dir() and any(path.iterdir()):
            raise RunFolderError(
                f"{path} is not empty and holds no run. Give another folder with --out, or empty it."
            )
        write_text(own, recipe)

    def stage(self, name: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The content of ``<name>.json``, computed and written only if the file is not there yet."""
        path = self.path / f"{name}.json"
        if path.is_file():
            stored: dict[str, Any] = json.loads(path.read_text())
            return stored
        value = compute()
        write_text(path, json.dumps(value, indent=1) + "\n")
        return value

    def same(self, name: str, value: dict[str, str], what: str) -> None:
        """Keep ``value``, unless it is empty, in ``<name>.json``; refuse to go on where another was kept.

        Raises:
            RunFolderError: if so; the text says which of ``what`` differ.
        """
        before = self.stage(name, lambda: value) if value else value
        if before != value:
            changed = sorted(key for key in {*before, *value} if before.get(key) != value.get(key))
            raise RunFolderError(
                f"{self.path} was begun with other {what}: {', '.join(changed)} changed since. Give another "
                "folder with --out, or bring back what was there."
            )
