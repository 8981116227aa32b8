"""Turns a finished ``prunekit finetune`` run into a model that ships with prunekit.

    python -m prunekit.embedded.export RUN NAME

Weights are stored in float16; the card's figures are measured on the stored weights, not on the run's.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

from prunekit.files import write_text
from prunekit.models import load_model, load_processor, save_model
from prunekit.pipeline import evaluate
from prunekit.plugins import get_registry
from prunekit.progress import Progress
from prunekit.recipe import EvaluateSpec, TaskSpec

HERE = Path(__file__).parent


def export(run: Path, name: str) -> Path:
    """Write ``prunekit/embedded/<name>`` with its card, and give its folder."""
    folder = HERE / name
    save_model(load_model(str(run)).half(), load_processor(str(run)), folder)
    facts = json.loads((run / "finetune.json").read_text())
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    quality = evaluate(
        str(folder),
        TaskSpec.model_validate(facts["task"]),
        EvaluateSpec(split="test", batch_size=256),
        registry=get_registry(),
        progress=Progress(),
    )
    write_text(folder / "README.md", card(name, facts, recipe, quality))
    return folder


def card(name: str, facts: dict[str, Any], recipe: dict[str, Any], quality: dict[str, Any]) -> str:
    """The model card: what it is, where it comes from, how good it is, how to make it again."""
    train, config = recipe["train"], recipe["model"]["config"]
    environment = facts["environment"]
    settings = ", ".join(f"{key} {value}" for key, value in config.items() if not key.endswith("_id"))
    return f"""---
license: apache-2.0
library_name: transformers
pipeline_tag: text2text-generation
tags: [g2p, prunekit]
---

# embedded:{name}

A small {recipe["model"]["type"].upper()} that spells English words in phones: `hello` gives
`HH AH L OW`. It ships with prunekit so that pruning can be tried and tested offline on a trained model and
real data.

- Data: CMUdict without stress marks (see `../g2p/README.md` and `../g2p/LICENSE-cmudict.txt`), trained on
  the `train` part; the parts are made by a hash of the word, so no word is in two of them.
- Size: {facts["parameters"]:,} parameters ({settings}), stored in float16.
- Made by `prunekit finetune recipes/embedded/{name}.yaml`, then
  `python -m prunekit.embedded.export RUN {name}`: {train["epochs"]:g} epochs of batches of
  {train["batch_size"]}, {facts["steps"]:,} steps, best state at step {facts["best_step"]:,} by validation;
  {facts["train_s"] / 3600:.1f} hours on a {environment["cpu"]} with {environment["threads"]} thread(s),
  torch {environment["torch"]}, seed {recipe["seed"]}, from random weights.
- Result on the {quality["n"]:,} words of the `test` part, greedy, on the stored weights: phone error rate
  {quality["per"]:.2f} % (standard error {quality["per_stderr"]:.2f}), word error rate
  {quality["wer"]:.2f} % ({quality["wer_stderr"]:.2f}). A word with several pronunciations is scored against
  the nearest one. Again with `prunekit evaluate embedded:{name} --task g2p`.

The model knows the letters a to z and the 39 phones of CMUdict, nothing else. It is a test object, not a
pronunciation service.
"""


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m prunekit.embedded.export RUN NAME")
    print(export(Path(sys.argv[1]), sys.argv[2]))
