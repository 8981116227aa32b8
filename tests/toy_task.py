"""A task small enough to train on in seconds: letters come back as they went in."""

from __future__ import annotations

from typing import ClassVar

import torch
from fake_plugins import plugin
from pydantic import BaseModel, ConfigDict, Field

from prunekit.method import MethodInfo
from prunekit.plugins import Registry, Source, plugin_sources
from prunekit.pruning.plan import PruningPlan
from prunekit.tasks.metrics import PER, WER
from prunekit.tasks.text2text import Text2TextTask, TextPair
from prunekit.testing.tasks import LETTERS, letter_tokenizer

SPLITS = ("train", "validation", "test")


class CopyConfig(BaseModel):
    model_config = ConfigDict(extra="forbid")

    train_examples: int = Field(32, ge=1, description="training examples")
    letters: int = Field(26, ge=2, le=26, description="how many letters there are")
    longest: int = Field(5, ge=2, description="letters of the longest example; the shortest has 2")


class Copy(Text2TextTask):
    """Different letters in a random order, to be repeated."""

    name: ClassVar[str] = "copy"
    summary: ClassVar[str] = "letters come back as they went in"
    Config: ClassVar[type[BaseModel]] = CopyConfig
    splits = SPLITS
    metrics = (PER, WER)
    primary_metric = PER.name
    higher_is_better = PER.higher_is_better

    def __init__(self, config, processor):
        super().__init__(processor)
        self.config = config
        self.max_new_tokens = config.longest + 1

    def pairs(self, split):
        generator = torch.Generator().manual_seed(SPLITS.index(split))
        count = self.config.train_examples if split == "train" else 24
        return [self._pair(generator) for _ in range(count)]

    def _pair(self, generator):
        length = int(torch.randint(2, self.config.longest + 1, (1,), generator=generator))
        order = torch.randperm(self.config.letters, generator=generator)[:length]
        text = " ".join(LETTERS[index] for index in order)
        return TextPair(text, (text,))


def copy_task(**keys):
    """The task with its tokenizer."""
    return Copy(CopyConfig(**keys), letter_tokenizer())


class FirstConfig(BaseModel):
    model_config = ConfigDict(extra="forbid")

    share: float = Field(0.5, gt=0, le=1, description="share of each group that is kept")


class First:
    """Keeps the first units of each encoder group, and trains nothing."""

    info = MethodInfo("first", "keeps the first units", "-", ("head", "neuron"), ("t5",), False, "none", True)
    Config = FirstConfig

    def __init__(self, config):
        self.config = config

    def plan(self, target, task, budget, trainer):
        groups = {name: group.size for name, group in target.groups.items() if group.slices}
        return PruningPlan(
            keep={
                name: tuple(range(round(self.config.share * size)))
                for name, size in groups.items()
                if name.startswith("encoder.")
            }
        )


def toy_registry():
    """Everything installed, the copy task, and the method ``first``."""
    toys = plugin(tasks=[Copy], methods=[First])
    return Registry([*plugin_sources(), Source("toy", "toy-dist 1.0", lambda: toys)])
