"""Numbers that are not finite stop training, are told with step and tensor, and are never saved."""

from __future__ import annotations

import itertools
import math
import re

import pytest
import torch
from learned_calls import goal_of
from nash_calls import QUICK, target_of
from number_task import Numbers, equal_weights, fit, log_rows, net, spec, squared_error, weights
from test_learned_stage import stage
from torch import nn

from prunekit.errors import PrunekitError, TrainingError
from prunekit.learned.drift import drift_warnings
from prunekit.learned.goal import Goal
from prunekit.scoring.cache import FILE, ScoreCache
from prunekit.scoring.scores import Scores
from prunekit.training import checkpoints
from prunekit.training.loop import Assessment, ParameterGroup

pytestmark = pytest.mark.usefixtures("one_thread")

KEPT = "The state after step 2 is kept in checkpoints/stage-last.safetensors."
LOWER = "Lower learning_rate (0.05) or max_grad_norm (1), and give that run another folder."
SETTINGS = spec(checkpoint_every=2)


def stopped(folder, model, loss, **options):
    """The text of the error that ends the training, with its decimals cut to two."""
    with pytest.raises(TrainingError) as caught:
        fit(folder, model, options.pop("settings", SETTINGS), loss=loss, **options)
    return re.sub(r"(\.\d\d)\d+", r"\1", str(caught.value))


def from_step(number, model, broken):
    """The loss of the task, and from an update on (counted from 1) what ``broken`` makes of it."""

    def loss(batch, step):
        value = squared_error(model)(batch, step)[0]
        return broken(value) if step + 1 >= number else (value, {})

    return loss


def last_state(folder, stage="stage"):
    return checkpoints.load_tensors(folder / "checkpoints" / f"{stage}-last.safetensors")


# Loss, terms and gradients


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_training(tmp_path, value):
    model = net()
    text = stopped(tmp_path, model, from_step(4, model, lambda loss: (loss * value, {"part": 1.5})))
    assert text == (
        f"stage: at step 4 the loss is {value} (terms: part 1.5). Weights and data are finite; the gradient "
        f"of 0.weight: 24 of 24 entries are NaN or infinite. {KEPT} {LOWER}"
    )


def test_a_term_that_is_not_finite_stops_training_though_the_loss_is(tmp_path):
    model = net()
    terms = {"kl": math.inf, "label": 1.0}
    text = stopped(tmp_path, model, from_step(3, model, lambda loss: (loss, terms)))
    assert re.match(r"stage: at step 3 the loss is [\d.]+, but its term", text)
    assert "but its term kl is inf. Weights, data and each gradient are finite; the largest" in text


def test_a_gradient_that_is_not_finite_is_told_with_its_parameter(tmp_path):
    model = net()

    def broken(loss):
        # The root of zero is finite, its slope is not.
        return loss + (model[3].bias[0] * 0).sqrt(), {}

    text = stopped(tmp_path, model, from_step(4, model, broken))
    assert (
        "but the norm of its gradient is nan. Weights and data are finite; the gradient of 3.bias: 1 of 2 "
        in text
    )
    assert text.endswith(f"entries are NaN or infinite. {KEPT} {LOWER}")


def test_a_gradient_whose_square_overflows_is_told_with_the_largest(tmp_path):
    model = net()
    text = stopped(tmp_path, model, from_step(1, model, lambda loss: (loss + 1e30 * model[3].bias[0], {})))
    assert "norm of its gradient is inf. Weights, data and each gradient are finite; the largest" in text
    assert "gradient is that of 3.bias, 1e+30. No state of this stage was saved before." in text


def test_a_gradient_of_a_mask_is_told_with_the_masks_name_and_rate(tmp_path):
    model, masks = net(), nn.Linear(2, 1, bias=False)

    def loss(batch, step):
        value = squared_error(model)(batch, step)[0]
        return value + masks.weight.sum() + (0 * masks.weight[0, 1]).sqrt() * (step >= 2), {}

    groups = [ParameterGroup([masks.weight], 0.1)]
    text = stopped(tmp_path, model, loss, groups=groups, modules={"masks": masks})
    assert "the norm of its gradient by masks and multipliers is nan." in text
    assert "the gradient of masks.weight: 1 of 2 entries are NaN or infinite." in text
    assert "Lower learning_rate (0.05) or max_grad_norm (1) or mask_learning_rate (0.1), and" in text


def test_under_bf16_the_advice_is_fp32_too(tmp_path):
    model = net()
    text = stopped(
        tmp_path,
        model,
        from_step(1, model, lambda loss: (loss * math.nan, {})),
        settings=spec(precision="bf16"),
    )
    assert text.endswith("max_grad_norm (1), or use precision: fp32, and give that run another folder.")


# Weights and data


def test_weights_that_were_broken_before_are_named_first(tmp_path):
    model = net()
    with torch.no_grad():
        model[0].weight[2, :3] = math.nan
    text = stopped(tmp_path, model, squared_error(model))
    assert "at step 1 the loss is nan. First among the weights: 0.weight: 3 of 24 entries are NaN or" in text


def test_data_that_is_not_finite_is_named(tmp_path):
    task, model = Numbers(), net()
    for x, _ in task.examples("train"):
        x[0] = math.inf
    text = stopped(tmp_path, model, squared_error(model), task=task)
    assert "in the data the batch's x: 4 of 16 entries are NaN or infinite: look for it there." in text


@pytest.mark.parametrize("kind", ["last", "best"])
def test_weights_that_broke_unseen_are_never_saved(tmp_path, kind):
    model = net()

    def after_step(step):
        if step == 4:
            with torch.no_grad():
                model[3].bias[1] = math.nan

    options = {"after_step": after_step}
    if kind == "best":
        options |= {"assess": lambda step: Assessment({}, rank=(step,)), "assess_every": 2}
    text = stopped(tmp_path, model, squared_error(model), **options)
    assert text == (
        "stage: after step 4 the weights are not finite and were not saved. 3.bias: 1 of 2 entries are NaN "
        f"or infinite. {KEPT} {LOWER}"
    )


def test_the_last_good_state_stays_and_training_can_go_on_from_it(tmp_path):
    model, whole = net(), net()
    stopped(tmp_path / "stopped", model, from_step(4, model, lambda loss: (loss * math.nan, {})))
    tensors, facts = last_state(tmp_path / "stopped")
    assert facts["step"] == 2
    assert all(tensor.isfinite().all() for tensor in tensors.values() if tensor.is_floating_point())
    again = net()
    fit(tmp_path / "stopped", again, SETTINGS)
    fit(tmp_path / "whole", whole, SETTINGS)
    assert equal_weights(weights(again), weights(whole))
    assert log_rows(tmp_path / "stopped") == log_rows(tmp_path / "whole")


# Scores


def test_scores_that_are_not_finite_do_not_enter_the_cache(tmp_path):
    scores = Scores({"encoder.0.ffn.neurons": torch.tensor([1.0, math.nan, 2.0])})
    with pytest.raises(
        PrunekitError, match=r"^1 of 3 scores of encoder\.0\.ffn\.neurons are NaN or infinite\."
    ):
        ScoreCache(tmp_path, {"method": "m"}).save(scores)
    assert not (tmp_path / FILE).exists()


# Masks


def test_mask_logits_that_are_not_finite_stop_the_stage(tmp_path):
    target = target_of("t5")
    run = stage(
        target, tmp_path, [goal_of(target, ("head", "neuron"))], train={**QUICK, "checkpoint_every": 2}
    )
    clamp, calls = run.masks.clamp_, itertools.count(1)

    def broken():
        clamp()
        if next(calls) == 3:
            with torch.no_grad():
                run.masks.log_alpha("encoder.0.ffn.neurons")[:2] = math.nan

    run.masks.clamp_ = broken
    with pytest.raises(
        TrainingError,
        match=r"^prune: at step 4 the loss is nan .* First among the weights: masks"
        r"\.logits\.encoder/0/ffn/neurons: 2 of \d+ entries are NaN or infinite\. The state after step 2",
    ):
        run.run()
    assert last_state(tmp_path, "prune")[1]["step"] == 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sparsity_and_multipliers_are_the_same_to_the_bit_under_autocast(tmp_path, dtype):
    target = target_of("t5")
    run = stage(target, tmp_path, [goal_of(target, ("hidden", "head", "neuron", "sublayer"))])
    run.student_loss = lambda batch, masks: (
        sum(m.sum() for m in masks.values()),
        {"masks": torch.stack([m.sum() for m in masks.values()])},
    )
    found = []
    for enabled in (False, True):
        torch.manual_seed(1)
        run.masks.zero_grad()
        run.lagrangians[0].zero_grad()
        with torch.autocast("cpu", dtype=dtype, enabled=enabled):
            loss, figures = run._loss({}, 3)
        loss.backward()
        parameters = [*run.masks.parameters(), *run.lagrangians[0].parameters()]
        found.append([loss, figures["sparsity"], figures["masks"], *(p.grad.clone() for p in parameters)])
    assert {tensor.dtype for tensor in found[1]} == {torch.float32}
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


def test_logits_and_multipliers_stay_float32_through_a_bf16_training(tmp_path):
    target = target_of("t5")
    run = stage(target, tmp_path, [goal_of(target, ("head", "neuron"))], train={**QUICK, "precision": "bf16"})
    run.run()
    tensors, _ = last_state(tmp_path, "prune")
    own = {name: t for name, t in tensors.items() if name.startswith(("masks/", "lagrangian/", "optimizer/"))}
    assert own
    assert {tensor.dtype for tensor in own.values()} == {torch.float32}


# Warnings


GOALS = [Goal("encoder", {}, (), 0.3)]


def rows(sparsities, *, loss=1.0, lambda_1=0.0, target=0.3):
    multipliers = {"lambda_1": lambda_1, "lambda_2": 0.0}
    return [
        {
            "step": n,
            "loss": loss + lambda_1 * (sparsity - target),
            "sparsity": sparsity,
            "target": target,
            **multipliers,
        }
        for n, sparsity in enumerate(sparsities, 1)
    ]


def test_a_run_that_settles_has_no_warnings():
    assert drift_warnings(rows([0.1, 0.2, 0.34, 0.3], lambda_1=5.0), GOALS, tolerance=0.01) == []


def test_an_overshoot_is_told_with_its_step_and_the_end():
    [found] = drift_warnings(rows([0.1, 0.42, 0.31]), GOALS, tolerance=0.01)
    assert found.startswith(
        "the encoder's sparsity overshot: it was 0.420 at step 2 where the target is 0.3, and ended at 0.310;"
    )


def test_an_overshoot_within_the_tolerance_is_not_told():
    assert drift_warnings(rows([0.1, 0.42, 0.31]), GOALS, tolerance=0.2) == []


def test_multipliers_that_grew_too_large_are_told_with_both():
    [found] = drift_warnings(rows([0.1, 0.1], lambda_1=-80.0, loss=1.0), GOALS, tolerance=0.01)
    assert found.startswith(
        "the multipliers of the encoder's sparsity outweighed the task: in 2 of 2 steps their term was "
        "more than 10 times the rest of the loss (16 at step 2, with lambda_1 -80 and lambda_2 0)."
    )


def test_a_single_step_that_outweighs_the_loss_is_not_told():
    quiet = rows([0.3] * 39)
    loud = rows([0.1], lambda_1=-80.0)
    assert drift_warnings([*quiet, *loud], GOALS, tolerance=0.01) == []


def test_each_goal_has_its_own_warnings():
    goals = [Goal("encoder", {}, (), 0.3), Goal("decoder", {}, (), 0.5)]
    step = {"step": 1, "loss": 1.0}
    for goal, sparsity in (("encoder", 0.3), ("decoder", 0.8)):
        figures = {"sparsity": sparsity, "target": 0.5, "lambda_1": 0.0, "lambda_2": 0.0}
        step |= {f"{goal}_{name}": figure for name, figure in figures.items()}
    [found] = drift_warnings([step], goals, tolerance=0.01)
    assert found.startswith("the decoder's sparsity overshot")


def test_the_stage_hands_its_warnings_to_the_trainer(tmp_path, monkeypatch):
    def judged(rows, goals, *, tolerance):
        return [f"{len(rows)} steps from {rows[0]['stage']} for the {goals[0].name}, {tolerance}"]

    monkeypatch.setattr("prunekit.learned.stage.drift_warnings", judged)
    target = target_of("t5")
    run = stage(target, tmp_path, [goal_of(target, ("head", "neuron"))], prepruning_epochs=1)
    run.run()
    assert run.trainer.warnings == ["10 steps from prune for the model, 0.9"]
