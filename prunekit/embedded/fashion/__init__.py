"""Fashion-MNIST: three parts that ship, and the training images from the four original files.

``README.md`` beside this file is the card; ``build.py`` remakes it all.
"""

from __future__ import annotations

import gzip
import hashlib
import lzma
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from prunekit.errors import DataError

FOLDER = Path(__file__).parent
PROCESSOR_FOLDER = FOLDER / "processor"

SHIPPED = ("calibration", "validation", "test")
SPLITS = ("train", *SHIPPED)
SIZE = 28
LABELS = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)

TRAIN, TEST = "train", "t10k"
"""How the names of the original files begin."""

_IDX_TYPE = 8  # unsigned bytes


class Images(NamedTuple):
    """Grey images, uint8 ``[N, 28, 28]``, and the index of each one's label, uint8 ``[N]``."""

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]

    def take(self, rows: list[int]) -> Images:
        """Return the images of these rows, in this order."""
        return Images(self.images[rows], self.labels[rows])


def image_digests(images: NDArray[np.uint8]) -> list[bytes]:
    """Return the SHA-256 of each image, which decides both its split and its place inside the split."""
    return [hashlib.sha256(image.tobytes()).digest() for image in images]


def load_split(split: str, folder: Path | None = None) -> Images:
    """Return one split in the order of the digests, so that any first N are a fair sample.

    Args:
        split: one of ``SPLITS``.
        folder: holds the four original files; only ``train`` needs it.

    Raises:
        DataError: if a file is missing or damaged, or ``train`` is asked for without ``folder``.
    """
    if split in SHIPPED:
        return read_images(FOLDER, split, ".xz")
    if folder is None:
        raise DataError(
            "Fashion-MNIST's training images do not ship with prunekit. Set task.folder to the folder of the "
            f"four original files ({_source()}). Without it there are: {', '.join(SHIPPED)}."
        )
    return training_images(folder)


def training_images(folder: Path) -> Images:
    """Return the original training images that are in no shipped split, in the order of their digests.

    Raises:
        DataError: if one of the original files is missing or damaged.
    """
    missing = [name for name in original_files() if not (folder / name).is_file()]
    if missing:
        raise DataError(
            f"{folder}: no {', '.join(missing)}. task.folder must hold the four original files of "
            f"Fashion-MNIST ({_source()}); without it there are the splits {', '.join(SHIPPED)}."
        )
    everything = read_images(folder, TRAIN, ".gz")
    digests = image_digests(everything.images)
    taken = {digest for split in SHIPPED for digest in image_digests(load_split(split).images)}
    rows = [row for row, digest in enumerate(digests) if digest not in taken]
    return everything.take(sorted(rows, key=lambda row: digests[row]))


def original_files() -> list[str]:
    """Return the names of the four original files."""
    return [name + ".gz" for part in (TRAIN, TEST) for name in _names(part)]


def read_images(folder: Path, part: str, ending: str) -> Images:
    """Return the images of ``<part>-images-idx3-ubyte`` and ``<part>-labels-idx1-ubyte``.

    Args:
        folder: holds both files.
        part: ``train`` and ``t10k`` of the original files, or a shipped split.
        ending: ``.gz`` or ``.xz``.

    Raises:
        DataError: if a file is missing or damaged, or the two do not fit each other.
    """
    paths = [folder / (name + ending) for name in _names(part)]
    images, labels = (_read_idx(path) for path in paths)
    if images.shape != (len(labels), SIZE, SIZE) or labels.ndim != 1 or labels.max(initial=0) >= len(LABELS):
        raise _unreadable(
            paths[0],
            f"its shape is {images.shape} and that of {paths[1].name} {labels.shape}; expected are as many "
            f"images of {SIZE} by {SIZE} as labels from 0 to {len(LABELS) - 1}",
        )
    return Images(images, labels)


def write_images(found: Images, folder: Path, part: str) -> None:
    """Write the two files of a shipped split, in the original format but as xz; equal images, equal bytes."""
    for name, array in zip(_names(part), found, strict=True):
        header = bytes([0, 0, _IDX_TYPE, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
        data = lzma.compress(header + array.tobytes(), preset=9 | lzma.PRESET_EXTREME)
        (folder / f"{name}.xz").write_bytes(data)


def _read_idx(path: Path) -> NDArray[np.uint8]:
    """Return the array of an idx file: two zero bytes, type, number of axes, their lengths, the values."""
    unpack = lzma.decompress if path.suffix == ".xz" else gzip.decompress
    try:
        data = unpack(path.read_bytes())
        if data[:3] != bytes([0, 0, _IDX_TYPE]):
            raise ValueError("it does not begin like an idx file of unsigned bytes")
        start = 4 + 4 * data[3]
        shape = np.frombuffer(data[4:start], dtype=">u4")
        return np.frombuffer(data, dtype=np.uint8, offset=start).reshape(tuple(shape.tolist()))
    except (OSError, EOFError, lzma.LZMAError, zlib.error, ValueError, IndexError) as error:
        raise _unreadable(path, str(error)) from error


def _unreadable(path: Path, reason: str) -> DataError:
    remedy = (
        "Reinstall prunekit, or remake the file with `python -m prunekit.embedded.fashion.build FOLDER`."
        if path.suffix == ".xz"
        else f"Get the file again ({_source()})."
    )
    return DataError(f"{path}: the Fashion-MNIST data cannot be read ({reason}). {remedy}")


def _names(part: str) -> tuple[str, str]:
    return f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte"


def _source() -> str:
    return (
        "Debian's package dataset-fashion-mnist puts them into /usr/share/datasets/fashion-mnist; they come "
        "from the project zalandoresearch/fashion-mnist"
    )
