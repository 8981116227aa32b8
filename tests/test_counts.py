"""Parameters and MACs: the published models' numbers, the closed forms, and real counts agree."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertModel,
    DeiTConfig,
    DeiTForImageClassificationWithTeacher,
    T5Config,
    T5ForConditionalGeneration,
)

from prunekit.achieved import achieved
from prunekit.flops import count_macs
from prunekit.pruning import cost
from prunekit.pruning.budget import keep_by_score
from prunekit.pruning.cost import Lengths
from prunekit.pruning.plan import PruningPlan
from prunekit.recipe import BudgetSpec
from prunekit.testing.tiny import TINY_MODELS, tiny_inputs, tiny_model


def t5(**settings):
    return T5ForConditionalGeneration(T5Config(vocab_size=32128, **settings))


def t5_v1_1(**settings):
    """A v1.1 model, whose head is its own matrix; transformers ties it at construction."""
    model = t5(feed_forward_proj="gated-gelu", tie_word_embeddings=False, **settings)
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    return model


def bart_base():
    sizes = {"d_model": 768, "encoder_layers": 6, "decoder_layers": 6, "vocab_size": 50265}
    widths = {"encoder_ffn_dim": 3072, "decoder_ffn_dim": 3072}
    heads = {"encoder_attention_heads": 12, "decoder_attention_heads": 12}
    return BartForConditionalGeneration(BartConfig(**sizes, **widths, **heads))


def deit(width, heads):
    sizes = {"hidden_size": width, "num_attention_heads": heads, "intermediate_size": 4 * width}
    return DeiTForImageClassificationWithTeacher(DeiTConfig(num_labels=1000, **sizes))


BUILDERS = {
    "t5-base": lambda: t5(d_model=768, d_kv=64, d_ff=3072, num_heads=12, num_layers=12),
    "t5-small": lambda: t5(d_model=512, d_kv=64, d_ff=2048, num_heads=8, num_layers=6),
    "t5-v1.1-base": lambda: t5_v1_1(d_model=768, d_kv=64, d_ff=2048, num_heads=12, num_layers=12),
    "t5-v1.1-small": lambda: t5_v1_1(d_model=512, d_kv=64, d_ff=1024, num_heads=6, num_layers=8),
    "bart-base": bart_base,
    "bert-base": lambda: BertModel(BertConfig()),
    "deit-tiny": lambda: deit(192, 3),
    "deit-small": lambda: deit(384, 6),
}


@pytest.fixture(scope="module")
def published(prunable):
    """The published models' shapes, on the meta device."""
    with torch.device("meta"):
        return {name: prunable(build()) for name, build in BUILDERS.items()}


@pytest.mark.parametrize(
    ("name", "head", "neuron"),
    [
        ("t5-base", 196_608, 1_536),
        ("t5-small", 131_072, 1_024),
        ("t5-v1.1-base", 196_608, 2_304),
        ("t5-v1.1-small", 131_072, 1_536),
        ("bart-base", 196_800, 1_537),
        ("bert-base", 196_800, 1_537),
        ("deit-tiny", 49_344, 385),
        ("deit-small", 98_496, 769),
    ],
)
def test_parameters_of_a_unit(name, head, neuron, published):
    target = published[name]
    found = {(s.units.kind, target.parameter_costs()[n].unit) for n, s in target.structure.sublayers.items()}
    assert found == {("head", head), ("neuron", neuron)}


@pytest.mark.parametrize(
    ("name", "attention", "ffn", "norm"),
    [
        ("t5-base", 2_359_296, 4_718_592, 768),
        ("t5-v1.1-base", 2_359_296, 4_718_592, 768),
        ("bart-base", 2_362_368, 4_722_432, 1_536),
        ("bert-base", 2_362_368, 4_722_432, 1_536),
        ("deit-tiny", 148_224, 295_872, 384),
        ("deit-small", 591_360, 1_181_568, 768),
    ],
)
def test_parameters_of_a_sublayer(name, attention, ffn, norm, published):
    target = published[name]
    costs = target.parameter_costs()
    for path, sublayer in target.structure.sublayers.items():
        assert costs[path].prunable == (ffn if sublayer.role == "ffn" else attention)
        assert costs[path].norm == norm


@pytest.mark.parametrize(
    ("name", "encoder", "decoder", "total"),
    [
        ("t5-base", 84_934_656, 113_246_208, 222_903_552),
        ("t5-small", 18_874_368, 25_165_824, 60_506_624),
        ("t5-v1.1-base", 84_934_656, 113_246_208, 247_577_856),
        ("t5-v1.1-small", 18_874_368, 25_165_824, 76_961_152),
        ("bart-base", 42_508_800, 56_683_008, 139_420_416),
        ("bert-base", 85_017_600, 0, 109_482_240),
        ("deit-tiny", 5_329_152, 0, 5_910_800),
        ("deit-small", 21_275_136, 0, 22_436_432),
    ],
)
def test_prunable_and_all_parameters_of_a_model(name, encoder, decoder, total, published):
    target = published[name]
    prunable_of = {"encoder": 0.0, "decoder": 0.0}
    for path, entry in target.parameter_costs().items():
        prunable_of[target.structure.sublayers[path].stack] += entry.prunable
    assert prunable_of == {"encoder": encoder, "decoder": decoder}
    assert cost.count_parameters(target.model) == total
    assert cost.parameters(target.model, target.adapter, target.structure, {}) == total


@pytest.mark.parametrize(
    ("name", "group", "block"),
    [
        ("t5-base", "encoder.blocks", 7_079_424),
        ("t5-base", "decoder.blocks", 9_439_488),
        ("bart-base", "encoder.blocks", 7_087_872),
        ("bart-base", "decoder.blocks", 9_451_776),
        ("bert-base", "encoder.blocks", 7_087_872),
        ("deit-small", "encoder.blocks", 1_774_464),
    ],
)
@pytest.mark.parametrize("index", [0, 3])
def test_a_dropped_block_takes_its_norms_but_not_the_position_table(name, group, block, index, published):
    target = published[name]
    keep = {group: [i for i in range(target.groups[group].size) if i != index]}
    left = cost.parameters(target.model, target.adapter, target.structure, keep)
    assert cost.count_parameters(target.model) - left == block


# Decoder blocks kept; then, with 30 % of the encoder gone, millions left, sparsity in %, millions in all.
NASH = [
    (1, 68.89, 65.24, 93.6),
    (2, 78.33, 60.48, 103.0),
    (3, 87.77, 55.71, 112.5),
    (4, 97.20, 50.95, 121.9),
    (6, 116.08, 41.43, 140.8),
    (8, 134.95, 31.90, 159.7),
    (12, 172.70, 12.86, 197.4),
]


@pytest.fixture(scope="module")
def thinned_encoder(published):
    """t5-base's encoder without 30 % of its parameters, by random scores."""
    target = published["t5-base"]
    costs = target.parameter_costs(["encoder.*"])
    generator = torch.Generator().manual_seed(0)
    scores = {
        target.structure.sublayers[name].units.name: torch.rand(entry.units, generator=generator)
        for name, entry in costs.items()
    }
    return keep_by_score(scores, costs, target.structure, 0.3)


@pytest.mark.parametrize(("blocks", "prunable_left", "sparsity", "total"), NASH)
def test_nash_table_of_t5_base(blocks, prunable_left, sparsity, total, published, thinned_encoder):
    keep = {**thinned_encoder, "decoder.blocks": tuple(range(blocks))}
    found = achieved(published["t5-base"], PruningPlan(keep=keep), BudgetSpec(sparsity=0.3))
    assert found["prunable_params"]["dense"] == 198_180_864
    assert found["prunable_params"]["pruned"] / 1e6 == pytest.approx(prunable_left, abs=0.006)
    assert 100 * found["sparsity"] == pytest.approx(sparsity, abs=0.006)
    assert found["params"]["pruned"] / 1e6 == pytest.approx(total, abs=0.06)
    assert found["encoder_sparsity"] == pytest.approx(0.3, abs=2e-5)
    assert found["decoder_sparsity"] == pytest.approx(1 - blocks / 12)


def test_the_budget_s_scope_decides_which_sparsity_is_reported(published, thinned_encoder):
    plan = PruningPlan(keep=thinned_encoder)
    found = achieved(published["t5-base"], plan, BudgetSpec(sparsity=0.3, scope=["encoder.*"]))
    assert found["sparsity"] == found["encoder_sparsity"]
    assert found["decoder_sparsity"] == 0


@pytest.mark.parametrize(
    ("name", "sublayers", "norms", "embeddings"),
    [
        ("t5-base", 258_048, 62, 32_128),
        # Biases of the outputs: 6 * 2 + 6 * 3; norms 2 * (6 * 2 + 6 * 3 + 2); positions 2 * 1026.
        ("bart-base", 12 * (4 * 768 + 2 * 3072) + 6 * 4 * 768 + 30, 64, 50_265 + 2 * 1026),
        # Pooler: 768 inputs; words, 512 positions, 2 segments.
        ("bert-base", 12 * (4 * 768 + 2 * 3072) + 24, 50, 30_522 + 512 + 2 + 768),
    ],
)
def test_parameters_of_a_hidden_unit(name, sublayers, norms, embeddings, published):
    target = published[name]
    left = cost.parameters(target.model, target.adapter, target.structure, {"hidden": range(1, 768)})
    assert cost.count_parameters(target.model) - left == sublayers + norms + embeddings
    costs = target.parameter_costs()
    per_hidden = sum(c.unit_per_hidden * c.units + c.fixed_per_hidden for c in costs.values())
    assert per_hidden == sublayers


def test_an_encoder_alone_has_no_decoder_sparsity(published):
    found = achieved(published["bert-base"], PruningPlan(), BudgetSpec(sparsity=0.5))
    assert found["decoder_sparsity"] is None
    assert found["sparsity"] == 0


def closed_form(model, keep):
    """All parameters of a cut tiny model, from its config's numbers and the kept counts alone."""
    config = model.config
    width = len(keep.get("hidden", range(config.hidden_size)))
    biases = config.model_type != "t5"
    matrices = 3 if config.model_type == "t5" and config.is_gated_act else 2
    norm = 2 * width if biases else width
    total = outside_blocks(model, width)
    for stack in ("encoder", "decoder")[: 1 + config.is_encoder_decoder]:
        roles = ("self_attn", "ffn") if stack == "encoder" else ("self_attn", "cross_attn", "ffn")
        table = False
        for block in keep.get(f"{stack}.blocks", range(3)):
            for role in roles:
                label = "neurons" if role == "ffn" else "heads"
                units = keep.get(f"{stack}.{block}.{role}.{label}")
                dead = block not in keep.get(f"{stack}.{role}", range(3))
                count = sizes(model, stack, role) if units is None else len(units)
                if dead or not count:
                    continue
                table |= role == "self_attn"
                rows = count * (4 if role != "ffn" else 1)  # heads are 4 wide
                inputs = 3 if role != "ffn" else matrices - 1
                total += inputs * rows * (width + biases) + rows * width + biases * width + norm
        if config.model_type == "t5" and table:
            total += config.relative_attention_num_buckets * config.num_heads
    return total


def sizes(model, stack, role):
    config = model.config
    if config.model_type == "bart":
        return getattr(config, f"{stack}_ffn_dim") if role == "ffn" else config.encoder_attention_heads
    if role == "ffn":
        return config.d_ff if config.model_type == "t5" else config.intermediate_size
    return config.num_attention_heads


# Parameters outside the blocks that do not go with hidden units: BERT's pooler bias and its classifier (three
# labels), which reads the pooler; the biases of image classifiers.
OF_FIXED_WIDTH = {"bert": 16 + 3 * 16 + 3, "vit": 3, "deit": 3}


def outside_blocks(model, width):
    """Parameters of embeddings, final norms and task heads with ``width`` of 16 hidden units left."""
    inside = (".block.", ".layers.", ".layer.")
    every = sum(p.numel() for n, p in model.named_parameters() if not any(part in f".{n}" for part in inside))
    fixed = OF_FIXED_WIDTH.get(model.config.model_type, 0) * (2 if hasattr(model, "cls_classifier") else 1)
    return (every - fixed) * width // 16 + fixed


@st.composite
def keeps(draw, groups):
    """Arbitrary kept lists: any group may be cut, to any subset, blocks and hidden units not to none."""
    keep = {}
    for name, group in sorted(groups.items()):
        if draw(st.booleans()):
            least = 1 if group.kind in ("block", "hidden") else 0
            indices = st.sets(st.integers(0, group.size - 1), min_size=least, max_size=group.size)
            keep[name] = tuple(sorted(draw(indices)))
    return keep


@pytest.mark.parametrize("name", TINY_MODELS)
def test_counted_real_and_closed_form_parameters_agree(name, prunable):
    target = prunable(tiny_model(name))

    @settings(max_examples=15, deadline=None, derandomize=True, database=None)
    @given(keeps(target.groups))
    def check(keep):
        counted = cost.parameters(target.model, target.adapter, target.structure, keep)
        assert counted == cost.count_parameters(target.pruned(PruningPlan(keep=keep)).model)
        assert counted == closed_form(target.model, keep)

    check()


# MACs outside the sublayers for each hidden unit: a T5's and BART's head for 40 words and 5 tokens; BERT's
# pooler; the 4 patches of 16 pixels and three labels of image classifiers.
PER_HIDDEN_OUTSIDE = {"t5": 5 * 40, "bart": 5 * 40, "bert": 16, "vit": 4 * 16 + 3, "deit": 4 * 16 + 3}


@pytest.mark.parametrize("name", TINY_MODELS)
def test_macs_of_a_pruned_model_are_the_dense_ones_less_those_of_the_removed_units(name, prunable):
    target = prunable(tiny_model(name))
    inputs = tiny_inputs(target.model, batch=1)
    source = target.adapter.sequence_length(target.model) or inputs["input_ids"].shape[1]
    lengths = Lengths(source, inputs["decoder_input_ids"].shape[1] if "decoder_input_ids" in inputs else 0)
    costs = cost.mac_costs(target.model, target.structure, lengths)
    outside = PER_HIDDEN_OUTSIDE[target.model.config.model_type] + 3 * (name == "deit-distilled")
    dense = count_macs(target.model, inputs)

    @settings(max_examples=8, deadline=None, derandomize=True, database=None)
    @given(keeps(target.groups))
    def check(keep):
        cut = 16 - len(keep.get("hidden", range(16)))
        removed = sum(c.prunable for c in costs.values()) - cost.kept_cost(costs, target.structure, keep)
        pruned = target.pruned(PruningPlan(keep=keep)).model
        assert count_macs(pruned, inputs) == dense - removed - cut * outside

    check()


@pytest.mark.parametrize("name", TINY_MODELS)
def test_counting_macs_leaves_the_model_as_it_was(name):
    model = tiny_model(name).train()
    model.set_attn_implementation("sdpa")
    assert count_macs(model, tiny_inputs(model)) == 2 * count_macs(model, tiny_inputs(model, batch=1))
    assert model.training
    assert model.config._attn_implementation == "sdpa"
