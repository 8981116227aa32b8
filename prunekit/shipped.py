"""The recipes that ship with prunekit."""

from __future__ import annotations

from pathlib import Path


def recipes_folder() -> Path:
    """Folder of the shipped recipes: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).parent
    packaged = package / "recipes"
    return packaged if packaged.is_dir() else package.parent / "recipes"


def shipped_recipes() -> dict[str, Path]:
    """Files by name; a name is the path below the folder without ``.yaml``, such as ``nash/t5-g2p``."""
    folder = recipes_folder()
    files = sorted(folder.rglob("*.yaml")) if folder.is_dir() else []
    return {file.relative_to(folder).with_suffix("").as_posix(): file for file in files}
