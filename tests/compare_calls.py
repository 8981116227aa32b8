"""A comparison that runs in seconds: two cheap methods on a tiny model, with the copy task."""

from __future__ import annotations

from pipeline_calls import REGISTRY, quick_recipe

from prunekit.comparison.compare import About, compare_recipe, compare_runs
from prunekit.progress import Progress

METHODS = {"half": {"method": "first"}, "third": {"method": "first", "share": 0.75}}


def cheap_recipe(model, **keys):
    """Two shares of units kept, with a few steps of recovery each."""
    return quick_recipe(model, **{"methods": METHODS, "recover": {"max_steps": 2, "batch_size": 16}, **keys})


def compare(recipe, out, *, seeds=(0, 1), progress=None, points=(), **about):
    """Compare a recipe's methods; ``points`` are swept keys and values with the recipe there."""
    return compare_recipe(
        points or [({}, recipe)],
        About("tiny", "prunekit compare tiny.yaml", **about),
        out,
        seeds=seeds,
        registry=REGISTRY,
        progress=progress or Progress(quiet=True),
    )


def compare_finished(folders, out, **about):
    """Compare finished runs."""
    return compare_runs(
        folders,
        About("runs", "prunekit compare runs", **about),
        out,
        registry=REGISTRY,
        progress=Progress(quiet=True),
    )


def row_of(comparison, name):
    """The row of that name."""
    return next(row for row in comparison["rows"] if row["name"] == name)
