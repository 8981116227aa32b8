"""Grapheme-to-phoneme data: the alphabetic words of CMUdict, stress removed, split by a hash of the word.

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
DATA_FILE = FOLDER / "cmudict.txt.xz"
TOKENIZER_FOLDER = FOLDER / "tokenizer"

SPLITS = ("train", "validation", "test")
TEST_PERCENT = 5
VALIDATION_PERCENT = 2

LETTERS = tuple("abcdefghijklmnopqrstuvwxyz")
VOWELS = ("AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH", "UW")
CONSONANTS = (
    *("B", "CH", "D", "DH", "F", "G", "HH", "JH", "K", "L", "M", "N", "NG"),
    *("P", "R", "S", "SH", "T", "TH", "V", "W", "Y", "Z", "ZH"),
)
PHONES = tuple(sorted(VOWELS + CONSONANTS))


class Entry(NamedTuple):
    """A word in lower case and its pronunciations in CMUdict order, each as phones joined by spaces."""

    word: str
    pronunciations: tuple[str, ...]


def word_digest(word: str) -> bytes:
    """Return the SHA-256 of the word, which decides both its split and its place inside the split."""
    return hashlib.sha256(word.encode("ascii")).digest()


def split_of(word: str) -> str:
    """Return the split of a word: the digest's first 8 bytes (big-endian) modulo 100, cut at 5 and 7."""
    bucket = int.from_bytes(word_digest(word)[:8], "big") % 100
    if bucket < TEST_PERCENT:
        return "test"
    return "validation" if bucket < TEST_PERCENT + VALIDATION_PERCENT else "train"


def load_split(split: str) -> list[Entry]:
    """Return the entries of one split in the order of their digests, so that any first N are a fair sample.

    Raises:
        DataError: if the data file is missing or damaged.
    """
    entries = [entry for entry in read_entries() if split_of(entry.word) == split]
    return sorted(entries, key=lambda entry: word_digest(entry.word))


def read_entries(path: Path = DATA_FILE) -> list[Entry]:
    """Return all entries of a data file, in alphabetical order.

    Raises:
        DataError: if the file is missing or damaged.
    """
    try:
        text = lzma.decompress(path.read_bytes()).decode("ascii")
        return list(_parse(text.splitlines()))
    except (OSError, lzma.LZMAError, ValueError) as error:
        raise DataError(
            f"{path}: the g2p data cannot be read ({error}). Reinstall prunekit, "
            "or remake the file with `python -m prunekit.embedded.g2p.build`."
        ) from error


def write_entries(entries: Iterable[Entry], path: Path) -> None:
    """Write entries, one ``word<TAB>P P P|P P P`` a line, as xz; equal entries give equal bytes."""
    text = "".join(f"{word}\t{'|'.join(pronunciations)}\n" for word, pronunciations in entries)
    path.write_bytes(lzma.compress(text.encode("ascii"), preset=9 | lzma.PRESET_EXTREME))


def _parse(lines: Iterable[str]) -> Iterator[Entry]:
    for line in lines:
        word, pronunciations = line.split("\t")
        yield Entry(word, tuple(pronunciations.split("|")))
