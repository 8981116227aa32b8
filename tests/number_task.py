"""A regression task for tests of the training loop, and a net with dropout to catch lost random states."""

from __future__ import annotations

import json

import torch
from torch import nn

from prunekit.recipe import TrainSpec
from prunekit.training.loop import Trainer


class Numbers:
    """``examples`` pairs of vectors; only what the loop asks of a task."""

    splits = ("train",)

    def __init__(self, examples=20):
        generator = torch.Generator().manual_seed(5)
        self._examples = [
            (torch.randn(4, generator=generator), torch.randn(2, generator=generator))
            for _ in range(examples)
        ]

    def examples(self, split):
        assert split == "train"
        return self._examples

    def lengths(self, split):
        return [1 + index % 5 for index in range(len(self.examples(split)))]

    def collate(self, examples):
        return {
            name: torch.stack(column) for name, column in zip("xy", zip(*examples, strict=True), strict=True)
        }


def net(*, dropout=0.0):
    torch.manual_seed(7)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Dropout(dropout), nn.Linear(6, 2))


def squared_error(model):
    return lambda batch, step: ((model(batch["x"]) - batch["y"]).square().mean(), {})


def spec(**keys):
    return TrainSpec(**{"epochs": 2, "batch_size": 4, "learning_rate": 0.05, "precision": "fp32", **keys})


def fit(folder, model, settings, *, loss=None, task=None, seed=3, stage="stage", **options):
    trainer = Trainer(folder, settings, seed=seed)
    return trainer.fit(stage, model, task or Numbers(), settings, loss or squared_error(model), **options)


def log_rows(folder):
    return [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def equal_weights(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
