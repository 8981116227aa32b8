"""Remake the gloss data file, its licence text and the tokenizer from WordNet 3.0.

    python -m prunekit.embedded.gloss.build data.noun

``data.noun`` is WordNet's file of noun synsets, which Debian's package ``wordnet-base`` carries.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from prunekit.embedded.gloss import (
    CLASSES,
    DATA_FILE,
    FOLDER,
    SPLITS,
    TOKENIZER_FOLDER,
    Gloss,
    load_split,
    write_glosses,
)
from prunekit.errors import DataError

SPECIAL_TOKENS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
VOCABULARY = 6000
FIRST_CLASS = 3
HOW_TO_GET = "Get one with `apt-get download wordnet-base` and `dpkg -x`; it is usr/share/wordnet/data.noun."


def parse_synsets(lines: Iterable[str]) -> list[Gloss]:
    """Return the definitions in a WordNet noun file with their classes, sorted by class, without duplicates.

    Args:
        lines: ``offset lex_filenum ... | definition; "example"``; the licence's lines begin with two spaces.

    Raises:
        DataError: if a line has another form, or a class that is not one of the 26.
    """
    found = set()
    for line in lines:
        if line.startswith("  "):
            continue
        synset = re.match(r"\d{8} (\d\d) n .*? \| (.+)", line)
        number = int(synset[1]) - FIRST_CLASS if synset else -1
        if not synset or not 0 <= number < len(CLASSES):
            raise DataError(
                f"WordNet line {line[:40]!r}: not a noun synset of one of the {len(CLASSES)} classes "
                f"({FIRST_CLASS:02d} to {FIRST_CLASS + len(CLASSES) - 1}). Use data.noun of WordNet 3.0. "
                f"{HOW_TO_GET}"
            )
        found.add((number, definition(synset[2])))
    return [Gloss(text, CLASSES[number]) for number, text in sorted(found)]


def definition(gloss: str) -> str:
    """Return a gloss without its examples, which stand in double quotes behind a semicolon or a comma."""
    return re.split(r'[;,:] *"', gloss)[0].strip(" ;:")


def licence(lines: Iterable[str]) -> str:
    """Return the licence at the head of a WordNet file, the line numbers taken off."""
    head = [line for line in lines if line.startswith("  ")]
    return "".join(f"{re.sub(r'^ +[0-9]+ ', '', line).rstrip()}\n" for line in head)


def build_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Return a lower-casing WordPiece tokenizer learnt from texts, which encodes as BERT's does."""
    tokenizer = Tokenizer(models.WordPiece(unk_token=SPECIAL_TOKENS["unk_token"]))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = list(SPECIAL_TOKENS.values())
    tokenizer.train_from_iterator(
        texts, trainers.WordPieceTrainer(vocab_size=VOCABULARY, special_tokens=special, show_progress=False)
    )
    # The trainer numbers tokens in an order that changes from run to run.
    tokens = special + sorted(set(tokenizer.get_vocab()) - set(special))
    tokenizer.model = models.WordPiece(
        {token: number for number, token in enumerate(tokens)}, unk_token=SPECIAL_TOKENS["unk_token"]
    )
    first, last = SPECIAL_TOKENS["cls_token"], SPECIAL_TOKENS["sep_token"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}",
        pair=f"{first} $A {last} $B:1 {last}:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (first, last)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **SPECIAL_TOKENS
    )


def main(path: Path) -> None:
    """Write the data file, the licence text and the tokenizer, and print the counts.

    Raises:
        DataError: if the file is missing or of an unknown form.
    """
    try:
        lines = path.read_text("ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: WordNet's nouns cannot be read ({error}). {HOW_TO_GET}") from error
    glosses = parse_synsets(lines)
    write_glosses(glosses, DATA_FILE)
    (FOLDER / "LICENSE-wordnet.txt").write_text(licence(lines), "ascii")
    build_tokenizer(gloss.text for gloss in load_split("train")).save_pretrained(TOKENIZER_FOLDER)
    counts = ", ".join(f"{split} {len(load_split(split))}" for split in SPLITS)
    print(f"{len(glosses)} glosses ({counts}), {DATA_FILE.stat().st_size} bytes")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m prunekit.embedded.gloss.build data.noun")
    try:
        main(Path(sys.argv[1]))
    except DataError as error:
        sys.exit(f"DataError: {error}")
