"""A recipe that runs in seconds, on a tiny model with the copy task."""

from __future__ import annotations

import torch
from toy_task import letter_tokenizer, toy_registry

from prunekit import pipeline
from prunekit.models import save_model
from prunekit.recipe import Recipe
from prunekit.testing.tiny import tiny_model

REGISTRY = toy_registry()


def saved_tiny(folder, name="t5"):
    """A tiny model with its tokenizer, in ``folder``."""
    model = tiny_model(name)
    model.generation_config.pad_token_id = 0
    save_model(model, letter_tokenizer(), folder)
    return folder


def quick_recipe(model, **keys):
    """NASH in ten steps, recovery in four, and measurements to match."""
    nash = {"decoder_layers": 2, "sparsity_tolerance": 0.9, "validation_limit": 4}
    sections = {
        "version": 1,
        "model": str(model),
        "task": {"name": "copy"},
        "budget": {"sparsity": 0.3, "scope": ["encoder.*"]},
        "methods": {"nash": nash},
        "train": {
            "epochs": 5,
            "batch_size": 16,
            "mask_learning_rate": 1.0,
            "eval_every": 5,
            "checkpoint_every": 4,
        },
        "recover": {"epochs": 2, "batch_size": 16, "learning_rate": 0.01},
        "evaluate": {"limit": 8},
        "speed": {"batch_size": 2, "num_beams": 2, "new_tokens": 3, "rounds": 2, "warmup": 0, "threads": 1},
    }
    return Recipe.model_validate({**sections, **keys})


def run(recipe, out, label=None):
    return pipeline.run(recipe, label, out, registry=REGISTRY)


def snapshot(folder):
    """Time of change and content of every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def logits(model, batch):
    with torch.no_grad():
        return model.eval()(**batch).logits
