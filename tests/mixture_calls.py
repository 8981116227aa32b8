"""Mixtures and the tasks in them, with keys that tests need not repeat."""

from __future__ import annotations

from writer_calls import tokenizer

from prunekit.tasks.mixture.task import Mixture, MixtureConfig


def mixture(tasks, **keys):
    return Mixture(MixtureConfig(tasks=tasks, **keys), tokenizer())


def text2text(data, **keys):
    return {
        "name": "text2text",
        "data": data,
        "source": "text",
        "target": "label",
        "metrics": ["accuracy"],
        "max_target_length": 4,
        **keys,
    }


def words(data, **keys):
    return {
        "name": "text2text-classification",
        "data": data,
        "source": "text",
        "label": "label",
        "labels": ["good", "bad"],
        "max_target_length": 3,
        **keys,
    }
