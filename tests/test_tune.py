"""Scales of kept units that bring the pruned model's activations back to the dense model's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from core_calls import compared, difference, outputs
from oneshot_calls import (
    Labelled,
    every_other,
    make_twin,
    same_state,
    state_of,
    unit_groups,
)

from prunekit.errors import PrunekitError
from prunekit.pruning.plan import PruningPlan
from prunekit.scoring.tune import DAMP, tune
from prunekit.testing.tiny import TINY_MODELS, tiny_model

pytestmark = pytest.mark.slow

EXACT = 1e-12  # damping that leaves no trace


def target_and_batches(prunable, name, **changes):
    target = prunable(tiny_model(name, dtype=torch.float64))
    task = Labelled(target.model, **changes)
    examples = task.examples("calibration")
    return target, [task.collate(examples[i : i + 5]) for i in range(0, len(examples), 5)]


def valid(batch, stack):
    if stack == "encoder":
        return batch["attention_mask"].bool() if "attention_mask" in batch else slice(None)
    return batch["labels"] != -100


def observed(target, sub, batches):
    """Inputs of a sublayer's output projection and the residual sum, of valid tokens, from whole runs."""
    inputs, sums, norms = [], [], []
    output, norm = target.model.get_submodule(sub.output), target.model.get_submodule(sub.norm)
    handles = [
        output.register_forward_hook(lambda m, args, out: inputs.append((args[0], out))),
        norm.register_forward_pre_hook(lambda m, args: norms.append(args[0])),
    ]
    with torch.no_grad():
        for batch in batches:
            target.model(**batch)
            stream = norms[-1] if sub.post_norm else norms[-1] + inputs[-1][1]
            sums.append(stream[valid(batch, sub.stack)].reshape(-1, stream.shape[-1]))
    for handle in handles:
        handle.remove()
    found = [
        pair[0][valid(batch, sub.stack)].reshape(-1, pair[0].shape[-1])
        for pair, batch in zip(inputs, batches, strict=True)
    ]
    return torch.cat(found), torch.cat(sums)


def by_lstsq(target, sub, keep, known, batches, damp):
    """A sublayer's scales by numpy from contributions written out, and the errors without and with them."""
    _, goal = observed(target, sub, batches)
    with target.masked(PruningPlan(keep=keep, scale=known).masks(target.groups)):
        inputs, stream = observed(target, sub, batches)
    weight = target.model.get_parameter(f"{sub.output}.weight").detach()
    width = sub.units.width
    columns = np.stack(
        [
            (inputs[:, u * width : (u + 1) * width] @ weight[:, u * width : (u + 1) * width].T).flatten()
            for u in keep[sub.units.name]
        ],
        axis=1,
    )  # [tokens * d, K]
    wanted = (goal - stream).flatten().numpy()
    pull = np.sqrt(damp * np.square(columns).sum(0).mean()) * np.eye(columns.shape[1])
    shift, *_ = np.linalg.lstsq(
        np.vstack([columns, pull]), np.concatenate([wanted, np.zeros(len(pull))]), rcond=None
    )
    return 1 + shift, np.square(wanted).sum(), np.square(wanted - columns @ shift).sum()


@pytest.mark.parametrize("name", TINY_MODELS)
def test_scales_equal_numpys_least_squares_sublayer_after_sublayer(prunable, exact_norm, name):
    target, batches = target_and_batches(prunable, name)
    keep = every_other(target)
    scale = tune(target, keep, batches)
    assert len(scale) >= len(keep) - 2  # a random model may ask for more than 10 somewhere
    known = {}
    for sub in target.structure.sublayers.values():
        expected, before, after = by_lstsq(target, sub, keep, known, batches, DAMP)
        if sub.units.name in scale:
            assert scale[sub.units.name] == pytest.approx(expected, rel=1e-6, abs=1e-6)
            assert after < before
            known[sub.units.name] = scale[sub.units.name]
        else:
            assert np.abs(expected).max() > 10


@pytest.mark.parametrize("name", TINY_MODELS)
@pytest.mark.parametrize("kind", ["heads", "neurons"])
def test_a_removed_twins_work_goes_to_the_other(prunable, exact_norm, name, kind):
    target, batches = target_and_batches(prunable, name)
    keep, expected = {}, {}
    for group in unit_groups(target, kind):
        size = target.groups[group].size
        make_twin(target, target.groups[group], 0, 1)
        keep[group] = tuple(unit for unit in range(size) if unit != 1)
        expected[group] = (2.0,) + (1.0,) * (size - 2)
    scale = tune(target, keep, batches, damp=EXACT)
    assert scale.keys() == expected.keys()
    for group, factors in expected.items():
        assert scale[group] == pytest.approx(factors, abs=1e-6)
    small = target.pruned(PruningPlan(keep=keep, scale=scale)).model
    assert difference(outputs(target.model, batches[0]), outputs(small, batches[0])) < 1e-6


@pytest.mark.parametrize("name", TINY_MODELS)
def test_the_pruned_model_with_the_scales_is_the_masked_model(prunable, exact_norm, name):
    target, batches = target_and_batches(prunable, name)
    keep = every_other(target)
    masks = PruningPlan(keep=keep, scale=tune(target, keep, batches)).masks(target.groups)
    same, moved = compared(target, masks, batches[0])
    assert same < 1e-12
    assert moved > 1e-3


@pytest.mark.parametrize("name", ["t5", "bart", "bert", "vit"])
def test_tuning_brings_the_stream_behind_the_last_sublayer_closer_to_the_dense_models(prunable, name):
    target, batches = target_and_batches(prunable, name)
    keep = every_other(target)
    last = list(target.structure.sublayers.values())[-1]
    _, dense = observed(target, last, batches)

    def error(scale):
        with target.masked(PruningPlan(keep=keep, scale=scale).masks(target.groups)):
            return float((observed(target, last, batches)[1] - dense).square().sum())

    assert error(tune(target, keep, batches)) < 0.9 * error({})


def test_a_model_of_which_nothing_is_removed_keeps_scales_of_one(prunable):
    target, batches = target_and_batches(prunable, "bert")
    keep = {name: tuple(range(target.groups[name].size)) for name in unit_groups(target)}
    for factors in tune(target, keep, batches).values():
        assert factors == pytest.approx([1.0] * len(factors), abs=1e-12)


def test_a_silent_unit_keeps_its_scale(prunable):
    target, batches = target_and_batches(prunable, "t5")
    group = target.groups["encoder.1.ffn.neurons"]
    with torch.no_grad():
        target.model.get_parameter(group.slices[0].parameter)[4] = 0
    scale = tune(target, {group.name: tuple(range(2, 20))}, batches)[group.name]
    assert scale[2] == 1
    assert scale[0] != 1


@pytest.mark.parametrize("name", TINY_MODELS)
def test_sublayers_without_units_are_passed_over(prunable, name):
    target, batches = target_and_batches(prunable, name)
    dead = ("encoder.0.self_attn.heads", "encoder.2.ffn.neurons")
    keep = {**every_other(target, "encoder"), **dict.fromkeys(dead, ())}
    scale = tune(target, keep, batches)
    assert set(scale) <= set(keep) - set(dead)
    assert "encoder.1.ffn.neurons" in scale
    PruningPlan(keep=keep, scale=scale).check(target.groups)


@pytest.mark.parametrize("kind", ["heads", "neurons"])
def test_a_scale_above_ten_leaves_its_sublayer_alone_and_no_other(prunable, kind):
    target, batches = target_and_batches(prunable, "bert")
    name = unit_groups(target, kind)[0]
    group = target.groups[name]
    keep = {
        name: tuple(unit for unit in range(group.size) if unit != 1),
        **every_other(target, "encoder.2.self"),
    }
    make_twin(target, group, 0, 1, share=9.5)
    assert set(tune(target, keep, batches, damp=EXACT)) == set(keep) - {name}
    make_twin(target, group, 0, 1, share=8.5)
    scale = tune(target, keep, batches, damp=EXACT)
    assert set(scale) == set(keep)
    assert scale[name][0] == pytest.approx(9.5, rel=1e-6)


def test_a_stack_whose_units_cannot_be_heard_is_left_alone(prunable):
    target, batches = target_and_batches(prunable, "vit")
    group = target.groups["encoder.0.ffn.neurons"]
    with torch.no_grad():
        target.model.get_parameter(group.slices[-1].parameter).zero_()
    assert tune(target, {group.name: (0, 1)}, batches) == {}


def test_damping_pulls_towards_one(prunable):
    target, batches = target_and_batches(prunable, "bert")
    group = target.groups["encoder.0.ffn.neurons"]
    make_twin(target, group, 0, 1)
    keep = {group.name: (0, *range(2, group.size))}
    first = [tune(target, keep, batches, damp=damp)[group.name][0] for damp in (1e-6, 1e-1, 1e3)]
    assert first[0] > first[1] > first[2]
    assert first[0] == pytest.approx(2, abs=1e-4)
    assert first[2] == pytest.approx(1, abs=1e-2)


@pytest.mark.parametrize("name", ["bert", "t5", "bart"])
def test_padding_tokens_do_not_count(prunable, exact_norm, name):
    target, (batch, *_) = target_and_batches(prunable, name)
    short = {key: tensor[1:3].clone() for key, tensor in batch.items()}
    long = {
        key: torch.nn.functional.pad(tensor, (0, 3), value=-100 if key == "labels" else 0)
        if tensor.ndim > 1
        else tensor
        for key, tensor in short.items()
    }
    keep = every_other(target)
    one, other = (tune(target, keep, [found]) for found in (short, long))
    assert one.keys() == other.keys()
    for group in one:
        assert one[group] == pytest.approx(other[group], rel=1e-8)


def test_a_decoders_padding_is_known_by_its_attention_mask(prunable, exact_norm):
    target, (batch, *_) = target_and_batches(prunable, "t5")
    labels = batch.pop("labels")
    batch["decoder_input_ids"] = labels.clamp(min=0)
    cut = {key: tensor.clone() for key, tensor in batch.items()}
    batch["decoder_attention_mask"] = torch.ones_like(labels)
    batch["decoder_attention_mask"][:, -2:] = 0
    cut["decoder_input_ids"] = cut["decoder_input_ids"][:, :-2]
    keep = every_other(target, "decoder")
    one, other = (tune(target, keep, [found]) for found in (batch, cut))
    assert one.keys() == other.keys()
    for group in one:
        assert one[group] == pytest.approx(other[group], rel=1e-8)


def test_how_examples_are_batched_does_not_matter(prunable):
    target, batches = target_and_batches(prunable, "bert")
    keep = every_other(target)
    whole = {key: torch.cat([batch[key] for batch in batches]) for key in batches[0]}
    one, other = tune(target, keep, batches), tune(target, keep, [whole])
    assert one.keys() == other.keys()
    for group in one:
        assert one[group] == pytest.approx(other[group], rel=1e-9)


@pytest.mark.parametrize("name", ["t5", "bert", "vit"])
def test_nothing_of_tuning_stays_on_the_model(prunable, name):
    target, batches = target_and_batches(prunable, name)
    target.model.train()
    target.model.get_submodule(next(iter(target.structure.sublayers.values())).norm).eval()
    next(target.model.parameters()).requires_grad_(False)
    before = state_of(target.model)
    first = tune(target, every_other(target), batches)
    assert same_state(before, state_of(target.model))
    assert tune(target, every_other(target), batches) == first


def test_a_model_in_bfloat16_is_refused(prunable):
    target, batches = target_and_batches(prunable, "bert")
    target.model.bfloat16()
    with pytest.raises(PrunekitError) as caught:
        tune(target, every_other(target), batches)
    assert str(caught.value) == (
        "BertForSequenceClassification is in bfloat16, in which the small differences that scores are made "
        "of are lost to rounding. Load it in float32."
    )


def test_a_model_with_nan_is_refused(prunable):
    target, batches = target_and_batches(prunable, "bert")
    with torch.no_grad():
        target.model.get_parameter("classifier.weight")[0, 0] = torch.nan
        target.model.get_parameter("classifier.bias")[0] = torch.inf
    with pytest.raises(PrunekitError) as caught:
        tune(target, every_other(target), batches)
    assert str(caught.value) == (
        "the weights of classifier.weight (and 1 more) are NaN or infinite. The model cannot be pruned; load "
        "a checkpoint from before its training diverged."
    )
