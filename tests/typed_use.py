"""The Python API as a typed program uses it; mypy checks this file, nothing runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, assert_type

import torch

import prunekit
from prunekit.pruning.target import PrunableModel
from prunekit.pruning.units import UnitGroup
from prunekit.recipe import Recipe
from prunekit.results import Comparison, Quality, Report, Speed

recipe = prunekit.load_recipe("recipe.yaml", {"budget.sparsity": 0.5})
assert_type(recipe, Recipe)
prunekit.load_recipe({"version": 1}, ["seed=1"])

report = prunekit.prune(recipe, method="nash", out=Path("runs/mine"), seed=1, settings={"train.epochs": 2})
assert_type(report, Report)
assert_type(report["quality"], Any)
assert_type(report.plan, prunekit.PruningPlan)
assert_type(report.folder, Path)
prunekit.prune(Path("recipe.yaml"), progress=False)
prunekit.prune({"version": 1}, "nash", out="runs/mine")

found = prunekit.compare("recipe.yaml", seeds=3, sweep={"budget.sparsity": [0.5, 0.6]}, only=["nash*"])
assert_type(found, Comparison)
assert_type(found.render("latex", sort="speedup"), str)
prunekit.compare([report.folder, "runs/other"], reference="optin")
prunekit.compare(recipe, settings={"seed": 1})

target = prunekit.PrunableModel.from_pretrained("embedded:bert-gloss")
assert_type(target, PrunableModel)
assert_type(target.groups["encoder.0.self_attn.heads"], UnitGroup)
for name, group in target.groups.items():
    assert_type(name, str)
    assert_type(group.size, int)
with target.masked({"encoder.0.self_attn.heads": torch.ones(8), "encoder.1.self_attn.heads": [1, 0, 1.0]}):
    pass

plan = prunekit.PruningPlan(keep={"encoder.0.self_attn.heads": (0, 2)})
pruned = prunekit.apply_plan(target, plan)
assert_type(pruned, PrunableModel)
prunekit.apply_plan("embedded:bert-gloss", "runs/mine")
prunekit.apply_plan(pruned.model, Path("plan.json"))

quality = prunekit.evaluate(pruned, "gloss", limit=200)
assert_type(quality, Quality)
prunekit.evaluate("embedded:bert-gloss", recipe=recipe, split="validation", num_beams=4)
prunekit.evaluate(prunekit.load_model("runs/mine"), {"name": "gloss"}, processor="embedded:bert-gloss")

speed = prunekit.measure_speed(
    {"dense": target, "pruned": pruned.model, "own": "runs/mine"}, batch_size=[1, 8]
)
assert_type(speed, Speed)
prunekit.measure_speed(["embedded:bert-gloss"], input_tokens=32, dtype="bf16", baselines=True)

prunekit.prune(recipe, method=3)  # type: ignore[arg-type]
prunekit.measure_speed({"dense": target}, dtype="int8")  # type: ignore[arg-type]
prunekit.prun(recipe)  # type: ignore[attr-defined]
