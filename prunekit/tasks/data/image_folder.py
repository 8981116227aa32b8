"""A folder of images with a subfolder for each class, as a table of paths and labels."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from prunekit.errors import DataError
from prunekit.tasks.data.tables import Table

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
"""How the names of image files end, in small or capital letters."""
IMAGE, LABEL = "image", "label"
"""The columns of the table."""
LITTER = ("thumbs.db", "desktop.ini", "__macosx")
"""What systems leave behind, besides files and folders whose names start with a dot."""
SPLIT_NAMES = ("train", "training", "val", "valid", "validation", "dev", "test", "testing", "calibration")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FolderTable(Table):
    """The images of a folder; the place of a row is its file.

    Attributes:
        paths: of the images, in the order of the rows.
    """

    paths: Sequence[str] = ()

    def where(self, row: int) -> str:
        """Return the path of an image."""
        return self.paths[row]


def read_image_folder(path: Path) -> Table:
    """Return a row for each image below a folder, with the columns ``image`` and ``label``.

    ``image`` is the path, ``label`` the name of the subfolder of ``path`` that it is in, however far below.
    Rows are sorted by class and path.
    Links are followed. Hidden files are left out; that others are no images is told in the log.

    Raises:
        DataError: if there are no subfolders, or one has no images, or images lie beside the subfolders, or
            the subfolders are splits.
    """
    top = _entries(path)
    folders = [each for each in top if each.is_dir()]
    loose = [each for each in top if not each.is_dir() and _is_image(each.name)]
    if loose:
        raise DataError(
            f"{path}: {len(loose)} images, such as {loose[0].name}, lie beside the folders of the classes. "
            "Put every image into the folder of its class."
        )
    if not folders:
        raise DataError(
            f"{path} has no subfolders. Make one for each class, with the class's name, and put its images "
            "in."
        )
    if all(each.name.lower() in SPLIT_NAMES for each in folders):
        raise DataError(
            f"{path} has the subfolders {', '.join(each.name for each in folders)}, which look like splits "
            f"and not like classes. Name each under task.data, such as train: {path / folders[0].name}."
        )
    paths: list[str] = []
    labels: list[str] = []
    others = [each.path for each in top if not each.is_dir()]
    for folder in folders:
        files = list(_files(Path(folder.path)))
        images = [file for file in files if _is_image(file)]
        others += [file for file in files if not _is_image(file)]
        if not images:
            raise DataError(
                f"{folder.path} has no images ({', '.join(ENDINGS)}), but its place makes it a class. Remove "
                "the folder, or put images in."
            )
        paths += images
        labels += [folder.name] * len(images)
    if others:
        _log.warning(
            "%s: %d files are no images by their endings and are left out, such as %s.",
            path,
            len(others),
            ", ".join(sorted(others)[:3]),
        )
    columns: dict[str, Callable[[], Sequence[Any]]] = {
        IMAGE: partial(_give, paths),
        LABEL: partial(_give, labels),
    }
    return FolderTable(str(path), len(paths), columns, paths=paths)


def _give(values: Sequence[Any]) -> Sequence[Any]:
    return values


def _is_image(name: str) -> bool:
    return name.lower().endswith(ENDINGS)


def _entries(path: Path) -> list[os.DirEntry[str]]:
    """What is in a folder, sorted by name, hidden things and litter left out."""
    with os.scandir(path) as found:
        kept = [each for each in found if not each.name.startswith(".") and each.name.lower() not in LITTER]
    return sorted(kept, key=lambda each: each.name)


def _files(path: Path) -> Iterator[str]:
    """The paths of all files below a folder."""
    for each in _entries(path):
        if each.is_dir():
            yield from _files(Path(each.path))
        else:
            yield each.path
