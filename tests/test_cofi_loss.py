import itertools
from contextlib import contextmanager
from typing import get_args

import numpy as np
import pytest
import torch
from nash_calls import deep_t5, target_of
from prunekit_cofi.config import CofiConfig
from prunekit_cofi.loss import CofiLoss, layer_transforms, living_blocks
from toy_task import copy_task
from transformers import BartForSequenceClassification, BertConfig, BertForSequenceClassification
from transformers import BertForTokenClassification as BertTagger

from prunekit.errors import UnsupportedModelError
from prunekit.pruning.plan import PruningPlan
from prunekit.testing.tiny import tiny_inputs, tiny_model
from prunekit.training.layers import LayerMatching

pytestmark = pytest.mark.usefixtures("one_thread")

ALL = ("t5", "t5-deep", "bart", "bert", "bert-tagger", "vit")
EVERY = pytest.mark.parametrize("name", ALL)
PADDED = pytest.mark.parametrize("name", ["t5", "bart", "bert", "bert-tagger"])


def model_of(name):
    if name == "t5-deep":
        return deep_t5(6)
    return tiny_model("bert", model_class=BertTagger) if name == "bert-tagger" else tiny_model(name)


def batch_of(name, model):
    """Examples of different lengths, where lengths differ."""
    if name in ("t5", "t5-deep", "bart"):
        task = copy_task()
        examples = sorted(task.examples("train"), key=lambda example: len(example.labels))
        batch = task.collate([examples[0], examples[-1], examples[1]])
        assert (batch["labels"] == -100).any()
    else:
        batch = tiny_inputs(model)
        batch["labels"] = torch.tensor([0, 2])
        if name == "bert-tagger":
            batch["labels"] = torch.where(batch["attention_mask"] != 0, batch["input_ids"] % 3, -100)
            batch["labels"][:, 0] = -100  # a special token has a hidden state, but no label
    assert "attention_mask" not in batch or (batch["attention_mask"] == 0).any()
    return batch


def shaken(module, scale, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=generator)


def loss_of(name, *, differ=True, **keys):
    """The loss, its student, its teacher (with other weights if they differ), and a batch."""
    teacher = target_of(model_of(name))
    student = teacher.copy()
    transforms = layer_transforms(student)
    if differ:
        shaken(student.model, 0.1, seed=1)
        for seed, transform in enumerate(transforms.values()):
            shaken(transform, 0.1, seed=2 + seed)
    loss = CofiLoss(CofiConfig(**keys), student, teacher, transforms)
    return loss, student, teacher, batch_of(name, student.model)


def masks_of(target, *, dead=(), value=0.7):
    """A mask of every group but blocks; a name in ``dead`` is closed, ``group[i]`` one unit of it."""
    masks = {
        name: torch.full((group.size,), value)
        for name, group in target.groups.items()
        if group.kind != "block"
    }
    assert "hidden" in masks
    for name in dead:
        group, _, index = name.partition("[")
        masks[group][int(index[:-1]) if index else slice(None)] = 0
    return masks


# An oracle that shares nothing with prunekit but the models


def blocks_of(model):
    if hasattr(model.base_model, "decoder"):
        return {
            name: getattr(stack, "block", None) or stack.layers
            for name, stack in (("encoder", model.get_encoder()), ("decoder", model.get_decoder()))
        }
    base = model.base_model
    return {"encoder": base.encoder.layer if hasattr(base, "encoder") else base.layers}


@contextmanager
def block_outputs(model):
    found = {name: [] for name in blocks_of(model)}
    handles = []
    for name, blocks in blocks_of(model).items():
        for block in blocks:

            def keep(_, inputs, output, name=name):
                found[name].append((output[0] if isinstance(output, tuple) else output).double().numpy())

            handles.append(block.register_forward_hook(keep))
    yield found
    for handle in handles:
        handle.remove()


def layer_term(ours, theirs, positions, transform):
    """The top-down term while every block is alive."""
    weight, bias = (p.detach().double().numpy() for p in (transform.weight, transform.bias))
    rows = {3: (0, 1, 2), 6: (1, 2, 4, 5)}[len(theirs)]
    total, limit = 0.0, len(ours)
    for row in rows[::-1]:
        costs = [
            np.mean([np.square(s[b, t] @ weight.T + bias - theirs[row][b, t]) for b, t in positions])
            for s in ours
        ]
        limit = int(np.argmin(costs[:limit])) if limit else limit
        total += costs[limit]
    return total


def prediction_term(f, g, counted, temperature):
    p, q = (g / temperature).softmax(-1), (f / temperature).softmax(-1)
    return temperature**2 * (p * (p / q).log()).sum(-1)[counted].mean()


@EVERY
def test_terms_are_those_of_an_independent_computation(name):
    loss, student, teacher, batch = loss_of(name, label_weight=0.25, temperature=3.0)
    total, terms = loss(batch, {})
    with torch.no_grad(), block_outputs(student.model) as ours, block_outputs(teacher.model) as theirs:
        f, g = student.model(**batch), teacher.model(**batch)

    labels = batch["labels"]
    counted = labels != -100 if labels.ndim == 2 else torch.ones(len(labels), dtype=torch.bool)
    seen = batch.get("attention_mask", torch.ones(ours["encoder"][0].shape[:2]))
    expected = {
        "label": f.loss.item(),
        "prediction": prediction_term(f.logits, g.logits, counted, 3.0).item(),
    }
    for stack, positions in {"encoder": seen, "decoder": counted}.items():
        if stack in ours:
            where = positions.nonzero().tolist()
            expected[f"{stack}_layer"] = layer_term(ours[stack], theirs[stack], where, loss.transforms[stack])
    assert {key: term.item() for key, term in terms.items()} == pytest.approx(expected, rel=1e-4)
    layers = sum(value for key, value in expected.items() if key.endswith("_layer"))
    weighted = 0.25 * expected["label"] + 0.1 * expected["prediction"] + 0.9 * layers
    assert total.item() == pytest.approx(weighted, rel=1e-4)
    assert min(expected.values()) > 1e-3


@EVERY
@pytest.mark.parametrize("matching", get_args(LayerMatching))
def test_a_student_equal_to_its_teacher_has_no_loss(name, matching):
    torch.manual_seed(0)
    loss, _, _, batch = loss_of(name, differ=False, layer_matching=matching)
    total, terms = loss(batch, {})
    assert {abs(term.item()) < 1e-6 for term in terms.values()} == {True}
    assert abs(total.item()) < 1e-6


@PADDED
def test_more_padding_leaves_the_loss_alone(name):
    loss, _, _, batch = loss_of(name, label_weight=0.5)
    fill = {"input_ids": 0, "attention_mask": 0, "labels": -100}
    padded = {
        key: value if value.ndim == 1 else torch.nn.functional.pad(value, (0, 3), value=fill[key])
        for key, value in batch.items()
    }
    found, expected = loss(padded, {}), loss(batch, {})
    assert found[0].item() == pytest.approx(expected[0].item(), rel=1e-4)
    assert {k: v.item() for k, v in found[1].items()} == pytest.approx(
        {k: v.item() for k, v in expected[1].items()}, rel=1e-4
    )


@EVERY
def test_gradients_reach_student_transforms_and_masks_and_not_the_teacher(name):
    loss, student, teacher, batch = loss_of(name)
    masks = {group: mask.requires_grad_() for group, mask in masks_of(student).items()}
    with student.masked(masks):
        loss(batch, masks)[0].backward()
    parameters = list(student.model.parameters())
    assert sum(p.grad is not None and bool(p.grad.any()) for p in parameters) > 0.8 * len(parameters)
    assert all(p.grad is not None and p.grad.any() for t in loss.transforms.values() for p in t.parameters())
    assert all(mask.grad is not None and mask.grad.any() for mask in masks.values())
    assert [p for p in teacher.model.parameters() if p.grad is not None] == []


# Dead blocks


@pytest.mark.parametrize(
    ("name", "dead", "expected"),
    [
        ("bert", [], [True, True, True]),
        ("bert", ["encoder.self_attn[1]"], [True, True, True]),
        ("bert", ["encoder.self_attn[1]", "encoder.ffn[1]"], [True, False, True]),
        ("bert", ["encoder.1.self_attn.heads", "encoder.ffn[1]"], [True, False, True]),
        ("vit", ["encoder.2.self_attn.heads", "encoder.2.ffn.neurons"], [True, True, False]),
        ("t5", ["encoder.2.self_attn.heads[0]", "encoder.ffn[2]"], [True, True, True]),
    ],
)
def test_a_block_lives_while_its_attention_or_its_ffn_does(name, dead, expected):
    target = target_of(name)
    alive = living_blocks(target, target.structure.stacks["encoder"], masks_of(target, dead=dead))
    assert alive.tolist() == expected


def test_cross_attention_alone_keeps_a_decoder_block_alive():
    target = target_of("t5")
    dead = ["decoder.self_attn[0]", "decoder.0.ffn.neurons", "decoder.self_attn[2]", "decoder.ffn[2]"]
    stack = target.structure.stacks["decoder"]
    assert living_blocks(target, stack, masks_of(target, dead=dead)).tolist() == [True, True, True]
    dead += ["decoder.0.cross_attn.heads"]
    assert living_blocks(target, stack, masks_of(target, dead=dead)).tolist() == [False, True, True]


def test_every_block_lives_while_nothing_is_masked():
    target = target_of("bart")
    for stack in target.structure.stacks.values():
        assert living_blocks(target, stack, {}).tolist() == [True, True, True]


@pytest.mark.parametrize("masked", [False, True])
def test_sublayers_removed_before_stay_dead(masked):
    target = target_of("bert").pruned(PruningPlan(keep={"encoder.self_attn": (0, 1), "encoder.ffn": (0, 2)}))
    masks = masks_of(target, dead=["encoder.2.ffn.neurons"]) if masked else {}
    alive = living_blocks(target, target.structure.stacks["encoder"], masks)
    assert alive.tolist() == [True, True, not masked]


def test_a_dead_block_is_in_no_pair():
    loss, student, teacher, batch = loss_of("bert", prediction_weight=0.0, layer_matching="same-index")
    masks = masks_of(student, dead=["encoder.self_attn[1]", "encoder.ffn[1]"])
    with student.masked(masks):
        found = loss(batch, masks)[1]["encoder_layer"].item()
        with torch.no_grad(), block_outputs(student.model) as ours:
            student.model(**batch)
    with torch.no_grad(), block_outputs(teacher.model) as theirs:
        teacher.model(**batch)
    transform = loss.transforms["encoder"]
    weight, bias = (p.detach().double().numpy() for p in (transform.weight, transform.bias))
    where = batch["attention_mask"].numpy().astype(bool)
    distances = [
        np.square((s @ weight.T + bias - t)[where]).mean()
        for s, t in zip(ours["encoder"], theirs["encoder"], strict=True)
    ]
    assert found == pytest.approx(distances[0] + distances[2], rel=1e-4)


# Weights and their exceptions


def test_terms_without_weight_are_not_computed():
    for layer, prediction, label in itertools.product((0.0, 0.5), repeat=3):
        if layer or prediction or label:
            keys = {"layer_weight": layer, "prediction_weight": prediction, "label_weight": label}
            loss, _, _, batch = loss_of("t5", **keys)
            named = {"encoder_layer": layer, "decoder_layer": layer, "prediction": prediction, "label": label}
            assert loss(batch, {})[1].keys() == {key for key, weight in named.items() if weight}


def test_the_teacher_is_not_asked_where_labels_are_all():
    loss, _, teacher, batch = loss_of("bert", layer_weight=0.0, prediction_weight=0.0, label_weight=1.0)
    teacher.model.forward = None
    total, terms = loss(batch, {})
    assert total.item() == terms["label"].item() > 0


def regression():
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12}
    model = BertForSequenceClassification(BertConfig(vocab_size=40, num_labels=1, **sizes)).eval()
    return target_of(model), {**tiny_inputs(model), "labels": torch.tensor([0.3, 0.9])}


def test_a_regression_head_has_no_prediction_term_and_is_told_so():
    target, batch = regression()
    loss = CofiLoss(CofiConfig(), target, target.copy(), layer_transforms(target))
    with pytest.raises(UnsupportedModelError, match=r"one output, a regression head.*prediction_weight"):
        loss(batch, {})


def test_a_regression_head_trains_on_layers_and_labels():
    target, batch = regression()
    config = CofiConfig(prediction_weight=0.0, label_weight=1.0)
    total, terms = CofiLoss(config, target, target.copy(), layer_transforms(target))(batch, {})
    assert terms.keys() == {"label", "encoder_layer"}
    assert total.item() == pytest.approx(target.model(**batch).loss.item())


def test_a_decoder_that_reads_the_input_again_counts_its_positions():
    model = tiny_model("bart", model_class=BartForSequenceClassification)
    teacher = target_of(model)
    student = teacher.copy()
    shaken(student.model, 0.1, seed=1)
    batch = {key: value for key, value in tiny_inputs(model).items() if key != "decoder_input_ids"}
    batch["input_ids"][0, 4] = batch["input_ids"][1, -1] = model.config.eos_token_id
    batch["labels"] = torch.tensor([0, 2])
    terms = CofiLoss(CofiConfig(), student, teacher, layer_transforms(student))(batch, {})[1]
    assert terms.keys() == {"prediction", "encoder_layer", "decoder_layer"}
    assert min(term.item() for term in terms.values()) > 0


def test_terms_are_float32_under_autocast():
    loss, student, _, batch = loss_of("bert")
    masks = masks_of(student)
    exact = loss(batch, masks)[1]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total, terms = loss(batch, masks)
    assert {total.dtype, *(term.dtype for term in terms.values())} == {torch.float32}
    assert terms["encoder_layer"].item() == pytest.approx(exact["encoder_layer"].item(), rel=0.1)


def test_a_model_whose_hidden_units_were_pruned_before_can_be_the_teacher():
    teacher = target_of("t5").pruned(PruningPlan(keep={"hidden": (0, 2, 3, 7, 11)}))
    student = teacher.copy()
    shaken(student.model, 0.1, seed=1)
    loss = CofiLoss(CofiConfig(), student, teacher, layer_transforms(student))
    assert loss(batch_of("t5", student.model), {})[1]["encoder_layer"].item() > 0
