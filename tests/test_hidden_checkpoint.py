"""Checkpoints of models whose hidden units were cut: strict, and they write the same text."""

import json

import pytest
import torch
import transformers
from core_calls import AUTO_CLASS, difference, folder_bytes, irregular_plan, outputs, same_tensors

from prunekit.errors import CheckpointError
from prunekit.pruning.plan import PruningPlan
from prunekit.pruning.verify import verify
from prunekit.testing.tiny import TINY_MODELS, tiny_inputs, tiny_model

pytestmark = pytest.mark.slow

KEPT = (0, 2, 3, 7, 8, 11, 14)


def hidden_plan(target, *, soft=True):
    """Removals of every kind in every stack, with hidden units among them."""
    plan = irregular_plan(target)
    scale = {"hidden": tuple(0.5 + 0.05 * i for i in range(len(KEPT)))} if soft else {}
    return plan.merged(PruningPlan(keep={"hidden": KEPT}, scale=scale))


def load(name, folder):
    return getattr(transformers, AUTO_CLASS[name]).from_pretrained(folder)


@pytest.mark.parametrize("name", TINY_MODELS)
def test_saving_and_loading_changes_nothing(name, prunable, tmp_path):
    target = prunable(tiny_model(name))
    pruned = target.pruned(hidden_plan(target)).model
    pruned.save_pretrained(tmp_path / "first")
    reloaded = load(name, tmp_path / "first")
    assert type(reloaded) is type(pruned)
    assert same_tensors(reloaded, pruned)
    inputs = tiny_inputs(pruned)
    assert difference(outputs(pruned, inputs), outputs(reloaded, inputs)) <= 1e-6
    reloaded.save_pretrained(tmp_path / "second")
    assert folder_bytes(tmp_path / "second") == folder_bytes(tmp_path / "first")


@pytest.mark.parametrize("name", ["t5", "t5-gated", "t5-narrow", "bart"])
def test_masked_pruned_and_reloaded_models_write_the_same_text(name, prunable, tmp_path):
    target = prunable(tiny_model(name, dtype=torch.float64))
    plan = hidden_plan(target)
    pruned = target.pruned(plan).model
    pruned.save_pretrained(tmp_path)
    inputs = tiny_inputs(pruned)
    settings = {"num_beams": 3, "min_new_tokens": 8, "max_new_tokens": 8, "do_sample": False}
    sources = {key: inputs[key] for key in ("input_ids", "attention_mask")}
    with target.masked(plan.masks(target.groups)):
        wanted = target.model.generate(**sources, **settings)
    assert torch.equal(pruned.generate(**sources, **settings), wanted)
    reloaded = load(name, tmp_path)
    assert torch.equal(reloaded.generate(**sources, **settings), wanted)
    assert torch.equal(reloaded.generate(**sources, **settings, use_cache=False), wanted)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("name", TINY_MODELS)
def test_the_certificate_of_a_run_covers_hidden_units(name, soft, prunable):
    target = prunable(tiny_model(name))
    with torch.no_grad():  # else float32 itself is off by 1e-4, as the tiny T5's scores are not scaled
        for parameter in target.model.parameters():
            parameter.mul_(0.5 if parameter.ndim > 1 else 1)
    plan = hidden_plan(target, soft=soft)
    found = verify(target, target.pruned(plan), plan, tiny_inputs(target.model))
    assert found["masked_vs_pruned_max_abs"] <= found["tolerance"]


def test_the_record_lists_the_kept_units_and_the_stock_fields_stay(prunable, tmp_path):
    target = prunable(tiny_model("t5"))
    target.pruned(hidden_plan(target)).model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["prunekit"]["hidden"] == list(KEPT)
    assert config["d_model"] == 16


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        (
            [0, 1, 16],
            r"config.json says \[0, 1, 16\] of the hidden units; allowed are sorted indices from 0 to 15",
        ),
        ([3, 1], r"config.json says \[3, 1\] of the hidden units"),
        ([], r"config.json says \[\] of the hidden units"),
        ([1, 1], r"config.json says \[1, 1\] of the hidden units"),
        ("all", "config.json says all of the hidden units"),
        ([0, 1], r"weights and structure disagree in \d+ places"),
    ],
)
def test_an_edited_list_of_hidden_units_is_refused(entry, text, prunable, tmp_path):
    target = prunable(tiny_model("t5"))
    target.pruned(hidden_plan(target)).model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["prunekit"]["hidden"] = entry
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=text):
        load("t5", tmp_path)
