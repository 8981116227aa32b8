"""The embedded WordNet definitions, their tokenizer, and the script that makes both."""

import re
from collections import Counter

import pytest
from transformers import AutoTokenizer

from prunekit.embedded.gloss import (
    CLASSES,
    FOLDER,
    SPLITS,
    TOKENIZER_FOLDER,
    Gloss,
    build,
    load_split,
    read_glosses,
    split_of,
    write_glosses,
)
from prunekit.errors import DataError

pytestmark = pytest.mark.slow

README = (FOLDER / "README.md").read_text()
COUNTS = {"train": 73214, "validation": 4160, "test": 4118}
LINES = [
    "  1 This software and database is provided  ",
    "  2   ",
    '00001740 03 n 01 entity 0 001 ~ 00001930 n 0000 | what exists; "an example"; "another"  ',
    "00001930 28 n 01 hour 0 000 | a time  ",
    "00001940 28 n 01 tick 0 000 | a time  ",
]


@pytest.fixture(scope="module")
def glosses():
    return read_glosses()


@pytest.fixture(scope="module")
def splits():
    return {split: load_split(split) for split in SPLITS}


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(TOKENIZER_FOLDER)


@pytest.mark.parametrize("split", SPLITS)
def test_each_split_has_the_documented_number_of_definitions(splits, split):
    assert len(splits[split]) == COUNTS[split]
    assert re.search(rf"^\| {split} \| {COUNTS[split]} \|", README, re.MULTILINE)


def test_splits_cover_every_definition(glosses, splits):
    together = [gloss for split in SPLITS for gloss in splits[split]]
    assert Counter(together) == Counter(glosses)
    assert len(set(together)) == len(together)


def test_no_definition_is_in_two_splits(splits):
    texts = [{gloss.text for gloss in splits[split]} for split in SPLITS]
    assert len(set.union(*texts)) == sum(map(len, texts))


def test_split_rule_is_the_documented_one():
    # sha256("wood of a citron tree") starts with 0002fe2ffbc3e313; as an integer 842431994258195, bucket 95.
    assert split_of("wood of a citron tree") == "train"
    assert split_of("a fire lighted at night as a signal") == "test"
    assert split_of(
        "a hard disk that can be removed from the disk drive; removal prevents unauthorized use"
    ) == ("validation")


@pytest.mark.parametrize("split", SPLITS)
def test_every_split_has_all_26_classes_in_the_documented_numbers(splits, split):
    found = Counter(gloss.label for gloss in splits[split])
    rows = re.findall(r"^\| (noun\.\w+) \| (\d+) \| (\d+) \| (\d+) \|$", README, re.MULTILINE)
    column = 1 + SPLITS.index(split)
    assert {row[0]: int(row[column]) for row in rows} == found
    assert tuple(row[0] for row in rows) == CLASSES
    assert len(CLASSES) == 26


def test_definitions_have_neither_examples_nor_space_around_them(glosses):
    assert all(gloss.text and gloss.text == gloss.text.strip() for gloss in glosses)
    assert not any(re.search(r'; "', gloss.text) for gloss in glosses)


def test_first_definitions_of_a_split_are_neither_sorted_nor_of_one_class(splits):
    first = splits["test"][:50]
    assert first != sorted(first)
    assert len({gloss.label for gloss in first}) > 5


def test_the_data_ships_with_its_own_licence():
    text = (FOLDER / "LICENSE-wordnet.txt").read_text()
    assert text.startswith("This software and database is being provided to you, the LICENSEE, by\n")
    assert "WordNet 3.0 Copyright 2006 by Princeton University.  All rights reserved." in text
    assert not re.search(r"^ *\d+ ", text, re.MULTILINE)


def test_a_damaged_data_file_is_an_error_that_says_how_to_remake_it(tmp_path):
    damaged = tmp_path / "glosses.txt.xz"
    damaged.write_bytes(b"not xz")
    with pytest.raises(DataError, match=r"glosses\.txt\.xz: .*python -m prunekit\.embedded\.gloss\.build"):
        read_glosses(damaged)


def test_written_glosses_read_back_equal_and_twice_the_same_bytes(tmp_path):
    glosses = [Gloss("a thing; or two", "noun.Tops"), Gloss("an hour", "noun.time")]
    write_glosses(glosses, tmp_path / "one.xz")
    write_glosses(glosses, tmp_path / "two.xz")
    assert read_glosses(tmp_path / "one.xz") == glosses
    assert (tmp_path / "one.xz").read_bytes() == (tmp_path / "two.xz").read_bytes()


def test_a_definition_survives_the_tokenizer_in_lower_case(tokenizer):
    text = "chiefly tropical trees; coextensive with the order Palmales"
    ids = tokenizer(text)["input_ids"]
    tokens = tokenizer.convert_ids_to_tokens(ids)
    assert (tokens[0], tokens[-1]) == ("[CLS]", "[SEP]")
    decoded = tokenizer.decode(ids, skip_special_tokens=True)
    assert decoded == "chiefly tropical trees ; coextensive with the order palmales"
    assert tokenizer(decoded)["input_ids"] == ids


def test_the_tokenizer_knows_every_character_of_the_definitions(tokenizer, splits):
    characters = sorted(set("".join(gloss.text for gloss in splits["test"])))
    assert tokenizer.unk_token_id not in tokenizer(" ".join(characters))["input_ids"]


def test_special_tokens_have_the_documented_ids(tokenizer):
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert tokenizer.convert_tokens_to_ids(special) == [0, 1, 2, 3, 4]
    assert tokenizer.pad_token_id == 0
    assert len(tokenizer) == 6000


def test_pairs_are_joined_as_bert_does_it(tokenizer):
    tokens = tokenizer.convert_ids_to_tokens(tokenizer("a", "b")["input_ids"])
    assert tokens == ["[CLS]", "a", "[SEP]", "b", "[SEP]"]


@pytest.mark.slow
def test_the_shipped_tokenizer_is_the_one_the_builder_makes(tokenizer, splits):
    made = build.build_tokenizer(gloss.text for gloss in splits["train"])
    assert made.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()


def test_builder_takes_the_definition_and_the_class_and_drops_duplicates():
    assert build.parse_synsets(LINES) == [Gloss("what exists", "noun.Tops"), Gloss("a time", "noun.time")]


@pytest.mark.parametrize(
    ("gloss", "expected"),
    [
        ("a plain one  ", "a plain one"),
        ('one; with a part; "and an example"', "one; with a part"),
        ('quick earnings, "a fast buck"', "quick earnings"),
        ('a reward as in "carrot and stick"; "the carrot of housing"', 'a reward as in "carrot and stick"'),
    ],
)
def test_builder_keeps_quotes_inside_a_definition_and_drops_those_behind_it(gloss, expected):
    assert build.definition(gloss) == expected


def test_builder_takes_the_licence_without_its_line_numbers():
    assert build.licence(LINES) == "This software and database is provided\n\n"


@pytest.mark.parametrize("line", ["00001740 29 n 01 run 0 000 | a verb", "hello"])
def test_builder_refuses_lines_that_are_no_nouns(line):
    with pytest.raises(
        DataError,
        match=rf"^WordNet line '{line[:20]}.*: not a noun synset of one of the 26 classes \(03 to 28\)\. Use",
    ):
        build.parse_synsets([line])


def test_builder_says_where_the_nouns_come_from_where_they_are_missing(tmp_path):
    with pytest.raises(DataError, match=r"data\.noun: WordNet's nouns cannot be read .*wordnet-base"):
        build.main(tmp_path / "data.noun")
