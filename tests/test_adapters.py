"""Adapters: their tables resolve, sizes come from tensors, and what spans blocks survives surgery."""

from dataclasses import replace
from itertools import combinations

import pytest
import torch
import transformers
from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel, T5EncoderModel
from transformers.models.t5.modeling_t5 import T5Attention

from prunekit.adapters.base import StackTable
from prunekit.errors import AdapterMismatchError, UnsupportedModelError
from prunekit.pruning.plan import PruningPlan
from prunekit.pruning.target import PrunableModel, find_adapter
from prunekit.testing.tiny import TINY_MODELS, tiny_inputs, tiny_model

SUBSETS = [kept for size in (1, 2, 3) for kept in combinations(range(3), size)]


@pytest.mark.parametrize("name", TINY_MODELS)
def test_every_path_of_a_table_leads_to_a_tensor_of_the_group_s_size(name, prunable):
    target = prunable(tiny_model(name))
    for sublayer in target.structure.sublayers.values():
        for path in sublayer.modules:
            target.model.get_submodule(path)
        for part in sublayer.units.slices:
            length = target.model.get_parameter(part.parameter).shape[part.axis]
            assert length == sublayer.units.size * sublayer.units.width, part


@pytest.mark.parametrize("name", TINY_MODELS)
def test_all_parameters_of_the_blocks_but_shared_tables_belong_to_a_sublayer(name, prunable):
    target = prunable(tiny_model(name))
    owned = {
        f"{path}.{parameter}"
        for sublayer in target.structure.sublayers.values()
        for path in sublayer.modules
        for parameter, _ in target.model.get_submodule(path).named_parameters()
    }
    blocks = tuple(stack.blocks for stack in target.structure.stacks.values())
    present = {n for n, _ in target.model.named_parameters() if n.startswith(blocks)}
    assert {n for n in present - owned if "relative_attention_bias" not in n} == set()
    assert owned <= present


def test_groups_have_the_documented_names_and_kinds(prunable):
    groups = prunable(tiny_model("t5")).groups
    decoder_block = {
        "decoder.2.self_attn.heads": ("head", 4, 4),
        "decoder.2.cross_attn.heads": ("head", 4, 4),
        "decoder.2.ffn.neurons": ("neuron", 20, 1),
    }
    stacks = {
        "encoder.self_attn": ("sublayer", 3, 1),
        "encoder.ffn": ("sublayer", 3, 1),
        "decoder.cross_attn": ("sublayer", 3, 1),
        "encoder.blocks": ("block", 3, 1),
        "decoder.blocks": ("block", 3, 1),
        "hidden": ("hidden", 16, 1),
    }
    for name, expected in (decoder_block | stacks).items():
        assert (groups[name].kind, groups[name].size, groups[name].width) == expected
    assert len(groups) == 3 * 2 + 3 * 3 + 5 + 2 + 1


def test_sizes_are_read_from_tensors_where_heads_are_narrower_than_the_model(prunable):
    target = prunable(tiny_model("t5-narrow"))
    attention = target.model.encoder.block[0].layer[0].SelfAttention
    assert attention.q.weight.shape == (12, 16)  # 3 heads of 4 in a model of width 16
    assert target.groups["encoder.0.self_attn.heads"].size == 3


def test_a_gated_ffn_narrows_both_its_inputs(prunable):
    target = prunable(tiny_model("t5-gated"))
    assert [part.parameter for part in target.groups["encoder.1.ffn.neurons"].slices] == [
        "encoder.block.1.layer.1.DenseReluDense.wi_0.weight",
        "encoder.block.1.layer.1.DenseReluDense.wi_1.weight",
        "encoder.block.1.layer.1.DenseReluDense.wo.weight",
    ]


def test_an_encoder_alone_has_no_decoder_groups(prunable):
    groups = prunable(tiny_model("t5", model_class=T5EncoderModel)).groups
    assert not any(name.startswith("decoder") for name in groups)


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"output": "layer.0.SelfAttention.out"}, "encoder.block.0.layer.0.SelfAttention.out"),
        ({"norm": "layer.0.norm"}, "encoder.block.0.layer.0.norm"),
        ({"attention": "layer.0.Attention"}, "encoder.block.0.layer.0.Attention.key_value_proj_dim"),
        ({"inputs": (("layer.0.q",), ("layer.0.qkv",))}, "encoder.block.0.layer.0.q"),
    ],
)
def test_a_table_that_does_not_fit_names_the_path_the_class_and_the_release(change, path, adapters):
    t5 = adapters["t5"]
    encoder, decoder = t5.stacks
    broken = replace(encoder, sublayers=(replace(encoder.sublayers[0], **change), encoder.sublayers[1]))
    with pytest.raises(AdapterMismatchError) as caught:
        PrunableModel(tiny_model("t5"), replace(t5, stacks=(broken, decoder)))
    assert str(caught.value) == (
        f"t5: no module '{path}' in T5ForConditionalGeneration (transformers {transformers.__version__}).\n"
        "  This adapter was checked on transformers 5.23. Install that version, or correct the table in "
        "prunekit.adapters.t5."
    )


def test_a_table_without_any_stack_of_the_model_is_a_mismatch(adapters):
    vit = adapters["vit"]
    stack: StackTable = replace(vit.stacks[0], blocks="layer")
    with pytest.raises(
        AdapterMismatchError, match=r"vit: no module 'vit\.layer' in ViTForImageClassification"
    ):
        PrunableModel(tiny_model("vit"), replace(vit, stacks=(stack,)))


def test_a_renamed_head_size_is_a_mismatch(adapters):
    with pytest.raises(AdapterMismatchError, match=r"SelfAttention\.d_head' in T5ForConditionalGeneration"):
        PrunableModel(tiny_model("t5"), replace(adapters["t5"], head_size="d_head"))


def test_another_architecture_is_refused_with_the_adapters_there_are(adapters):
    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=10, n_positions=8))
    with pytest.raises(UnsupportedModelError) as caught:
        find_adapter(model, adapters)
    assert str(caught.value) == (
        "GPT2LMHeadModel has the model type 'gpt2', for which there is no adapter. Adapters: bart, bert, "
        "deit, t5, vit. A plugin can add one (`prunekit adapters list`)."
    )


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"is_decoder": True}, "BertModel cannot be pruned: config.is_decoder is true; prunekit prunes BERT"),
        ({"chunk_size_feed_forward": 2}, "load the checkpoint with chunk_size_feed_forward=0."),
    ],
)
def test_bert_variants_that_cannot_be_pruned_are_refused(settings, text, adapters):
    sizes = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1, "vocab_size": 10}
    model = BertModel(BertConfig(**sizes, **settings))
    with pytest.raises(UnsupportedModelError) as caught:
        PrunableModel(model, adapters["bert"])
    assert text in str(caught.value)


@pytest.mark.parametrize("name", ["t5", "bart", "bert", "vit", "deit"])
def test_described_groups_are_those_of_a_model(name, adapters, prunable):
    rows = adapters[name].describe()
    kinds = {row["group"]: row["kind"] for row in rows}
    found = {
        ".".join("N" if part.isdigit() else part for part in group.split(".")): unit.kind
        for group, unit in prunable(tiny_model(name)).groups.items()
    }
    assert kinds == found
    assert len(rows) == len(kinds)


def test_described_rows_say_which_modules_shrink(adapters):
    rows = {row["group"]: row["modules"] for row in adapters["t5"].describe()}
    assert rows["encoder.N.ffn.neurons"] == (
        "encoder.block.N: layer.1.DenseReluDense.wi or layer.1.DenseReluDense.wi_0 · "
        "layer.1.DenseReluDense.wi_1 (outputs) · layer.1.DenseReluDense.wo (inputs)"
    )


def shared_biases(model):
    """The position biases that each stack's self-attentions hand on, in order."""
    found = {"encoder": [], "decoder": []}
    handles = []
    for stack, biases in found.items():
        for module in getattr(model, stack).modules():
            if isinstance(module, T5Attention) and (module.is_causal or stack == "encoder"):

                def record(module, args, output, biases=biases):
                    biases.append(output[1])

                handles.append(module.register_forward_hook(record))
    with torch.no_grad():
        model(**tiny_inputs(model))
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("kept", SUBSETS, ids=str)
@pytest.mark.parametrize("stack", ["encoder", "decoder"])
@pytest.mark.parametrize("cut_heads", [False, True])
def test_the_position_bias_is_the_same_for_every_subset_of_blocks(stack, kept, cut_heads, prunable):
    target = prunable(tiny_model("t5"))
    keep = {f"{stack}.blocks": kept}
    if cut_heads:
        keep |= {f"{stack}.{block}.self_attn.heads": (block, 3) for block in range(3)}
    expected = shared_biases(target.model)[stack][0]
    found = shared_biases(target.pruned(PruningPlan(keep=keep)).model)[stack]
    assert len(found) == len(kept)
    assert expected.shape[1] == 4
    assert all(torch.equal(bias, expected) for bias in found)


@pytest.mark.parametrize("kept", SUBSETS, ids=str)
@pytest.mark.parametrize("name", TINY_MODELS)
def test_removing_blocks_leaves_the_others_byte_equal(name, kept, prunable):
    target = prunable(tiny_model(name))
    before = {n: t.clone() for n, t in target.model.state_dict().items()}
    stack = list(target.structure.stacks)[-1]
    pruned = target.pruned(PruningPlan(keep={f"{stack}.blocks": kept}))
    path = target.structure.stacks[stack].blocks
    after = pruned.model.state_dict()
    for new, old in enumerate(kept):
        for parameter, tensor in after.items():
            if parameter.startswith(f"{path}.{new}.") and "relative_attention_bias" not in parameter:
                assert torch.equal(tensor, before[parameter.replace(f"{path}.{new}.", f"{path}.{old}.", 1)])
    for parameter, tensor in before.items():
        if not parameter.startswith(f"{path}."):
            assert torch.equal(after[parameter], tensor)
    assert all(torch.equal(tensor, before[n]) for n, tensor in target.model.state_dict().items())


@pytest.mark.parametrize("name", TINY_MODELS)
def test_pruning_leaves_the_dense_model_and_its_config_alone(name, prunable):
    target = prunable(tiny_model(name))
    before = {n: t.clone() for n, t in target.model.state_dict().items()}
    config = target.model.config.to_dict()
    pruned = target.pruned(PruningPlan(keep={"encoder.0.ffn.neurons": (2,), "encoder.1.self_attn.heads": ()}))
    with torch.no_grad():
        for parameter in pruned.model.parameters():
            parameter.zero_()
    assert all(torch.equal(tensor, before[n]) for n, tensor in target.model.state_dict().items())
    assert target.model.config.to_dict() == config


@pytest.mark.parametrize("name", TINY_MODELS)
def test_weights_learned_by_a_shortened_copy_go_back_to_the_blocks_it_kept(name, prunable):
    target = prunable(tiny_model(name))
    stack = list(target.structure.stacks)[-1]
    plan = PruningPlan(keep={f"{stack}.blocks": (1, 2)})
    short = target.pruned(plan)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in short.model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    dropped = [
        p.clone() for p in target.model.get_submodule(target.structure.stacks[stack].blocks)[0].parameters()
    ]
    target.take_weights(short, plan)
    again = target.pruned(plan).model.state_dict()
    assert all(torch.equal(again[n], tensor) for n, tensor in short.model.state_dict().items())
    block = target.model.get_submodule(target.structure.stacks[stack].blocks)[0]
    same = [torch.equal(a, b) for a, b in zip(dropped, block.parameters(), strict=True)]
    # T5's position table lives in block 0 but belongs to the stack, so it alone has changed.
    assert same.count(False) == (1 if name.startswith("t5") else 0)
