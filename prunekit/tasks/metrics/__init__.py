"""Scores of predictions against one or several references each, with standard errors, a family a file.

Every value and its standard error are in percent, so that rates, F-measures and correlations read as papers
print them. Every standard error is for examples drawn independently; it is 0 where no estimate exists, as for
a single example. ``estimates`` has the formulas that the families share.
"""

from __future__ import annotations

from prunekit.tasks.base import Metric
from prunekit.tasks.metrics.answers import EXACT_MATCH, TOKEN_F1, exact_match, token_f1
from prunekit.tasks.metrics.correlation import (
    PEARSON,
    PEARSON_SPEARMAN,
    SPEARMAN,
    pearson,
    pearson_spearman,
    spearman,
)
from prunekit.tasks.metrics.edit import PER, WER, phone_error_rate, word_error_rate
from prunekit.tasks.metrics.labels import (
    ACCURACY,
    F1,
    MACRO_F1,
    MCC,
    TOP,
    accuracy,
    f1,
    for_classes,
    macro_f1,
    mcc,
    top_k,
)
from prunekit.tasks.metrics.overlap import METEOR, ROUGE, meteor, rouge
from prunekit.tasks.metrics.translation import BLEU, CHRF, bleu, chrf

METRICS: tuple[Metric, ...] = (
    ACCURACY,
    *TOP,
    F1,
    MACRO_F1,
    MCC,
    PEARSON,
    SPEARMAN,
    PEARSON_SPEARMAN,
    EXACT_MATCH,
    TOKEN_F1,
    *ROUGE,
    METEOR,
    BLEU,
    CHRF,
    PER,
    WER,
)
"""The metrics that ship with prunekit."""

__all__ = [
    "ACCURACY",
    "BLEU",
    "CHRF",
    "EXACT_MATCH",
    "F1",
    "MACRO_F1",
    "MCC",
    "METEOR",
    "METRICS",
    "PEARSON",
    "PEARSON_SPEARMAN",
    "PER",
    "ROUGE",
    "SPEARMAN",
    "TOKEN_F1",
    "TOP",
    "WER",
    "accuracy",
    "bleu",
    "chrf",
    "exact_match",
    "f1",
    "for_classes",
    "macro_f1",
    "mcc",
    "meteor",
    "pearson",
    "pearson_spearman",
    "phone_error_rate",
    "rouge",
    "spearman",
    "token_f1",
    "top_k",
    "word_error_rate",
]
