"""Turns a finished ``prunekit finetune`` run into a model that ships with prunekit.

    python -m prunekit.embedded.export RUN NAME

Weights are stored in float16; the card's figures are measured on the stored weights, not on the run's.
"""

from __future__ import annotations

import json
import re
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
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

ARCHITECTURES = {"t5": "T5", "bart": "BART", "bert": "BERT", "vit": "ViT"}
METRICS = {"per": "phone error rate", "wer": "word error rate", "accuracy": "accuracy"}


@dataclass(frozen=True)
class TaskLines:
    """What a card says of a task.

    Attributes:
        pipeline_tag: the hub's name for this use of a model.
        does: what the model does, behind "that".
        data: the data, its licence and how its parts were made.
        examples: what one calls several examples.
        scoring: how an answer is found or scored, behind the figures.
        limits: what the model cannot do.
        options: what ``prunekit finetune`` needs besides the recipe.
    """

    pipeline_tag: str
    does: str
    data: str
    examples: str
    scoring: str
    limits: str
    options: str = ""


TASKS = {
    "g2p": TaskLines(
        pipeline_tag="text2text-generation",
        does="spells English words in phones: `hello` gives `HH AH L OW`",
        data="CMUdict without stress marks (see `../g2p/README.md` and `../g2p/LICENSE-cmudict.txt`), "
        "trained on the `train` part; the parts are made by a hash of the word, so no word is in two of them",
        examples="words",
        scoring="Greedy; a word with several pronunciations is scored against the nearest one.",
        limits="The model knows the letters a to z and the 39 phones of CMUdict, nothing else. It is a test "
        "object, not a pronunciation service.",
    ),
    "gloss": TaskLines(
        pipeline_tag="text-classification",
        does="tells from a definition what kind of thing is defined: `a fire lighted at night as a signal` "
        "is `noun.communication`",
        data="definitions of nouns in WordNet 3.0 and their 26 lexicographer classes (see "
        "`../gloss/README.md` and `../gloss/LICENSE-wordnet.txt`), trained on the `train` part; the parts "
        "are made by a hash of the definition, so no definition is in two of them",
        examples="definitions",
        scoring="The most frequent class alone would score 14 %.",
        limits="The model has read nothing but dictionary definitions in English. It is a test object, not a "
        "word sense tagger.",
    ),
    "fashion-mnist": TaskLines(
        pipeline_tag="image-classification",
        does="tells kinds of clothing apart on grey images of 28 by 28 pixels",
        data="Fashion-MNIST (see `../fashion/README.md`)",
        examples="images",
        scoring="Guessing would score 10 %.",
        limits="The model has seen nothing but Fashion-MNIST: centred, on black, 28 by 28 pixels. It is a "
        "test object, not a catalogue.",
        options=" --set task.folder=FOLDER",
    ),
}


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
    train, environment = recipe["train"], facts["environment"]
    task = facts["task"]["name"]
    lines = TASKS[task]
    items = (
        f"Data: {lines.data}.",
        f"Size: {facts['parameters']:,} parameters ({_settings(recipe['model']['config'])}), "
        "stored in float16.",
        f"Made by `prunekit finetune recipes/embedded/{name}.yaml{lines.options} --out RUN`, then "
        f"`python -m prunekit.embedded.export RUN {name}`: {train['epochs']:g} epochs of batches of "
        f"{train['batch_size']}, {facts['steps']:,} steps, best state at step {facts['best_step']:,} by "
        f"validation; {_duration(facts['train_s'])} on {environment['cpu']} with {environment['threads']} "
        f"thread(s), torch {environment['torch']}, seed {recipe['seed']}, from random weights.",
        f"Result on {quality['n']:,} {lines.examples} of the `test` part, on the stored weights: "
        f"{_figures(quality)}. {lines.scoring} Again with `prunekit evaluate embedded:{name} --task {task}`.",
    )
    listed = "\n".join(_wrapped(f"- {item}", indent="  ") for item in items)
    intro = (
        f"A small {ARCHITECTURES[recipe['model']['type']]} that {lines.does}. It ships with prunekit so that "
        "pruning can be tried and tested offline on a trained model and real data."
    )
    return f"""---
license: apache-2.0
library_name: transformers
pipeline_tag: {lines.pipeline_tag}
tags: [{task}, prunekit]
---

# embedded:{name}

{_wrapped(intro)}

{listed}

{_wrapped(lines.limits)}
"""


def _wrapped(text: str, *, indent: str = "") -> str:
    """The text in lines; what stands in backticks, such as a command, stays on one."""
    unbroken = re.sub("`[^`]*`", lambda code: code[0].replace(" ", "\0"), text)
    lines = textwrap.fill(
        unbroken, 110, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False
    )
    return lines.replace("\0", " ")


def _settings(config: Mapping[str, Any]) -> str:
    """The sizes and rates of a model's config, without its token ids and its tables of labels."""
    return ", ".join(
        f"{key} {value}"
        for key, value in config.items()
        if not key.endswith("_id") and not isinstance(value, dict)
    )


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds >= 3600 else f"{seconds / 60:.0f} minutes"


def _figures(quality: Mapping[str, Any]) -> str:
    found = [name for name in METRICS if name in quality]
    return ", ".join(
        f"{METRICS[name]} {quality[name]:.2f} % (standard error {quality[f'{name}_stderr']:.2f})"
        for name in found
    )


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m prunekit.embedded.export RUN NAME")
    print(export(Path(sys.argv[1]), sys.argv[2]))
