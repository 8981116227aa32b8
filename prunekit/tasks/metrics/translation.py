"""Scores of translations over a whole corpus: BLEU and chrF, as the package sacrebleu computes them.

Both are functions of counts summed over the examples, which no single example has a score of. The standard
error is the jackknife's: with v_i the value without example i, v their mean and n examples, it is
sqrt((n - 1) / n * sum (v_i - v)^2), and an example's influence is sqrt(n (n - 1)) (v - v_i). That takes no
random numbers, and for 10,000 examples a small part of the time that counting their n-grams takes. It errs
where a value hangs on a handful of matches, such as a BLEU with two 4-grams right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from prunekit.tasks.base import Metric, MetricValue
from prunekit.tasks.metrics.estimates import check


def bleu(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> MetricValue:
    """Return the corpus BLEU, 0 to 100: 4-grams, case kept.

    The tokens are mteval-v13a's, and the smoothing for n-grams without a match is exponential. All references
    of an example count at once. It is 0 where no answer is four tokens long. sacrebleu's signature of it is
    ``case:mixed|eff:no|tok:13a|smooth:exp``.

    Raises:
        DataError: if there is nothing to score, or an example has no reference.
    """
    check(predictions, references)
    from sacrebleu.metrics.bleu import BLEU as Scorer

    # Forced: it warns of answers that end in " .", which fine-tuned models take from their training data.
    return _corpus(Scorer(force=True), predictions, references)


def chrf(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> MetricValue:
    """Return the corpus chrF, 0 to 100: character n-grams up to 6, without white space, beta 2.

    Of several references an example counts against the one that suits it best. sacrebleu's signature of it is
    ``case:mixed|eff:yes|nc:6|nw:0|space:no``.

    Raises:
        DataError: if there is nothing to score, or an example has no reference.
    """
    check(predictions, references)
    from sacrebleu.metrics.chrf import CHRF as Scorer

    return _corpus(Scorer(), predictions, references)


BLEU = Metric("bleu", higher_is_better=True, function=bleu)
CHRF = Metric("chrf", higher_is_better=True, function=chrf)


def _corpus(scorer: Any, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> MetricValue:
    """Return the score of all examples; its standard error and influences are from the scores without each.

    The counts come from the methods that sacrebleu's own bootstrap calls; its public ones give scores alone.
    """
    # sacrebleu wants the first references of all, then the second ones, None where an example has none left.
    streams = [list(stream) for stream in zip_longest(*references)]
    counts = scorer._extract_corpus_statistics(predictions, streams)
    totals = [sum(column) for column in zip(*counts, strict=True)]
    value = _score(scorer, totals)
    if len(counts) == 1:
        return MetricValue(value, 0.0, [0.0])
    without = [
        _score(scorer, [total - own for total, own in zip(totals, row, strict=True)]) for row in counts
    ]
    mean = math.fsum(without) / len(without)
    spread = math.fsum((left - mean) ** 2 for left in without)
    scale = math.sqrt(len(without) * (len(without) - 1))
    influences = [scale * (mean - left) for left in without]
    return MetricValue(value, math.sqrt(spread * (len(without) - 1) / len(without)), influences)


def _score(scorer: Any, counts: list[int]) -> float:
    return float(scorer._compute_score_from_stats(counts).score)
