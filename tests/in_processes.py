"""What the tests of several processes run in each of them: ``python in_processes.py FOLDER``.

The launcher's variables say which process this is. ``cases.json`` in the folder lists the runs; what a
process found out is written to ``found-RANK.json``.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import torch
from number_task import fit, net, spec, squared_error, weights
from pipeline_calls import run

from prunekit import interrupts, ranks
from prunekit.errors import OtherProcessError, PrunekitError
from prunekit.recipe import Recipe
from prunekit.training.l0 import L0Masks
from prunekit.training.layers import compared_layers

NUMBERS = spec(epochs=3, batch_size=3, gradient_accumulation=2, checkpoint_every=2)
"""Twenty examples in batches of three: the last one has two."""
STOP_AFTER = 5


def run_recipes(folder):
    """The recipes through the pipeline, each in ``many/NAME``."""
    written = []

    def watch(event, arguments):
        if event == "open" and str(folder) in str(arguments[0]) and set(arguments[1] or "") & set("wax+"):
            written.append(str(arguments[0]))

    sys.addaudithook(watch)
    for name, keys in json.loads((folder / "cases.json").read_text()).items():
        run(Recipe.model_validate(keys), folder / "many" / name, name)
    return written


def draw():
    """Masks and compared blocks, which all share, and a number as dropout draws it, which none do."""
    generator = torch.Generator().manual_seed(0)
    masks = L0Masks({"a": (5, "neuron"), "b": (3, "head")}, generator=generator)
    torch.manual_seed(ranks.index())
    sampled = {name: mask.tolist() for name, mask in masks.sample().items()}
    return {
        "masks": sampled,
        "blocks": [compared_layers(12, matching) for matching in ("random", "windows")],
        "own": torch.rand(()).item(),
    }


def fail():
    """What each process is told when one of them fails, while scoring and while the first works alone."""

    def break_at_one(item):
        if item == 1:
            raise PrunekitError("item 1 is broken")
        return item

    def break_alone():
        raise PrunekitError("nothing can be written")

    told = []
    for attempt in (lambda: ranks.each([0, 1, 2], break_at_one), lambda: ranks.from_first(break_alone)):
        try:
            attempt()
        except PrunekitError as error:
            told.append([type(error) is OtherProcessError, str(error)])
    return told


def train(folder, *, dropout=0.0, stop_at=None):
    """The numbers' net, trained; with ``stop_at`` the last process alone gets a signal in that step."""
    model = net(dropout=dropout)

    to_send = [signal.SIGTERM]  # a second one would stop at once

    def loss(batch, step):
        if step + 1 == stop_at and to_send and ranks.index() == ranks.count() - 1:
            signal.raise_signal(to_send.pop())
        return squared_error(model)(batch, step)

    said = None
    try:
        with interrupts.caught():
            fit(folder, model, NUMBERS, loss=loss)
    except interrupts.Interrupted as stop:
        said = str(stop)
    return {"weights": {name: tensor.tolist() for name, tensor in weights(model).items()}, "said": said}


def main(folder):
    """Everything, in an order that all processes share."""
    torch.set_num_threads(1)
    found = {
        "drawn": draw(),
        "failed": fail(),
        "dealt": ranks.each(list("abcde"), str.upper),
        "numbers": train(folder / "many" / "numbers"),
        "stopped": train(folder / "many" / "stopped", dropout=0.5, stop_at=STOP_AFTER),
        "gone-on": train(folder / "many" / "stopped", dropout=0.5),
        "whole": train(folder / "many" / "whole", dropout=0.5),
        "after-one": train(folder / "begun-by-one"),
        "written": run_recipes(folder),
    }
    (folder / f"found-{os.environ['RANK']}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
