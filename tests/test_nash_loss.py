"""NASH's loss against the same formulas written out with plain torch, and its keys and presets."""

from __future__ import annotations

import re
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from nash_calls import QUICK, deep_t5, rows_of, run_nash, target_of
from prunekit_nash.config import PRESETS, NashConfig
from prunekit_nash.loss import StudentLoss
from prunekit_nash.method import Nash
from pydantic import ValidationError
from toy_task import copy_task

from prunekit.pruning.layers import select_layers
from prunekit.pruning.plan import PruningPlan

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

BOTH = pytest.mark.parametrize("name", ["t5", "bart"])


def batch_with_padding():
    """Sources and targets of different lengths."""
    task = copy_task()
    examples = sorted(task.examples("train"), key=lambda example: len(example.labels))
    batch = task.collate([examples[0], examples[-1], examples[1]])
    assert (batch["labels"] == -100).any()
    assert (batch["attention_mask"] == 0).any()
    return batch


def loss_and_models(model, kept, *, selection="uniform", **keys):
    """A ``StudentLoss``, its shortened student with other weights, its teacher, and the kept blocks."""
    teacher = target_of(model)
    layers = select_layers(teacher.structure.stacks["decoder"].depth, kept, selection)
    student = teacher.pruned(PruningPlan(keep={"decoder.blocks": layers}))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in student.model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return StudentLoss(NashConfig(**keys), student, teacher, layers), student.model, teacher.model, layers


@contextmanager
def block_outputs(model):
    """What each block of a T5 or BART puts out, found without prunekit's tables."""
    found = {"encoder": [], "decoder": []}
    handles = []
    for stack, module in (("encoder", model.get_encoder()), ("decoder", model.get_decoder())):
        for block in getattr(module, "block", None) or module.layers:

            def keep(_, inputs, output, stack=stack):
                found[stack].append(output[0] if isinstance(output, tuple) else output)

            handles.append(block.register_forward_hook(keep))
    yield found
    for handle in handles:
        handle.remove()


def mean_square(first, second, mask):
    """Mean over positions that count and over the width, position by position."""
    squares = [
        (first[b, t] - second[b, t]).square().mean()
        for b in range(len(mask))
        for t in range(mask.shape[1])
        if mask[b, t]
    ]
    return sum(squares) / len(squares)


def divergence(p_logits, q_logits, mask):
    """KL(p || q), mean over target tokens that are not padding."""
    p, q = p_logits.softmax(-1), q_logits.softmax(-1)
    per_token = (p * (p / q).log()).sum(-1)
    return per_token[mask].mean()


# The paper's loss


@pytest.mark.parametrize(
    ("name", "kept", "selection", "expected"),
    [
        ("t5", 2, "uniform", (0, 2)),
        ("bart", 2, "uniform", (0, 2)),
        ("bart", 2, "high", (1, 2)),
        ("deep", 3, "uniform", (0, 2, 5)),
    ],
)
def test_the_papers_loss_is_its_formula(name, kept, selection, expected):
    model = deep_t5(6) if name == "deep" else name
    loss, student, teacher, layers = loss_and_models(model, kept, selection=selection)
    assert layers == expected
    batch = batch_with_padding()
    total, terms = loss(batch, {})

    with torch.no_grad(), block_outputs(student) as ours, block_outputs(teacher) as theirs:
        f, g = student(**batch).logits, teacher(**batch).logits
    targets = batch["labels"] != -100
    prediction = divergence(f, g, targets)
    encoder = sum(
        mean_square(a, b, batch["attention_mask"])
        for a, b in zip(ours["encoder"], theirs["encoder"], strict=True)
    )
    decoder = sum(mean_square(ours["decoder"][i], theirs["decoder"][layers[i]], targets) for i in range(kept))
    assert terms.keys() == {"prediction", "encoder_hidden", "decoder_hidden"}
    assert terms["prediction"].item() == pytest.approx(prediction.item(), rel=1e-4)
    assert terms["encoder_hidden"].item() == pytest.approx(encoder.item(), rel=1e-4)
    assert terms["decoder_hidden"].item() == pytest.approx(decoder.item(), rel=1e-4)
    expected_total = prediction + 0.001 * encoder + 0.001 * decoder
    assert total.item() == pytest.approx(expected_total.item(), rel=1e-4)
    assert decoder > 0.01


@BOTH
def test_a_student_equal_to_its_teacher_has_no_loss(name):
    loss, student, teacher, _ = loss_and_models(name, 3)
    student.load_state_dict(teacher.state_dict())
    total, terms = loss(batch_with_padding(), {})
    assert [abs(term.item()) < 1e-6 for term in terms.values()] == [True] * 3
    assert abs(total.item()) < 1e-6


@BOTH
def test_more_padding_leaves_the_papers_loss_alone(name):
    loss, *_ = loss_and_models(name, 2)
    batch = batch_with_padding()
    padded = {
        "input_ids": torch.nn.functional.pad(batch["input_ids"], (0, 3)),
        "attention_mask": torch.nn.functional.pad(batch["attention_mask"], (0, 3)),
        "labels": torch.nn.functional.pad(batch["labels"], (0, 4), value=-100),
    }
    assert loss(padded, {})[0].item() == pytest.approx(loss(batch, {})[0].item(), rel=1e-4)


@BOTH
def test_gradients_reach_the_student_and_not_the_teacher(name):
    loss, student, teacher, _ = loss_and_models(name, 2)
    loss(batch_with_padding(), {})[0].backward()
    with_gradient = {key for key, p in student.named_parameters() if p.grad is not None and p.grad.any()}
    assert len(with_gradient) > 0.8 * len(list(student.parameters()))
    assert [p for p in teacher.parameters() if p.grad is not None] == []


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_direction_and_temperature_of_the_divergence(direction):
    loss, student, teacher, _ = loss_and_models("t5", 2, kl_direction=direction, temperature=2.0)
    batch = batch_with_padding()
    with torch.no_grad():
        f, g = student(**batch).logits / 2, teacher(**batch).logits / 2
    pair = (g, f) if direction == "forward" else (f, g)
    expected = 4 * divergence(*pair, batch["labels"] != -100)
    assert loss(batch, {})[1]["prediction"].item() == pytest.approx(expected.item(), rel=1e-4)


# The released code's loss


@BOTH
@pytest.mark.parametrize("count_padding", [True, False])
def test_the_released_loss_is_the_label_cross_entropy_alone(name, count_padding):
    loss, student, _, _ = loss_and_models(name, 2, preset="released", count_padding=count_padding)
    loss.teacher = None
    batch = batch_with_padding()
    total, terms = loss(batch, {})
    with torch.no_grad():
        log_p = student(**batch).logits.log_softmax(-1)
    scores = [
        -log_p[b, t, max(label, 0)].item()  # padding is token 0
        for b, row in enumerate(batch["labels"].tolist())
        for t, label in enumerate(row)
        if count_padding or label != -100
    ]
    assert terms.keys() == {"label"}
    assert total.item() == pytest.approx(sum(scores) / len(scores), rel=1e-4)


def test_the_released_preset_counts_padding():
    assert NashConfig(preset="released").count_padding is True
    assert NashConfig().count_padding is False


def test_terms_are_weighted_as_the_keys_say():
    keys = {"prediction_weight": 0.5, "encoder_hidden_weight": 2.0, "decoder_hidden_weight": 3.0}
    loss, *_ = loss_and_models("t5", 2, **keys, label_weight=0.25)
    total, terms = loss(batch_with_padding(), {})
    weighted = 0.5 * terms["prediction"] + 2 * terms["encoder_hidden"] + 3 * terms["decoder_hidden"]
    assert total.item() == pytest.approx((weighted + 0.25 * terms["label"]).item(), rel=1e-6)


# The whole loss of a step, from the log


def test_the_logged_loss_is_the_papers_sum_with_the_sparsity_term(tmp_path):
    run_nash(target_of("t5"), tmp_path)
    rows = rows_of(tmp_path)
    for row in rows:
        gap = row["sparsity"] - row["target"]
        penalty = row["lambda_1"] * gap + row["lambda_2"] * gap**2
        hidden = 0.001 * (row["encoder_hidden"] + row["decoder_hidden"])
        assert row["loss"] == pytest.approx(row["prediction"] + hidden + penalty, rel=1e-4, abs=1e-5)
    assert abs(rows[-1]["lambda_1"]) > 1


@pytest.mark.parametrize(("preset", "warmup"), [("paper", 8), ("released", 5)])
def test_the_target_rises_over_the_warmup_and_then_stands(tmp_path, preset, warmup):
    run_nash(target_of("t5"), tmp_path, preset=preset, start_from_current=False)
    expected = [0.3 * min(1, step / warmup) for step in range(10)]
    assert [row["target"] for row in rows_of(tmp_path)] == pytest.approx(expected)


def test_the_target_can_start_from_the_masks_sparsity(tmp_path):
    run_nash(target_of("t5"), tmp_path, start_from_current=True)
    first = rows_of(tmp_path)[0]
    assert first["sparsity"] > 0.05
    assert first["target"] == pytest.approx(first["sparsity"], abs=1e-6)


def test_only_states_after_the_warmup_are_evaluated(tmp_path):
    run_nash(target_of("t5"), tmp_path, train={**QUICK, "eval_every": 1}, sparsity_tolerance=0.9)
    evaluated = [row["step"] for row in rows_of(tmp_path) if "per" in row]
    assert evaluated == [8, 9, 10]


def test_prepruning_epochs_train_without_masks_first(tmp_path):
    run_nash(target_of("t5"), tmp_path, prepruning_epochs=2)
    before, after = rows_of(tmp_path, "prepruning"), rows_of(tmp_path)
    assert (len(before), len(after)) == (4, 10)
    assert before[0].keys() & {"sparsity", "target", "lambda_1"} == set()
    assert before[0]["prediction"] > before[-1]["prediction"]
    assert [row["learning_rate"] for row in before] == pytest.approx([0.01, 0.0075, 0.005, 0.0025])
    assert after[0]["learning_rate"] == pytest.approx(0.01)


def test_initial_neurons_follow_droprate_init(tmp_path):
    sparsities = []
    for rate in (0.2, 0.8):
        run_nash(target_of("t5"), tmp_path / str(rate), droprate_init=rate)
        sparsities.append(rows_of(tmp_path / str(rate))[0]["sparsity"])
    assert sparsities[0] < 0.03 < 0.15 < sparsities[1]


# Keys


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_fills_in_what_is_left_out(preset):
    config = NashConfig(preset=preset)
    assert {key: getattr(config, key) for key in PRESETS[preset]} == PRESETS[preset]


def test_the_papers_preset_is_the_default():
    assert NashConfig() == NashConfig(preset="paper")
    defaults = {key: NashConfig.model_fields[key].default for key in PRESETS["paper"]}
    assert defaults == PRESETS["paper"]


def test_a_written_key_wins_over_the_preset():
    config = NashConfig(preset="released", prediction_weight=0.7, freeze_embeddings=False)
    assert (config.prediction_weight, config.freeze_embeddings, config.label_weight) == (0.7, False, 1.0)


def test_decoder_layers_may_be_written_as_layers():
    assert NashConfig.model_validate({"layers": {"decoder": 5}}) == NashConfig(decoder_layers=5)


@pytest.mark.parametrize(
    "keys",
    [
        {"layers": {"decoder": 3}, "decoder_layers": 3},
        {"layers": {"encoder": 3}},
        {"layers": {"decoder": 3, "encoder": 2}},
        {"layers": 3},
    ],
)
def test_other_spellings_of_layers_are_refused_with_the_right_one(keys):
    with pytest.raises(ValidationError, match=r"write `layers: \{decoder: N\}` with that key alone, or"):
        NashConfig.model_validate(keys)


@pytest.mark.parametrize(
    "keys", [{"preset": "papers"}, {"decoder_layers": 0}, {"layers": {"decoder": 0}}, {"decoder_layer": 3}]
)
def test_wrong_keys_and_values_are_refused(keys):
    with pytest.raises(ValidationError):
        NashConfig.model_validate(keys)


def test_the_declaration_says_what_plans_name():
    assert Nash.info.kinds == ("head", "neuron", "sublayer", "block")
    assert Nash.info.model_types == ("t5", "bart")
    assert Nash.info.trains


def test_the_page_shows_every_key_with_both_presets_values():
    page = (Path(__file__).parents[1] / "docs" / "methods" / "nash.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| `([\w.\[\]]+)` \| `([\w.\[\]]+)` \|", page, re.MULTILINE)
    shown = {key: (paper, released) for key, paper, released in rows}
    configs = NashConfig(), NashConfig(preset="released")
    words = {"True": "true", "False": "false", "None": "none", "()": "[]"}
    texts = {key: [str(getattr(config, key)) for config in configs] for key in NashConfig.model_fields}
    assert shown == {key: tuple(words.get(text, text) for text in pair) for key, pair in texts.items()}
