"""Scores of generated text by the words it shares with a reference: ROUGE and METEOR.

Both are means over the examples, each against its best reference, so the standard error is
sqrt(sum (score_i - mean)^2) / examples.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from functools import cache, partial
from types import SimpleNamespace
from typing import Any

from prunekit.errors import DataError
from prunekit.tasks.base import Metric, MetricValue
from prunekit.tasks.metrics.estimates import check, mean

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?![a-z])")


def rouge(kind: str, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> MetricValue:
    """Return the mean F-measure of ROUGE of one kind, in percent, as the package rouge-score computes it.

    Words are runs of ASCII letters and digits, in lower case, stemmed by Porter's rules if longer than three
    letters; a text in another script has none and scores 0. The value is the mean itself; scripts that print
    the middle of a bootstrap instead differ in the second decimal.

    Args:
        kind: ``rouge1`` or ``rouge2`` (words, pairs of words), ``rougeL`` (longest common subsequence of the
            whole texts) or ``rougeLsum`` (of each sentence of the reference, a line of text being a
            sentence).
        predictions: the texts.
        references: for each text those to compare it with; the one with the highest F-measure counts.

    Raises:
        DataError: if there is nothing to score, or an example has no reference.
    """
    check(predictions, references)
    # Here and below imported late: listing metrics must not load them.
    from rouge_score import tokenize
    from rouge_score.rouge_scorer import RougeScorer

    # The package's own tokenizer, with a stemmer that stems each word once: most of the time goes there.
    tokenizer = SimpleNamespace(tokenize=partial(tokenize.tokenize, stemmer=_stemmer()))
    scorer = RougeScorer([kind], tokenizer=tokenizer)
    return mean(
        [
            float(scorer.score_multi(options, prediction)[kind].fmeasure)
            for prediction, options in zip(predictions, references, strict=True)
        ]
    )


def meteor(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> MetricValue:
    """Return the mean METEOR, in percent, as nltk computes it: alpha 0.9, beta 3, gamma 0.5.

    Words match if they are equal, share Porter's stem, or are synonyms in WordNet (Lavie and Agarwal 2007),
    where nltk looks for the stem: it finds no synonym of a word that stemming changes.

    They are those of nltk's word tokenizer, in lower case, punctuation marks being words. Where nltk would
    first find sentences with a trained model, more data to fetch, a sentence ends here at a full stop,
    exclamation or question mark before white space and anything but a lower-case letter. That decides only
    whether a full stop inside the text is a word, so a text of one sentence scores as with nltk's
    ``word_tokenize``.

    Raises:
        DataError: if there is nothing to score, or an example has no reference, or nltk finds no WordNet; the
            text says how to get it. Nothing is ever downloaded.
    """
    check(predictions, references)
    wordnet = _wordnet()
    from nltk.tokenize import NLTKWordTokenizer
    from nltk.translate.meteor_score import meteor_score

    tokenizer, stemmer = NLTKWordTokenizer(), _stemmer()

    def words(text: str) -> list[str]:
        return [word for sentence in _SENTENCE_END.split(text) for word in tokenizer.tokenize(sentence)]

    return mean(
        [
            float(meteor_score([*map(words, options)], words(prediction), stemmer=stemmer, wordnet=wordnet))
            for prediction, options in zip(predictions, references, strict=True)
        ]
    )


def check_wordnet() -> None:
    """Refuse to score by METEOR where there is no WordNet; what is there is read once and kept.

    Raises:
        DataError: if nltk finds none, or it cannot be read; the text says how to get it.
    """
    _wordnet()


ROUGE = tuple(
    Metric(kind, higher_is_better=True, function=partial(rouge, kind))
    for kind in ("rouge1", "rouge2", "rougeL", "rougeLsum")
)
METEOR = Metric("meteor", higher_is_better=True, function=meteor, check=check_wordnet)


def _stemmer() -> Any:
    """Return nltk's Porter stemmer, remembering the words it has seen."""
    from nltk.stem.porter import PorterStemmer

    return SimpleNamespace(stem=cache(PorterStemmer().stem))


def _wordnet() -> Any:
    """Return nltk's WordNet.

    Raises:
        DataError: if nltk does not find it, or it cannot be read.
    """
    import nltk

    return _wordnet_in(tuple(nltk.data.path))


@cache
def _wordnet_in(folders: tuple[str, ...]) -> Any:
    """Return the WordNet in one of nltk's folders; it takes seconds to read, so it is kept."""
    import nltk
    from nltk.corpus.reader.wordnet import WordNetCorpusReader

    try:
        # With the slash at the end, which finds wordnet.zip as well: nltk's downloader leaves it packed.
        root = nltk.data.find("corpora/wordnet/", list(folders))
    except LookupError as error:
        raise DataError(
            "meteor: nltk finds no WordNet, and prunekit downloads nothing by itself. Get it with "
            "`python -m nltk.downloader wordnet` (about 11 MB), or, without a network, copy wordnet.zip or "
            "the folder wordnet from another computer's nltk_data/corpora into a folder named corpora in one "
            f"of these, where nltk looks: {', '.join(folders)}. The environment variable NLTK_DATA adds more."
        ) from error
    try:
        with warnings.catch_warnings():
            # It says that other languages' data was left out, and METEOR asks for none.
            warnings.simplefilter("ignore", UserWarning)
            reader = WordNetCorpusReader(root, None)
    except (OSError, ValueError, AssertionError, LookupError) as error:
        raise DataError(
            f"meteor: the WordNet in {root} cannot be read ({type(error).__name__}: {error}). Get it again "
            "with `python -m nltk.downloader --force wordnet`."
        ) from error
    return SimpleNamespace(synsets=cache(reader.synsets))
