"""Exact scores equal an independent mask-and-rerun, and what must not change them does not."""

import pytest
import torch
from optin_calls import Rerun, all_units, double, exact_scores, padded_batch, scorer_of
from prunekit_optin.exact import exact_terms
from prunekit_optin.trajectory import Trajectory

from prunekit.errors import UnsupportedModelError
from prunekit.scoring.frozen import frozen
from prunekit.testing.tiny import TINY_MODELS, tiny_model

pytestmark = pytest.mark.slow

ARCHITECTURES = ["t5", "bart", "bert", "vit"]


def assert_equal(found, expected, *, rtol, floor):
    """Group by group; ``floor`` is a share of the largest score below which rounding is all there is."""
    assert found.keys() == expected.keys()
    largest = max(float(score.max()) for score in expected.values())
    for name, score in expected.items():
        assert score.max() > 0
        assert torch.allclose(found[name], score, rtol=rtol, atol=floor * largest), name


@pytest.mark.usefixtures("exact_norm")
@pytest.mark.parametrize("name", TINY_MODELS)
def test_every_score_equals_masking_and_running_again(name, prunable):
    target = double(name, prunable)
    batch = padded_batch(target.model)
    expected = Rerun(target, batch).scores()
    # Every stack, role and block: the units of the last block, of the encoder and of cross-attention too.
    assert expected.keys() == all_units(target).keys()
    assert_equal(exact_scores(target, [batch]), expected, rtol=1e-8, floor=1e-13)


@pytest.mark.usefixtures("exact_norm")
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_float32_scores_are_right_to_a_thousandth(name, prunable):
    target = prunable(tiny_model(name))
    batch = padded_batch(target.model)
    found = exact_scores(target, [batch])
    target.model.double()
    assert_equal(found, Rerun(target, batch).scores(), rtol=1e-3, floor=1e-6)


@pytest.mark.parametrize("features", ["block_output", "block_norm"])
@pytest.mark.parametrize("name", ["bert", "vit"])
def test_other_tensors_can_be_compared(name, features, prunable):
    target = double(name, prunable)
    batch = padded_batch(target.model)
    if name == "bert" and features == "block_norm":
        with pytest.raises(UnsupportedModelError) as caught:
            exact_scores(target, [batch], features=features)
        assert str(caught.value) == (
            "features: block_norm compares the norm at the start of each block, but this model normalises "
            "after each sublayer. Write features: block_output, which is normalised there."
        )
        return
    rerun = Rerun(target, batch, features)
    if features == "block_norm":
        # The last block's output stands behind the norms; its units reach nothing else.
        rerun.paths["end", 0] = "vit.layers.2"
        rerun.dense = rerun.run()
        norms = rerun.behind
        rerun.behind = lambda sub: [key for key in norms(sub) if sub.block < 2 or key == ("end", 0)]
    assert_equal(exact_scores(target, [batch], features=features), rerun.scores(), rtol=1e-8, floor=1e-13)


@pytest.mark.parametrize("memory", [1, 40_000, 2**28], ids=["one by one", "odd chunks", "all at once"])
def test_scores_do_not_depend_on_how_many_variants_are_stacked(memory, prunable):
    target = double("bert", prunable)
    batch = padded_batch(target.model)
    expected = exact_scores(target, [batch], kl_weight=1.0)
    with frozen(target.model):
        scorer = scorer_of(target, [batch])
        reference = scorer._reference(batch, 0, 16)
        terms = exact_terms(target, reference, scorer.trajectory, all_units(target), memory=memory)
    found = {name: each.distance + each.divergence for name, each in terms.items()}
    assert_equal(found, expected, rtol=1e-9, floor=1e-14)


def test_single_units_score_as_they_do_among_all(prunable):
    target = double("bart", prunable)
    batch = padded_batch(target.model)
    every = exact_scores(target, [batch])
    with frozen(target.model):
        some = scorer_of(target, [batch]).exact({"decoder.1.ffn.neurons": [17, 3]})
    assert torch.allclose(some["decoder.1.ffn.neurons"], every["decoder.1.ffn.neurons"][[17, 3]], rtol=1e-9)


def test_scores_of_several_batches_are_their_mean(prunable):
    target = double("bert", prunable)
    batches = [padded_batch(target.model, seed=seed) for seed in (0, 5)]
    both = exact_scores(target, batches)
    each = [exact_scores(target, [batch]) for batch in batches]
    for name, score in both.items():
        assert torch.allclose(score, (each[0][name] + each[1][name]) / 2, rtol=1e-9)


def test_a_sample_of_tokens_does_not_depend_on_the_parts_of_the_batch(prunable):
    target = double("bert", prunable)
    batch = padded_batch(target.model)
    with frozen(target.model):
        scorer = scorer_of(target, [batch], tokens=6)
        references = [scorer._reference(batch, 0, call_tokens) for call_tokens in (0, 1000)]
        assert [len(reference.parts) for reference in references] == [3, 1]
        found = [
            exact_terms(target, reference, scorer.trajectory, all_units(target)) for reference in references
        ]
    for name in found[0]:
        assert torch.allclose(found[0][name].distance, found[1][name].distance, rtol=1e-8, atol=1e-14)


def test_another_seed_compares_other_tokens(prunable):
    target = double("bert", prunable)
    batch = padded_batch(target.model)
    first, again, other = (exact_scores(target, [batch], tokens=6, seed=seed) for seed in (0, 0, 1))
    name = "encoder.0.ffn.neurons"
    assert torch.equal(first[name], again[name])
    assert not torch.allclose(first[name], other[name])


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_scoring_twice_gives_the_same_bits_and_leaves_the_model_as_it_was(name, prunable):
    target = prunable(tiny_model(name).train())
    batch = padded_batch(target.model)
    weights = {key: tensor.clone() for key, tensor in target.model.state_dict().items()}
    kernel = target.model.config._attn_implementation
    first, second = (exact_scores(target, [batch]) for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert target.model.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in target.model.parameters())
    assert target.model.config._attn_implementation == kernel
    assert all(torch.equal(weights[key], tensor) for key, tensor in target.model.state_dict().items())


def test_relabelled_units_keep_their_scores(prunable):
    target = double("bert", prunable)
    batch = padded_batch(target.model)
    before = exact_scores(target, [batch])
    neurons, heads = relabel(target)
    after = exact_scores(target, [batch])
    for name, order in (("encoder.1.ffn.neurons", neurons), ("encoder.0.self_attn.heads", heads)):
        assert torch.allclose(after[name], before[name][order], rtol=1e-8)


def relabel(target):
    """Shuffle the neurons of block 1 and the heads of block 0; the model computes what it did."""
    generator = torch.Generator().manual_seed(0)
    orders = []
    for name in ("encoder.1.ffn", "encoder.0.self_attn"):
        sub = target.structure.sublayers[name]
        order = torch.randperm(sub.units.size, generator=generator)
        entries = (order[:, None] * sub.units.width + torch.arange(sub.units.width)).flatten()
        with torch.no_grad():
            for part in sub.units.slices:
                parameter = target.model.get_parameter(part.parameter)
                parameter.copy_(parameter.index_select(part.axis, entries))
        orders.append(order)
    return orders


def test_a_dead_unit_scores_zero_exactly_and_twins_score_the_same(prunable):
    target = prunable(tiny_model("bert"))
    ffn = target.structure.sublayers["encoder.0.ffn"]
    attention = target.structure.sublayers["encoder.1.self_attn"]
    with torch.no_grad():
        target.model.get_submodule(ffn.output).weight[:, 4] = 0
        target.model.get_submodule(attention.output).weight[:, 8:12] = 0
        for part in ffn.units.slices:
            rows = target.model.get_parameter(part.parameter).movedim(part.axis, 0)
            rows[9] = rows[2]
    found = exact_scores(target, [padded_batch(target.model)])
    neurons, heads = found[ffn.units.name], found[attention.units.name]
    assert neurons[4] == 0
    assert heads[2] == 0
    assert neurons[9].item() == pytest.approx(neurons[2].item(), rel=1e-5)
    assert (neurons > 0).sum() == 19
    assert (heads > 0).sum() == 3


def test_units_of_the_last_block_are_compared_by_its_own_tensor(prunable):
    trajectory = Trajectory(prunable(tiny_model("bert")).structure, "ffn_output")
    paths = [[tensor.path for tensor in trajectory.behind(position)] for position in range(3)]
    outputs = [f"bert.encoder.layer.{index}.output.dense" for index in range(3)]
    assert paths == [outputs[1:], outputs[2:], outputs[2:]]


def test_encoder_units_are_compared_by_the_whole_decoder_too(prunable):
    target = prunable(tiny_model("bart"))
    trajectory = Trajectory(target.structure, "block_output")
    last_encoder = target.structure.sublayers["encoder.2.ffn"]
    found = [tensor.path for tensor in trajectory.behind(trajectory.position(last_encoder))]
    assert found == [f"model.decoder.layers.{index}" for index in range(3)]


def test_images_without_the_last_output_leave_the_last_blocks_units_their_divergence(prunable):
    target = double("vit", prunable)
    batch = padded_batch(target.model)
    rerun = Rerun(target, batch)
    found = exact_scores(target, [batch], features="block_norm", last_output=False, kl_weight=0.5)
    sub = target.structure.sublayers["encoder.2.ffn"]
    expected = [0.5 * rerun.terms(sub, unit)[1] for unit in range(sub.units.size)]
    assert found[sub.units.name].tolist() == pytest.approx(expected, rel=1e-8)
    assert (
        exact_scores(target, [batch], features="block_norm", last_output=False, kl_weight=0)[
            sub.units.name
        ].tolist()
        == [0.0] * sub.units.size
    )
