"""Generation: cached equals uncached, and masked, pruned and reloaded models write the same tokens."""

import pytest
import torch
from core_calls import AUTO_CLASS, off

import prunekit.pruning.verify as certificate
from prunekit.errors import VerificationError
from prunekit.pruning.plan import PruningPlan
from prunekit.testing.tiny import tiny_inputs, tiny_model

MODELS = ("t5", "t5-gated", "bart")
NEW_TOKENS = 8
CASES = {
    "block 0 dropped": ["decoder.blocks:0"],
    "the middle block dropped, heads cut before and after": [
        "decoder.blocks:1",
        "decoder.0.self_attn.heads:1",
        "decoder.2.self_attn.heads:3",
    ],
    "two blocks dropped": ["decoder.blocks:0", "decoder.blocks:1"],
    "block 0's self-attention dead": ["decoder.0.self_attn.heads"],
    "block 0's self-attention dead, heads cut in block 1": [
        "decoder.self_attn:0",
        "decoder.1.self_attn.heads:0",
    ],
    "all self-attention dead": ["decoder.self_attn"],
    "all self- and cross-attention dead": ["decoder.self_attn", "decoder.cross_attn"],
    "self-attention dead in the blocks that stay": [
        "decoder.blocks:0",
        "decoder.self_attn:1",
        "decoder.self_attn:2",
    ],
    "heads of self-attention cut": ["decoder.0.self_attn.heads:0", "decoder.1.self_attn.heads:2"],
    "heads of cross-attention cut": ["decoder.0.cross_attn.heads:0", "decoder.2.cross_attn.heads:3"],
    "block 0's cross-attention dead": ["decoder.0.cross_attn.heads"],
    "encoder shallower than the decoder": ["encoder.blocks:0", "encoder.blocks:2"],
    "block 0 of both stacks dropped, encoder cut": [
        "decoder.blocks:0",
        "encoder.blocks:0",
        "encoder.1.self_attn.heads:0",
        "encoder.2.ffn.neurons",
    ],
}


pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("exact_norm")]


def generate(model, inputs, **settings):
    """Sequences ``[B, T]`` of a forced length, and the logits of each step."""
    found = model.generate(
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        min_new_tokens=NEW_TOKENS,
        max_new_tokens=NEW_TOKENS,
        do_sample=False,
        return_dict_in_generate=True,
        output_logits=True,
        **settings,
    )
    return found.sequences, torch.stack(found.logits)


def same(first, second):
    """Whether two generations have the same tokens, and logits that agree to 1e-10."""
    largest = max(1.0, float(first[1].abs().max()))
    close = float((first[1] - second[1]).abs().max()) <= 1e-10 * largest
    return torch.equal(first[0], second[0]) and close


def cut_case(prunable, name, case):
    """The dense target, the plan of the case, and the pruned model, in float64."""
    target = prunable(tiny_model(name, dtype=torch.float64))
    plan = PruningPlan.from_masks(off(target.groups, *CASES[case]), target.groups)
    return target, plan, target.pruned(plan).model


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", MODELS)
def test_cached_generation_equals_uncached(name, case, prunable):
    _, _, pruned = cut_case(prunable, name, case)
    inputs = tiny_inputs(pruned)
    cached = generate(pruned, inputs, use_cache=True)
    assert same(cached, generate(pruned, inputs, use_cache=False))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", MODELS)
def test_beam_search_of_the_pruned_model_is_that_of_the_masked_model(name, case, prunable):
    target, plan, pruned = cut_case(prunable, name, case)
    inputs = tiny_inputs(pruned)
    cut = generate(pruned, inputs, num_beams=3)
    with target.masked(plan.masks(target.groups)):
        masked = generate(target.model, inputs, num_beams=3)
    assert same(cut, masked)
    assert not same(cut, generate(target.model, inputs, num_beams=3))


@pytest.mark.parametrize(
    "case", ["block 0's self-attention dead, heads cut in block 1", "all self-attention dead"]
)
@pytest.mark.parametrize("name", MODELS)
def test_beam_search_of_the_reloaded_model_is_that_of_the_pruned_model(name, case, prunable, tmp_path):
    import transformers

    _, _, pruned = cut_case(prunable, name, case)
    pruned.save_pretrained(tmp_path)
    reloaded = getattr(transformers, AUTO_CLASS[name]).from_pretrained(tmp_path)
    inputs = tiny_inputs(pruned)
    first = generate(pruned, inputs, num_beams=3)
    for use_cache in (True, False):
        assert same(generate(reloaded, inputs, num_beams=3, use_cache=use_cache), first)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize(
    "case", ["heads of self-attention cut", "block 0's self-attention dead, heads cut in block 1"]
)
@pytest.mark.parametrize("name", MODELS)
def test_a_static_cache_gives_the_same_tokens(name, case, attention, prunable):
    _, _, pruned = cut_case(prunable, name, case)
    pruned.set_attn_implementation(attention)
    inputs = tiny_inputs(pruned)
    static = generate(pruned, inputs, num_beams=3, cache_implementation="static")
    assert same(static, generate(pruned, inputs, num_beams=3, use_cache=False))


@pytest.mark.parametrize("name", MODELS)
def test_the_certificate_states_that_masked_and_pruned_agree(name, prunable):
    target, plan, pruned = cut_case(prunable, name, "block 0 dropped")
    found = certificate.verify(target, prunable(pruned), plan, tiny_inputs(pruned))
    assert found["masked_vs_pruned_max_abs"] <= found["tolerance"] < 1e-7
    assert found["float32_max_abs"] <= found["float32_tolerance"] < 1e-2
    assert found["cached_equals_uncached"] is True
    assert found["generation_equals_masked"] is True


def test_the_certificate_of_a_model_that_does_not_generate_leaves_generation_out(prunable):
    target = prunable(tiny_model("vit"))
    plan = PruningPlan(keep={"encoder.0.self_attn.heads": (1,)})
    found = certificate.verify(target, target.pruned(plan), plan, tiny_inputs(target.model))
    assert found["masked_vs_pruned_max_abs"] <= found["tolerance"]
    assert found["cached_equals_uncached"] is None


def test_a_pruned_model_that_differs_from_the_masked_one_is_refused(prunable):
    target, plan, pruned = cut_case(prunable, "t5", "heads of self-attention cut")
    with torch.no_grad():
        pruned.encoder.block[0].layer[0].SelfAttention.q.weight[0, 0] += 1e-2
    with pytest.raises(VerificationError) as caught:
        certificate.verify(target, prunable(pruned), plan, tiny_inputs(pruned))
    text = str(caught.value)
    assert text.startswith("the pruned model is not the masked model: float32_max_abs is ")
    assert "A run saves no such model, only its plan.json. " in text
    assert "This is a fault of the t5 adapter or of surgery, not of your recipe" in text


def test_generation_that_differs_is_refused(prunable, monkeypatch):
    target, plan, pruned = cut_case(prunable, "bart", "block 0 dropped")
    monkeypatch.setattr(
        certificate, "forced_generation", lambda model, batch, use_cache: torch.tensor([[int(use_cache)]])
    )
    with pytest.raises(VerificationError, match=r": cached_equals_uncached is false\. A run saves"):
        certificate.verify(target, prunable(pruned), plan, tiny_inputs(pruned))
