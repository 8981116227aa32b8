"""WordNet 3.0 noun glosses and their lexicographer classes, split by a hash of the gloss.

Read with the standard library alone. ``README.md`` beside this file is the card; ``build.py`` remakes it all.
"""

from __future__ import annotations

import hashlib
import lzma
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from prunekit.errors import DataError

FOLDER = Path(__file__).parent
DATA_FILE = FOLDER / "glosses.txt.xz"
TOKENIZER_FOLDER = FOLDER / "tokenizer"

SPLITS = ("train", "validation", "test")
TEST_PERCENT = 5
VALIDATION_PERCENT = 5

CLASSES = (
    *("noun.Tops", "noun.act", "noun.animal", "noun.artifact", "noun.attribute", "noun.body"),
    *("noun.cognition", "noun.communication", "noun.event", "noun.feeling", "noun.food", "noun.group"),
    *("noun.location", "noun.motive", "noun.object", "noun.person", "noun.phenomenon", "noun.plant"),
    *("noun.possession", "noun.process", "noun.quantity", "noun.relation", "noun.shape", "noun.state"),
    *("noun.substance", "noun.time"),
)
"""WordNet's names, in the order of its numbers 03 to 28."""


class Gloss(NamedTuple):
    """A definition, and the name of the class that its synset belongs to."""

    text: str
    label: str


def gloss_digest(text: str) -> bytes:
    """Return the SHA-256 of the text, which decides both its split and its place inside the split."""
    return hashlib.sha256(text.encode("ascii")).digest()


def split_of(text: str) -> str:
    """Return the split of a text: the digest's first 8 bytes (big-endian) modulo 100, cut at 5 and 10."""
    bucket = int.from_bytes(gloss_digest(text)[:8], "big") % 100
    if bucket < TEST_PERCENT:
        return "test"
    return "validation" if bucket < TEST_PERCENT + VALIDATION_PERCENT else "train"


def load_split(split: str) -> list[Gloss]:
    """Return the glosses of one split in the order of their digests, so that any first N are a fair sample.

    Raises:
        DataError: if the data file is missing or damaged.
    """
    glosses = [gloss for gloss in read_glosses() if split_of(gloss.text) == split]
    return sorted(glosses, key=lambda gloss: (gloss_digest(gloss.text), gloss.label))


def read_glosses(path: Path = DATA_FILE) -> list[Gloss]:
    """Return all glosses of a data file, by class and then in alphabetical order.

    Raises:
        DataError: if the file is missing or damaged.
    """
    try:
        text = lzma.decompress(path.read_bytes()).decode("ascii")
        return list(_parse(text.splitlines()))
    except (OSError, lzma.LZMAError, ValueError) as error:
        raise DataError(
            f"{path}: the gloss data cannot be read ({error}). Reinstall prunekit, "
            "or remake the file with `python -m prunekit.embedded.gloss.build`."
        ) from error


def write_glosses(glosses: Iterable[Gloss], path: Path) -> None:
    """Write glosses, one ``class<TAB>text`` a line, as xz; equal glosses give equal bytes."""
    text = "".join(f"{gloss.label}\t{gloss.text}\n" for gloss in glosses)
    path.write_bytes(lzma.compress(text.encode("ascii"), preset=9 | lzma.PRESET_EXTREME))


def _parse(lines: Iterable[str]) -> Iterator[Gloss]:
    for line in lines:
        label, text = line.split("\t")
        yield Gloss(text, label)
