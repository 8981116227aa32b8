"""Checkpoints in a fresh process and a moved folder: with `import prunekit`, or without if none is needed."""

import json
import os
import subprocess
import sys

import pytest
from core_calls import AUTO_CLASS, difference, irregular_plan, outputs
from safetensors.torch import load_file, save_file

from prunekit.pruning.plan import PruningPlan
from prunekit.testing.tiny import TINY_MODELS, tiny_inputs, tiny_model

pytestmark = pytest.mark.slow

LOADER = """
import json, sys
with_prunekit = sys.argv[1] == "with"
if with_prunekit:
    import prunekit
    assert not {"torch", "transformers"} & set(sys.modules), "import prunekit must not load them"
import torch, transformers
from safetensors.torch import load_file, save_file
found = {}
for name, auto, folder in json.loads(sys.argv[2]):
    model = getattr(transformers, auto).from_pretrained(folder)
    inputs = load_file(folder + "-inputs.safetensors")
    with torch.no_grad():
        save_file({"logits": model(**inputs).logits}, folder + "-outputs.safetensors")
    if hasattr(model, "generate") and "input_ids" in inputs and "decoder_input_ids" in inputs:
        settings = {"num_beams": 3, "do_sample": False, "min_new_tokens": 6, "max_new_tokens": 6}
        tokens = model.generate(inputs["input_ids"], attention_mask=inputs["attention_mask"], **settings)
        found[name + " tokens"] = tokens.tolist()
    found[name] = [type(model).__module__, type(model).__name__]
assert with_prunekit or "prunekit" not in sys.modules
print(json.dumps(found))
"""


def run_loader(mode, folders):
    """What a fresh process finds: class names and tokens by model name."""
    listed = json.dumps([[name, AUTO_CLASS[name], str(folder)] for name, folder in folders.items()])
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PRUNEKIT_PLUGINS": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:prunekit", "-c", LOADER, mode, listed],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def save_and_move(models, base):
    """Save each model, then move its folder; the inputs for it lie beside."""
    folders = {}
    for name, model in models.items():
        model.save_pretrained(base / "saved" / name)
        folders[name] = base / "moved" / name
        folders[name].parent.mkdir(exist_ok=True)
        (base / "saved" / name).rename(folders[name])
        save_file(tiny_inputs(model), f"{folders[name]}-inputs.safetensors")
    return folders


def assert_same_outputs(models, folders):
    for name, model in models.items():
        found = load_file(f"{folders[name]}-outputs.safetensors")["logits"]
        assert difference(outputs(model, tiny_inputs(model))[:1], [found]) <= 1e-5, name


@pytest.fixture(scope="module")
def irregular(prunable, tmp_path_factory):
    """Irregular models, their moved folders, and what a fresh process that imports prunekit loads."""
    models = {}
    for name in TINY_MODELS:
        target = prunable(tiny_model(name))
        models[name] = target.pruned(irregular_plan(target)).model
    folders = save_and_move(models, tmp_path_factory.mktemp("irregular"))
    return models, folders, run_loader("with", folders)


def test_irregular_models_load_in_a_fresh_process_from_a_moved_folder(irregular):
    models, folders, found = irregular
    for name, model in models.items():
        assert found[name] == ["prunekit.pruning.checkpoint", type(model).__name__]
    assert_same_outputs(models, folders)


def test_they_generate_the_same_tokens_there(irregular):
    models, _, found = irregular
    for name in ("t5", "t5-gated", "bart"):
        inputs = tiny_inputs(models[name])
        inputs.pop("decoder_input_ids")
        settings = {"num_beams": 3, "do_sample": False, "min_new_tokens": 6, "max_new_tokens": 6}
        assert models[name].generate(**inputs, **settings).tolist() == found[f"{name} tokens"]


def regular_plan(target):
    """Fewer blocks in the last stack, and the same FFN width everywhere."""
    stack = list(target.structure.stacks)[-1]
    keep = {f"{stack}.blocks": (1, 2)}
    for name, group in target.groups.items():
        if group.kind == "neuron":
            offset = int(name.split(".")[1])
            keep[name] = tuple(range(offset, offset + 9))
    return PruningPlan(keep=keep)


@pytest.fixture(scope="module")
def regular(prunable, tmp_path_factory):
    """Regular models, their moved folders, and what a fresh process without prunekit loads."""
    models = {}
    for name in TINY_MODELS:
        target = prunable(tiny_model(name))
        models[name] = target.pruned(regular_plan(target)).model
    folders = save_and_move(models, tmp_path_factory.mktemp("regular"))
    return models, folders, run_loader("without", folders)


def test_fewer_blocks_and_equal_widths_load_without_prunekit(regular):
    models, folders, found = regular
    for name, model in models.items():
        module, class_name = found[name]
        assert module.startswith("transformers.models.")
        assert class_name == type(tiny_model(name)).__name__ == type(model).__name__
    assert_same_outputs(models, folders)


def test_stock_folders_do_not_mention_prunekit(regular):
    _, folders, _ = regular
    assert not any("prunekit" in (folder / "config.json").read_text() for folder in folders.values())


@pytest.mark.parametrize(
    ("name", "keep"),
    [
        ("t5", {"decoder.blocks": (0, 2)}),
        ("t5", {"encoder.blocks": (1, 2), "decoder.blocks": (1,)}),
        ("bart", {"decoder.blocks": (2,)}),
        ("bert", {"encoder.blocks": (0, 1)}),
        ("vit", {f"encoder.{i}.ffn.neurons": (0, i + 1) for i in range(3)}),
        ("bart", {f"decoder.{i}.ffn.neurons": (0, i + 1) for i in range(3)}),
        ("bert", {}),
    ],
)
def test_what_stock_fields_can_say_is_a_stock_class(name, keep, prunable):
    target = prunable(tiny_model(name))
    assert type(target.pruned(PruningPlan(keep=keep)).model) is type(target.model)


@pytest.mark.parametrize(
    ("name", "keep"),
    [
        ("t5", {f"encoder.{i}.ffn.neurons": (0, i + 1) for i in range(3)}),  # d_ff is the decoder's too
        ("bert", {"encoder.0.ffn.neurons": tuple(range(19))}),
        ("bert", {f"encoder.{i}.self_attn.heads": (0, 1) for i in range(3)}),  # would change the head size
        ("vit", {"encoder.self_attn": (0, 1)}),
        ("bart", {"decoder.0.cross_attn.heads": ()}),
    ],
)
def test_what_stock_fields_cannot_say_is_a_pruned_class(name, keep, prunable):
    target = prunable(tiny_model(name))
    model = target.pruned(PruningPlan(keep=keep)).model
    assert type(model).__name__ == f"Prunekit{type(target.model).__name__}"
    assert isinstance(model, type(target.model))
