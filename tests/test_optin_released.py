"""The released code's quirks, each behind its switch, against a second implementation of them."""

from math import log10

import pytest
import torch
from oneshot_calls import plan_of
from optin_calls import Rerun, double, exact_scores, padded_batch
from prunekit_optin.config import OptinConfig
from prunekit_optin.method import Optin
from pydantic import ValidationError
from test_optin_exact import relabel

from prunekit.errors import UnsupportedModelError
from prunekit.testing.tiny import tiny_model

# As the released code has its settings: the wanted ratio of distance to divergence, not a weight.
RATIO = {"released": 10, "released-vision": 100}


def heads_of(target):
    return [sub for sub in target.structure.sublayers.values() if sub.role == "self_attn"]


def ffns_of(target):
    return [sub for sub in target.structure.sublayers.values() if sub.role == "ffn"]


class Released:
    """Scores as the released loops compute them, one masked run of the whole padded batch after another.

    Args:
        target: the model.
        batch: with labels.
        vision: the vision release instead of the language one.
    """

    def __init__(self, target, batch, *, vision=False):
        self.target, self.vision = target, vision
        self.rerun = Rerun(target, batch, "block_norm" if vision else "ffn_output")
        self.rerun.tokens = {}  # padding counts
        self.depth = len(heads_of(target))

    def heads(self, *, leak=True):
        """Scores by group; the head mask of earlier blocks is never put back."""
        history, scores, off = [], {}, []
        for sub in heads_of(self.target):
            found = []
            for unit in range(sub.units.size):
                distance, divergence = self.terms(sub, unit, off if leak else [])
                base = self.combine(distance, divergence, history, has_else=True)
                if not self.vision:
                    base *= 10 ** (1 - unit / (sub.units.size - 1)) * 0.5
                    base *= 0.5 if sub.block == self.depth - 1 else 1
                found.append(base)
            scores[sub.units.name] = torch.tensor(found, dtype=torch.float64)
            off.append((sub, sub.units.size - 1))
        return scores

    def neurons(self):
        history, scores = [], {}
        for sub in ffns_of(self.target):
            found = []
            for unit in range(sub.units.size):
                distance, divergence = self.terms(sub, unit, [])
                base = self.combine(distance, divergence, history, has_else=not self.vision)
                if not self.vision:
                    base *= 100 ** (1 - unit / (sub.units.size - 1))
                if sub.block == self.depth - 1:
                    base *= 1e-4 if self.vision else 0.5
                found.append(base)
            scores[sub.units.name] = torch.tensor(found, dtype=torch.float64)
        return scores

    def terms(self, sub, unit, also):
        # The vision release hooks the first norm of each block, which the last block's units never reach.
        keys = [("encoder", z) for z in range(sub.block + 1, self.depth)]
        if not keys and not self.vision:
            keys = [("encoder", sub.block)]
        return self.rerun.terms(sub, unit, also=also, keys=keys, soften=False, aggregate="sum")

    def combine(self, distance, divergence, history, *, has_else):
        ratio = RATIO["released-vision" if self.vision else "released"]
        if distance > divergence > 0:
            history.append(10 ** int(log10(distance / divergence) - log10(ratio)))
            scale = history[-1]
        elif has_else or divergence == 0:
            scale = sum(history) / len(history) if history else 1
        else:
            scale = 1
        return distance + scale * divergence


def batch_of(target):
    # Fewer tokens than are compared at once, so that drawing them anew changes their order alone.
    return padded_batch(target.model)


def test_the_language_profile_equals_the_second_implementation(prunable):
    target = double("bert", prunable)
    batch = batch_of(target)
    released = Released(target, batch)
    expected = {**released.heads(), **released.neurons()}
    found = exact_scores(target, [batch], profile="released")
    assert found.keys() == expected.keys()
    for name, score in expected.items():
        assert torch.allclose(found[name], score, rtol=1e-8, atol=0), name


def test_the_vision_profile_equals_the_second_implementation(prunable):
    target = double("vit", prunable)
    batch = batch_of(target)
    released = Released(target, batch, vision=True)
    expected = {**released.heads(), **released.neurons()}
    found = exact_scores(target, [batch], profile="released-vision")
    for name, score in expected.items():
        assert torch.allclose(found[name], score, rtol=1e-8, atol=0), name


def test_the_leak_can_be_turned_off_alone(prunable):
    target = double("bert", prunable)
    batch = batch_of(target)
    expected = Released(target, batch).heads(leak=False)
    kept = exact_scores(target, [batch], kinds=("head",), profile="released", head_mask_leak=False)
    leaked = exact_scores(target, [batch], kinds=("head",), profile="released")
    for name, score in expected.items():
        assert torch.allclose(kept[name], score, rtol=1e-8, atol=0), name
    assert torch.equal(leaked["encoder.0.self_attn.heads"], kept["encoder.0.self_attn.heads"])
    assert not torch.allclose(
        leaked["encoder.2.self_attn.heads"], kept["encoder.2.self_attn.heads"], rtol=0.01
    )


def test_relabelling_changes_the_released_scores(prunable):
    target = double("bert", prunable)
    batch = batch_of(target)
    before = exact_scores(target, [batch], profile="released")
    neurons, heads = relabel(target)
    after = exact_scores(target, [batch], profile="released")
    for name, order in (("encoder.1.ffn.neurons", neurons), ("encoder.0.self_attn.heads", heads)):
        assert not torch.allclose(after[name], before[name][order], rtol=0.1)


def test_anew_drawn_tokens_differ_between_units_and_repeat_with_the_seed(prunable):
    target = double("bert", prunable)
    batch = batch_of(target)
    settings = {"kinds": ("neuron",), "tokens": 4, "kl_weight": 0}
    sub = target.structure.sublayers["encoder.1.ffn"]
    with torch.no_grad():
        for part in sub.units.slices:
            rows = target.model.get_parameter(part.parameter).movedim(part.axis, 0)
            rows[9] = rows[2]
    shared = exact_scores(target, [batch], token_draw="shared", **settings)[sub.units.name]
    anew, again = (
        exact_scores(target, [batch], token_draw="per-comparison", **settings)[sub.units.name]
        for _ in range(2)
    )
    assert shared[9].item() == pytest.approx(shared[2].item(), rel=1e-9)
    assert anew[9].item() != pytest.approx(anew[2].item(), rel=1e-3)
    assert torch.equal(anew, again)


def test_padding_is_compared_only_where_it_is_asked_for(prunable):
    target = double("bert", prunable)
    batch = batch_of(target)
    changed = {**batch, "input_ids": batch["input_ids"].clone()}
    changed["input_ids"][1, 5] = 7  # behind the end of the second text
    name = "encoder.0.ffn.neurons"
    clean = [exact_scores(target, [each])[name] for each in (batch, changed)]
    padded = [exact_scores(target, [each], include_padding=True)[name] for each in (batch, changed)]
    assert torch.allclose(clean[0], clean[1], rtol=1e-9)
    assert not torch.allclose(padded[0], padded[1], rtol=1e-3)


def test_heads_and_neurons_can_be_scored_on_different_batches(prunable):
    target = double("bert", prunable)
    first, second = (padded_batch(target.model, seed=seed) for seed in (0, 5))
    both = exact_scores(target, [first], others=[second])
    alone = [exact_scores(target, [batch]) for batch in (first, second)]
    heads, neurons = "encoder.0.self_attn.heads", "encoder.0.ffn.neurons"
    assert torch.equal(both[heads], alone[0][heads])
    assert torch.equal(both[neurons], alone[1][neurons])


def test_blind_heads_score_zero(prunable):
    target = double("vit", prunable)
    found = exact_scores(target, [batch_of(target)], blind_heads=True)
    assert found["encoder.0.self_attn.heads"].tolist() == [0.0] * 4
    assert found["encoder.0.ffn.neurons"].min() > 0


def test_pre_activation_masks_differ_where_the_activation_of_zero_is_not_zero(prunable):
    from torch import nn

    target = double("bert", prunable)
    batch = batch_of(target)
    name = "encoder.1.ffn.neurons"
    plain = exact_scores(target, [batch])[name]
    assert torch.equal(exact_scores(target, [batch], pre_activation_masks=True)[name], plain)
    target.model.config.hidden_act = "sigmoid"
    for block in target.model.bert.encoder.layer:
        block.intermediate.intermediate_act_fn = nn.Sigmoid()
    found = exact_scores(target, [batch], pre_activation_masks=True)[name]
    rerun = Rerun(target, batch)
    sub = target.structure.sublayers["encoder.1.ffn"]
    dense = target.model.get_submodule(sub.inputs[0])
    expected = []
    for unit in range(2):

        def silence(module, arguments, output, unit=unit):
            return output * (torch.arange(20) != unit)

        handle = dense.register_forward_hook(silence)
        features, logits = rerun.run()
        handle.remove()
        rerun.run = lambda removed, result=(features, logits): result
        distance, divergence = rerun.terms(sub, unit)
        del rerun.run
        expected.append(distance + 0.1 * divergence)
    assert found[:2].tolist() == pytest.approx(expected, rel=1e-8)


def test_pre_activation_masks_are_refused_on_gated_models(prunable):
    target = double("t5-gated", prunable)
    with pytest.raises(UnsupportedModelError) as caught:
        exact_scores(target, [padded_batch(target.model)], pre_activation_masks=True)
    assert str(caught.value) == (
        "pre_activation_masks sets what a neuron's activation function reads, but encoder.0.ffn of "
        "T5ForConditionalGeneration is gated or its function is unknown. Leave pre_activation_masks out."
    )


def test_the_last_blocks_distance_can_count_twice(prunable):
    target = double("bert", prunable)
    batch = batch_of(target)
    once = exact_scores(target, [batch], kl_weight=0)
    twice = exact_scores(target, [batch], kl_weight=0, double_last_distance=True)
    for name, score in once.items():
        assert torch.allclose(twice[name], score * (2 if ".2." in name else 1), rtol=1e-12)


@pytest.mark.parametrize("scoring", ["auto", "gauss-newton"])
def test_probes_cannot_follow_the_released_order(scoring):
    with pytest.raises(ValidationError) as caught:
        OptinConfig(profile="released", scoring=scoring)
    assert (
        f"scoring: {scoring} estimates all units at once, but adaptive_kl, token_draw, head_mask_leak, "
        "pre_activation_masks (profile released) depends on scoring them one after another. Write scoring: "
        "exact, or turn adaptive_kl off"
    ) in str(caught.value)


def test_an_adaptive_scale_needs_a_weight():
    with pytest.raises(ValidationError) as caught:
        OptinConfig(adaptive_kl=True, scoring="exact", kl_weight=0)
    assert "adaptive_kl scales the divergence to kl_weight, which must then be above 0" in str(caught.value)


def test_profiles_fill_in_what_a_recipe_leaves_out_and_survive_being_written_down():
    config = OptinConfig(profile="released", head_envelope=2.0)
    assert (config.scoring, config.soften, config.neuron_envelope, config.head_envelope) == (
        "exact",
        False,
        100.0,
        2.0,
    )
    assert OptinConfig(**config.model_dump()) == config


@pytest.mark.parametrize(
    ("name", "profile", "message"),
    [
        (
            "vit",
            "released",
            "profile: released is what the released code does on language models, and "
            "ViTForImageClassification is not one. Write profile: released-vision.",
        ),
        (
            "bert",
            "released-vision",
            "profile: released-vision is what the released code does on images, and "
            "BertForSequenceClassification does not read them. Write profile: released.",
        ),
    ],
)
def test_a_profile_for_the_other_kind_of_model_is_refused(name, profile, message, prunable, tmp_path):
    with pytest.raises(UnsupportedModelError) as caught:
        plan_of(Optin, prunable(tiny_model(name)), tmp_path / "run", profile=profile)
    assert str(caught.value) == message
