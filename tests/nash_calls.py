"""Runs of NASH on tiny models that the tests of NASH share."""

from __future__ import annotations

import json

import torch
from prunekit_nash.config import NashConfig
from prunekit_nash.method import Nash
from toy_task import copy_task
from transformers import T5Config, T5ForConditionalGeneration

from prunekit.plugins import get_registry
from prunekit.pruning.target import PrunableModel, find_adapter
from prunekit.recipe import BudgetSpec, TrainSpec
from prunekit.testing.tiny import tiny_model
from prunekit.training.loop import Trainer

BUDGET = {"sparsity": 0.3, "scope": ["encoder.*"]}
# Enough to close masks, far too little to settle: any sparsity is accepted, the budget is met by snapping.
QUICK = {"epochs": 5, "batch_size": 16, "mask_learning_rate": 1.0, "learning_rate": 0.01, "eval_every": 5}
# Settles within the default tolerance on t5 and bart alike.
SETTLED = {"epochs": 75, "batch_size": 8, "mask_learning_rate": 0.1, "learning_rate": 1e-3, "eval_every": 100}


def target_of(model):
    """The model, or the tiny model of that name, with its adapter."""
    model = tiny_model(model) if isinstance(model, str) else model
    return PrunableModel(model, find_adapter(model, get_registry().adapters))


def deep_t5(blocks):
    """A T5 with that many blocks in each stack (with fewer in the encoder, stock T5 cannot generate)."""
    torch.manual_seed(0)
    sizes = {"d_model": 8, "d_kv": 4, "d_ff": 12, "num_heads": 2, "num_layers": blocks}
    config = T5Config(vocab_size=40, dropout_rate=0.0, decoder_start_token_id=0, **sizes)
    return T5ForConditionalGeneration(config).eval()


def run_nash(target, folder, *, seed=0, task=None, budget=BUDGET, train=QUICK, **config):
    """The plan that NASH makes of a target, which is left with the trained weights."""
    loose = {"sparsity_tolerance": 0.9} if train is QUICK else {}
    settings = NashConfig(**{"decoder_layers": 2, "validation_limit": 4, **loose, **config})
    trainer = Trainer(folder, TrainSpec(**train), seed=seed)
    return Nash(settings).plan(target, task or copy_task(), BudgetSpec(**budget), trainer)


def rows_of(folder, stage="prune"):
    """The training log's rows of a stage."""
    rows = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    return [row for row in rows if row["stage"] == stage]


def tensors_of(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def encoder_size(model):
    """Weights and biases of the encoder's projections, counted from the tensors."""
    counted = ("SelfAttention.", "DenseReluDense.", "self_attn.", "fc1.", "fc2.")
    return sum(
        parameter.numel()
        for name, parameter in model.get_encoder().named_parameters()
        if any(part in name for part in counted) and "relative_attention_bias" not in name
    )
