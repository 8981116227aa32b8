"""The memory estimate of ``prunekit prune --dry-run`` against what runs take, on the embedded models.

    python benchmarks/memory_estimate.py

Each estimate and each run has a process of its own. A run's growth is its peak resident memory
(``resource.getrusage``) less what the process had when the model was loaded and the task made, which is also
where the estimate starts. Runs are cut short: after a few steps of each stage the peak is reached.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

RECIPES = Path(__file__).parents[1] / "recipes"
# One pass over the data, so that the batch of the longest examples is among those trained on.
SPEED = ["speed.rounds=2", "speed.warmup=1"]
SHORT = ["task.train_examples=1280", "recover.max_steps=20", "evaluate.limit=512", *SPEED]
NASH = [
    "train.max_steps=20",
    "train.eval_every=10",
    "train.checkpoint_every=10",
    "methods.nash.sparsity_tolerance=0.99",
]
CASES: dict[str, tuple[str, str, list[str]]] = {
    "t5-g2p nash": ("quickstart.yaml", "nash", [*SHORT, *NASH]),
    "t5-g2p magnitude": ("compare/g2p.yaml", "magnitude", [*SHORT, "methods.magnitude.recover.max_steps=20"]),
    "bart-g2p nash-3": (
        "nash/bart-g2p.yaml",
        "nash-3",
        [*SHORT, *(key.replace("methods.nash.", "methods.nash-3.") for key in NASH)],
    ),
    "bart-g2p magnitude": ("optin/bart-g2p.yaml", "magnitude", ["evaluate.limit=512", *SPEED]),
    "bert-gloss magnitude": ("optin/bert-gloss.yaml", "magnitude", ["evaluate.limit=512", *SPEED]),
    "bert-gloss optin": ("optin/bert-gloss.yaml", "optin", ["evaluate.limit=512", *SPEED]),
    "vit-fashion magnitude": ("optin/vit-fashion.yaml", "magnitude", SPEED),
}


def estimated(file: str, label: str, settings: list[str]) -> dict[str, Any]:
    """The parts of the estimate, in MiB."""
    from prunekit import pipeline
    from prunekit.plugins import get_registry
    from prunekit.recipe import load_recipe

    registry = get_registry()
    recipe = load_recipe(RECIPES / file, settings, registry=registry)
    memory: dict[str, Any] = pipeline.dry_run(recipe, label, registry=registry)["memory_mib"]
    return memory


def measured(file: str, label: str, settings: list[str]) -> dict[str, float]:
    """What a run's process grows by, in MiB, from the loaded model to its peak."""
    from prunekit.pipeline import open_job
    from prunekit.plugins import get_registry
    from prunekit.progress import Progress
    from prunekit.recipe import load_recipe
    from prunekit.resources import process_mib

    registry = get_registry()
    recipe = load_recipe(RECIPES / file, settings, registry=registry)
    with tempfile.TemporaryDirectory() as folder:
        job = open_job(recipe, label, Path(folder) / "run", registry=registry, progress=Progress(quiet=True))
        before = process_mib()
        results = job.results()
        job.finish(results, job.folder.stage("speed", job.speed))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"before": round(before, 1), "peak": round(peak - before, 1)}


def _alone(what: str, name: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", what, name]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Print a line a case: estimated and measured growth, and how far apart they are."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("cases", nargs="*", help=f"of {', '.join(CASES)}; all by default")
    options = parser.parse_args()
    if options.child:
        what, name = options.child
        print(json.dumps((estimated if what == "estimate" else measured)(*CASES[name])))
        return
    for name in options.cases or CASES:
        told, found = _alone("estimate", name), _alone("run", name)
        share = told["peak"] / found["peak"] - 1
        print(
            f"{name:<22} estimated {told['peak']:6.0f} MiB   measured {found['peak']:6.0f} MiB   {share:+.0%}"
        )
        print("  ", {**told, "measured from": found["before"]}, flush=True)


if __name__ == "__main__":
    main()
