"""ROUGE against rouge-score, METEOR against nltk with a WordNet of a few words, and both by hand."""

import math
import shutil
from types import SimpleNamespace

import nltk
import pytest
from nltk.tokenize import word_tokenize
from nltk.translate.meteor_score import meteor_score
from rouge_score.rouge_scorer import RougeScorer

from prunekit.errors import DataError
from prunekit.tasks.metrics import METEOR, ROUGE, meteor, rouge

KINDS = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
PREDICTIONS = [
    "Amanda baked cookies and will bring Jerry some tomorrow.",
    "Olivia and Olivier are voting for liberals in this election.\nThey agree.",
    "tim is running late",
    "",
    "Ключ под ковриком",
]
REFERENCES = [
    ["Amanda will bring Jerry the cookies she has baked.", "Jerry gets cookies from Amanda tomorrow."],
    ["They agree to vote.\nOlivia votes for the liberals, and so does Olivier."],
    ["Tim may be late because he runs.", "Tim is late.", "Kim is on time."],
    ["Somebody says nothing."],
    ["Ключ под ковриком"],
]
SYNONYMS = [("car", "auto", "automobile"), ("sofa", "couch", "lounge"), ("auto", "self")]


@pytest.mark.parametrize("kind", KINDS)
def test_rouge_is_the_mean_of_rouge_scores_best_f_measures(kind):
    scorer = RougeScorer([kind], use_stemmer=True)
    wanted = [
        max(scorer.score(option, prediction)[kind].fmeasure for option in options)
        for prediction, options in zip(PREDICTIONS, REFERENCES, strict=True)
    ]
    value, stderr, _ = rouge(kind, PREDICTIONS, REFERENCES)
    mean = sum(wanted) / 5
    assert value == pytest.approx(100 * mean)
    assert stderr == pytest.approx(100 * math.sqrt(sum((score - mean) ** 2 for score in wanted)) / 5)


def test_rouge_by_hand():
    # Words 3 and 4, 3 shared: 6/7; pairs 2 and 3, one shared: 2/5; in order 2 ("the cat"): 4/7.
    predictions, references = ["cat the sat"], [["the cat sat there"]]
    values = [rouge(kind, predictions, references).value for kind in KINDS]
    assert values == pytest.approx([100 * 6 / 7, 0, 100 * 4 / 7, 100 * 4 / 7])


def test_rouge_counts_words_of_one_stem_as_one():
    assert rouge("rouge1", ["running votes"], [["run voting"]]).value == pytest.approx(100)


def test_rouge_lsum_takes_lines_as_sentences_in_any_order():
    predictions, references = ["he left\nshe stayed"], [["she stayed\nhe left"]]
    assert rouge("rougeLsum", predictions, references).value == pytest.approx(100)
    assert rouge("rougeL", predictions, references).value == pytest.approx(50)


def test_rouge_of_a_text_without_ascii_letters_is_0():
    assert rouge("rouge1", ["Ключ"], [["Ключ"]])[:2] == (0.0, 0.0)


def test_rouge_without_a_reference_is_an_error():
    with pytest.raises(DataError, match=r"^Example 0 has no reference; give at least one"):
        rouge("rouge1", ["a"], [[]])


def test_there_is_a_rouge_of_each_kind_better_when_higher():
    assert [(metric.name, metric.higher_is_better) for metric in ROUGE] == [(kind, True) for kind in KINDS]


@pytest.mark.parametrize("metric", ROUGE, ids=lambda metric: metric.name)
def test_each_rouge_is_of_its_own_kind(metric):
    wanted = rouge(metric.name, PREDICTIONS, REFERENCES)
    assert metric.function(PREDICTIONS, REFERENCES) == wanted


@pytest.fixture(scope="module")
def nltk_data(tmp_path_factory):
    """A folder of nltk data whose WordNet has three nouns' synonyms, in WordNet's own format."""
    folder = tmp_path_factory.mktemp("nltk_data")
    wordnet = folder / "corpora" / "wordnet"
    wordnet.mkdir(parents=True)
    for part in ("noun", "verb", "adj", "adv"):
        for name in (f"data.{part}", f"index.{part}", f"{part}.exc"):
            (wordnet / name).write_text("")
    (wordnet / "lexnames").write_text("00\tnoun.artifact\t1\n")
    data, senses, offsets = "", "", {}
    for words in SYNONYMS:
        for word in words:
            offsets.setdefault(word, []).append(f"{len(data):08d}")
            senses += f"{word}%1:00:0{len(offsets[word])}:: {len(data):08d} {len(offsets[word])} 0\n"
        listed = " ".join(f"{word} 0" for word in words)
        data += f"{len(data):08d} 00 n {len(words):02x} {listed} 000 | something  \n"
    (wordnet / "data.noun").write_text(data)
    (wordnet / "index.sense").write_text(senses)
    (wordnet / "index.noun").write_text(
        "".join(
            f"{word} n {len(found)} 0 {len(found)} 0 {' '.join(found)}  \n"
            for word, found in sorted(offsets.items())
        )
    )
    return folder


@pytest.fixture
def wordnet(nltk_data, monkeypatch):
    monkeypatch.setattr(nltk.data, "path", [str(nltk_data)])


def synsets(word):
    """What nltk's reader should find in that folder."""
    return [
        SimpleNamespace(lemmas=lambda words=words: [SimpleNamespace(name=lambda w=w: w) for w in words])
        for words in SYNONYMS
        if word in words
    ]


@pytest.mark.usefixtures("wordnet")
def test_meteor_is_the_mean_of_nltks_best_scores():
    predictions = ["The auto's couch is red, isn't it?", "dogs ran in the automobile", "cats", ""]
    references = [
        ["A red sofa is in the car!", "The car's sofa is red."],
        ["The dog is running in his car", "nobody moved"],
        ["Two sofas"],
        ["a car"],
    ]
    wanted = [
        meteor_score(
            [word_tokenize(option, preserve_line=True) for option in options],
            word_tokenize(prediction, preserve_line=True),
            wordnet=SimpleNamespace(synsets=synsets),
        )
        for prediction, options in zip(predictions, references, strict=True)
    ]
    value, stderr, _ = meteor(predictions, references)
    mean = sum(wanted) / 4
    assert value == pytest.approx(100 * mean)
    assert stderr == pytest.approx(100 * math.sqrt(sum((score - mean) ** 2 for score in wanted)) / 4)
    assert mean > 0.2


@pytest.mark.usefixtures("wordnet")
@pytest.mark.parametrize(
    ("prediction", "wanted"),
    [
        # Three words match, one run: penalty 0.5 / 27.
        ("the car stopped", 1 - 0.5 / 27),
        ("THE CAR STOPPED", 1 - 0.5 / 27),
        ("the auto stopped", 1 - 0.5 / 27),
        ("the car stops", 1 - 0.5 / 27),
        # Two of three match, in two runs: penalty 0.5.
        ("the dog stopped", 2 / 3 * 0.5),
        # Three of four match in two runs: 3/4 * 1 / (0.9 * 3/4 + 0.1), penalty 0.5 * 8/27.
        ("the old car stopped", (3 / 4) / (0.9 * 3 / 4 + 0.1) * (1 - 4 / 27)),
        # nltk looks synonyms up by the stem, and "automobil" is none: two words match, in two runs.
        ("the automobile stopped", 2 / 3 * 0.5),
        ("nothing", 0),
        ("", 0),
    ],
)
def test_meteor_by_hand(prediction, wanted):
    assert meteor([prediction], [["the car stopped"]]).value == pytest.approx(100 * wanted)


@pytest.mark.usefixtures("wordnet")
def test_meteor_gives_what_nltk_documents_for_its_example():
    prediction = (
        "It is a guide to action which ensures that the military always obeys the commands of the party"
    )
    reference = "It is a guide to action that ensures that the military will forever heed Party commands"
    assert meteor([prediction], [[reference]]).value == pytest.approx(69.44, abs=0.005)


@pytest.mark.usefixtures("wordnet")
@pytest.mark.parametrize(
    ("prediction", "reference"),
    [
        ("It left. The car stopped.", "It left . The car stopped ."),
        ("Who? \nThe car!", "Who ? The car !"),
        ("One. 2 cars", "One . 2 cars"),
    ],
)
def test_meteor_ends_a_sentence_where_one_seems_to_end(prediction, reference):
    words = len(reference.split())
    assert meteor([prediction], [[reference]]).value == pytest.approx(100 * (1 - 0.5 / words**3))


@pytest.mark.usefixtures("wordnet")
def test_meteor_keeps_the_full_stop_of_an_abbreviation_before_a_small_letter():
    assert meteor(["approx. ten"], [["approx . ten"]]).value < 50


def test_meteor_reads_a_wordnet_that_is_still_packed(nltk_data, tmp_path, monkeypatch):
    (tmp_path / "corpora").mkdir()
    shutil.make_archive(str(tmp_path / "corpora" / "wordnet"), "zip", nltk_data / "corpora", "wordnet")
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    assert meteor(["the auto stopped"], [["the car stopped"]]).value == pytest.approx(100 * (1 - 0.5 / 27))


def test_meteor_without_wordnet_says_how_to_get_it_and_where_nltk_looks(tmp_path, monkeypatch):
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path / "mine"), str(tmp_path / "all")])
    with pytest.raises(DataError) as caught:
        meteor(["a"], [["a"]])
    with pytest.raises(DataError) as at_the_start:
        METEOR.check()
    assert str(at_the_start.value) == str(caught.value)
    assert str(caught.value) == (
        "meteor: nltk finds no WordNet, and prunekit downloads nothing by itself. Get it with "
        "`python -m nltk.downloader wordnet` (about 11 MB), or, without a network, copy wordnet.zip or the "
        "folder wordnet from another computer's nltk_data/corpora into a folder named corpora in one "
        f"of these, where nltk looks: {tmp_path / 'mine'}, {tmp_path / 'all'}. "
        "The environment variable NLTK_DATA adds more."
    )


def test_meteor_finds_a_wordnet_that_came_after_it_was_missed(nltk_data, tmp_path, monkeypatch):
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    with pytest.raises(DataError):
        meteor(["a"], [["a"]])
    shutil.copytree(nltk_data / "corpora", tmp_path / "corpora")
    assert meteor(["couch"], [["sofa"]]).value == pytest.approx(50)


@pytest.mark.usefixtures("wordnet")
def test_the_check_of_meteor_passes_where_there_is_a_wordnet():
    METEOR.check()


def test_meteor_names_a_wordnet_that_is_damaged(nltk_data, tmp_path, monkeypatch):
    shutil.copytree(nltk_data / "corpora", tmp_path / "corpora")
    (tmp_path / "corpora" / "wordnet" / "lexnames").unlink()
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    with pytest.raises(DataError) as caught:
        meteor(["a"], [["a"]])
    text = str(caught.value)
    assert text.startswith(f"meteor: the WordNet in {tmp_path / 'corpora' / 'wordnet'} cannot be read (")
    assert text.endswith("Get it again with `python -m nltk.downloader --force wordnet`.")


def test_meteor_is_better_when_higher():
    assert (METEOR.name, METEOR.higher_is_better) == ("meteor", True)
