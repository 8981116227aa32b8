"""Runs that start at a sublayer give what running the whole masked model gives, and leave no trace."""

import pytest
import torch
from core_calls import irregular_plan, off, outputs
from optin_calls import double

from prunekit.errors import PlanError, UnsupportedModelError
from prunekit.scoring.replay import Tap, idle_units, record, run, run_dense
from prunekit.testing.tiny import TINY_MODELS, tiny_inputs, tiny_model

pytestmark = pytest.mark.slow


def bits(model):
    """Everything a run could leave on a model."""
    return [
        (set(vars(m)), len(m._forward_hooks), len(m._forward_pre_hooks), m.training) for m in model.modules()
    ]


def masked_logits(target, inputs, group, unit):
    with target.masked(off(target.groups, f"{group}:{unit}")), torch.no_grad():
        return target.model(**inputs).logits


def last_block(target):
    stack = list(target.structure.stacks.values())[-1]
    return f"{stack.blocks}.{stack.depth - 1}"


@pytest.mark.usefixtures("exact_norm")
@pytest.mark.parametrize("name", TINY_MODELS)
def test_each_unit_removed_by_replay_equals_the_masked_model(name, prunable):
    target = double(name, prunable)
    inputs = tiny_inputs(target.model, batch=2)
    for sub in target.structure.sublayers.values():
        with torch.inference_mode():
            prefix = record(target, inputs, [sub])[sub.name]
            units = torch.arange(sub.units.size)
            found = run(target, prefix, units, [])
        for unit in range(sub.units.size):
            expected = masked_logits(target, inputs, sub.units.name, unit)
            assert torch.allclose(found.logits[unit], expected, rtol=1e-9, atol=1e-9), (sub.name, unit)
        assert not torch.allclose(found.logits[0], outputs(target.model, inputs)[0], atol=1e-4)


@pytest.mark.usefixtures("exact_norm")
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("name", ["t5", "bart", "bert", "vit"])
def test_replay_needs_no_particular_attention_kernel(name, attention, prunable):
    target = double(name, prunable)
    target.model.set_attn_implementation(attention)
    inputs = tiny_inputs(target.model)
    for sub in target.structure.sublayers.values():
        with torch.inference_mode():
            found = run(target, record(target, inputs, [sub])[sub.name], torch.tensor([1]), [])
        expected = masked_logits(target, inputs, sub.units.name, 1)
        assert torch.allclose(found.logits[0], expected, rtol=1e-9, atol=1e-9), sub.name


def test_variants_of_one_call_are_those_of_single_calls(prunable):
    target = double("bert", prunable)
    inputs = tiny_inputs(target.model)
    sub = target.structure.sublayers["encoder.0.ffn"]
    taps = [Tap(last_block(target))]
    with torch.inference_mode():
        prefix = record(target, inputs, [sub])[sub.name]
        together = run(target, prefix, torch.tensor([7, 2, 11]), taps)
        for place, unit in enumerate((7, 2, 11)):
            alone = run(target, prefix, torch.tensor([unit]), taps)
            assert torch.allclose(together.logits[place], alone.logits[0], rtol=1e-12)
            assert torch.allclose(together.taps[taps[0].path][place], alone.taps[taps[0].path][0], rtol=1e-9)


@pytest.mark.usefixtures("exact_norm")
@pytest.mark.parametrize("name", ["bert", "vit", "t5", "bart"])
def test_taps_of_the_last_feed_forward_see_the_removed_neuron(name, prunable):
    target = double(name, prunable)
    inputs = tiny_inputs(target.model)
    sub = list(target.structure.sublayers.values())[-1]
    paths = [sub.output, last_block(target)]
    found, expected = {}, {}
    with torch.inference_mode():
        prefix = record(target, inputs, [sub])[sub.name]
        found = run(target, prefix, torch.tensor([3]), [Tap(path) for path in paths]).taps
    with target.masked(off(target.groups, f"{sub.units.name}:3")), torch.no_grad():
        expected = run_dense(target, inputs, [Tap(path) for path in paths]).taps
    for path in paths:
        assert torch.allclose(found[path], expected[path], rtol=1e-9, atol=1e-9)


def test_a_tap_gives_the_tokens_that_were_asked_for_in_their_order(prunable):
    target = double("bert", prunable)
    inputs = tiny_inputs(target.model)
    path = last_block(target)
    with torch.no_grad():
        every = run_dense(target, inputs, [Tap(path)]).taps[path]
        some = run_dense(target, inputs, [Tap(path, torch.tensor([4, 0, 9]))]).taps[path]
    assert torch.equal(some, every[:, [4, 0, 9]])


@pytest.mark.parametrize("name", TINY_MODELS)
def test_nothing_of_a_run_stays_on_the_model(name, prunable):
    target = prunable(tiny_model(name))
    inputs = tiny_inputs(target.model)
    before, kept = outputs(target.model, inputs), bits(target.model)
    for sub in target.structure.sublayers.values():
        with torch.inference_mode():
            run(target, record(target, inputs, [sub])[sub.name], torch.tensor([0, 1]), [Tap(sub.output)])
    assert bits(target.model) == kept
    assert all(torch.equal(a, b) for a, b in zip(before, outputs(target.model, inputs), strict=True))


def test_nothing_of_a_run_stays_on_the_model_after_an_error(prunable):
    target = prunable(tiny_model("bart"))
    inputs = tiny_inputs(target.model)
    kept = bits(target.model)
    sub = target.structure.sublayers["encoder.1.self_attn"]

    def fail(module, arguments, output):
        raise RuntimeError("stop")

    with torch.inference_mode():
        prefix = record(target, inputs, [sub])[sub.name]
        handle = target.model.get_submodule("model.decoder.layers.1").register_forward_hook(fail)
        with pytest.raises(RuntimeError, match="stop"):
            run(target, prefix, torch.tensor([0]), [Tap("model.decoder.layers.0")])
    handle.remove()
    assert bits(target.model) == kept


@pytest.mark.usefixtures("exact_norm")
@pytest.mark.parametrize("name", ["t5", "bart", "bert", "vit"])
def test_replay_works_on_a_model_that_was_pruned_before(name, prunable):
    dense = double(name, prunable)
    target = dense.pruned(irregular_plan(dense))
    inputs = tiny_inputs(target.model)
    for sub in target.structure.sublayers.values():
        if sub.units.size > 1:
            with torch.inference_mode():
                found = run(target, record(target, inputs, [sub])[sub.name], torch.tensor([0]), [])
            expected = masked_logits(target, inputs, sub.units.name, 0)
            assert torch.allclose(found.logits[0], expected, rtol=1e-9, atol=1e-9), sub.name


def test_units_without_a_contribution_are_idle(prunable):
    target = prunable(tiny_model("bert"))
    sub = target.structure.sublayers["encoder.1.ffn"]
    with torch.no_grad():
        target.model.get_submodule(sub.output).weight[:, 5] = 0
        target.model.get_submodule(sub.inputs[0]).weight[6] = 0
        target.model.get_submodule(sub.inputs[0]).bias[6] = 0
        found = idle_units(target, record(target, tiny_inputs(target.model), [sub])[sub.name])
    assert found.nonzero().flatten().tolist() == [5, 6]


def test_a_block_that_goes_on_after_its_feed_forward_sublayer_is_refused(prunable):
    target = prunable(tiny_model("vit"))
    sub = target.structure.sublayers["encoder.1.ffn"]
    block = target.model.get_submodule("vit.layers.1")
    handle = block.register_forward_hook(lambda module, arguments, output: 2 * output)
    with torch.inference_mode(), pytest.raises(UnsupportedModelError) as caught:
        record(target, tiny_inputs(target.model), [sub])
    handle.remove()
    assert str(caught.value) == (
        "encoder.1.ffn of ViTForImageClassification is not the last thing in its block: the block's output "
        "is not that of the residual addition after vit.layers.1.mlp.fc2. Scoring without running the block "
        "again needs a block that ends with its feed-forward sublayer; check the adapter's table."
    )


def test_a_model_without_logits_is_refused(prunable):
    from transformers import BertModel

    target = prunable(tiny_model("bert", model_class=BertModel))
    with torch.no_grad(), pytest.raises(UnsupportedModelError) as caught:
        run_dense(target, tiny_inputs(target.model), [])
    assert str(caught.value) == ("BertModel gives no logits to compare. Load the model with its task's head.")


def test_a_run_inside_masks_is_refused(prunable):
    target = prunable(tiny_model("bert"))
    inputs = tiny_inputs(target.model)
    sub = target.structure.sublayers["encoder.0.self_attn"]
    with torch.no_grad():
        prefix = record(target, inputs, [sub])[sub.name]
        with target.masked(off(target.groups, f"{sub.units.name}:0")), pytest.raises(PlanError) as caught:
            run(target, prefix, torch.tensor([0]), [])
    assert str(caught.value) == (
        "bert.encoder.layer.0.attention.output.dense already runs with a replaced forward. Leave the masks' "
        "context first."
    )
