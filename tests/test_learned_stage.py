"""The training stage that methods with learned masks share; NASH's own tests run it as well."""

from __future__ import annotations

import json

import pytest
import torch
from learned_calls import COFI_KINDS, goal_of, kept_by
from nash_calls import QUICK, target_of
from torch import nn
from toy_task import copy_task

from prunekit.errors import BudgetError, TrainingError
from prunekit.learned.config import LearnedMasksConfig
from prunekit.learned.stage import MaskTraining
from prunekit.pruning.cost import sparsity
from prunekit.pruning.plan import PruningPlan
from prunekit.pruning.verify import verify
from prunekit.recipe import TrainSpec
from prunekit.training import checkpoints
from prunekit.training.loop import Trainer

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

UNITS = ("head", "neuron")


def stage(target, folder, goals, *, loss=None, extra=None, train=QUICK, seed=0, **keys):
    def label_loss(batch, masks):
        return target.model(**batch).loss, {}

    config = LearnedMasksConfig(**{"sparsity_tolerance": 0.9, "validation_limit": 4, **keys})
    trainer = Trainer(folder, TrainSpec(**train), seed=seed)
    options = {} if extra is None else {"extra": extra}
    return MaskTraining("cofi", config, target, loss or label_loss, copy_task(), trainer, goals, **options)


def rows_of(folder):
    return [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_masks_of_every_kind_become_a_plan_that_meets_the_budget(tmp_path, name):
    target = target_of(name)
    goal = goal_of(target, COFI_KINDS, sparsity=0.5)
    masks = stage(target, tmp_path, [goal]).run()
    assert tuple(masks) == goal.masks
    assert {mask.device.type for mask in masks.values()} == {"cpu"}
    assert 0.5 <= sparsity(goal.costs, target.structure, kept_by(masks)) < 0.52
    plan = PruningPlan.from_masks(masks, target.groups)
    verify(target, target.pruned(plan), plan, copy_task().collate(copy_task().examples("validation")[:3]))


def test_the_loss_is_told_the_masks_of_the_step_and_none_before_there_are_masks(tmp_path):
    target = target_of("t5")
    goal = goal_of(target, UNITS)
    seen = []

    def loss(batch, masks):
        seen.append(dict(masks))
        return target.model(**batch).loss, {}

    stage(target, tmp_path, [goal], loss=loss, prepruning_epochs=1).run()
    assert seen[:2] == [{}, {}]
    assert len(seen) == 2 + 10
    assert all(masks.keys() == set(goal.masks) for masks in seen[2:])
    assert not torch.equal(*(masks["encoder.0.ffn.neurons"] for masks in seen[2:4]))


def test_extra_modules_are_trained_and_kept_in_checkpoints(tmp_path):
    target = target_of("t5")
    transform = nn.Linear(4, 4)
    before = transform.weight.detach().clone()

    def loss(batch, masks):
        return target.model(**batch).loss + transform(torch.ones(4)).square().sum(), {}

    stage(target, tmp_path, [goal_of(target, UNITS)], loss=loss, extra={"transform": transform}).run()
    # Adam's steps are as long as the model's learning rate, not as the masks'.
    moved = (transform.weight - before).abs().max()
    assert 0.02 < moved < 0.07  # the rates of the ten steps sum to 0.055; masks move by 1 a step
    tensors, _ = checkpoints.load_tensors(tmp_path / "checkpoints" / "prune-last.safetensors")
    assert torch.equal(tensors["model/transform.weight"], transform.weight)
    assert "model/model.shared.weight" in tensors


def test_the_gradient_of_extra_modules_is_clipped_with_the_models(tmp_path):
    target = target_of("t5")
    transform = nn.Linear(4, 4)

    def loss(batch, masks):
        return 0 * target.model(**batch).loss + 100 * transform(torch.ones(4)).sum(), {}

    stage(target, tmp_path, [goal_of(target, UNITS)], loss=loss, extra={"transform": transform}).run()
    # 16 weights and 4 biases with a gradient of 100 each.
    assert rows_of(tmp_path)[0]["grad_norm"] == pytest.approx(100 * 20**0.5, rel=1e-5)


def test_an_interrupted_run_brings_extra_modules_back(tmp_path):
    def run(folder, steps):
        torch.manual_seed(3)
        target, transform = target_of("t5"), nn.Linear(4, 4)

        def loss(batch, masks):
            loss.left -= 1
            if loss.left < 0:
                raise KeyboardInterrupt
            return target.model(**batch).loss + transform(torch.ones(4)).square().sum(), {}

        loss.left = steps
        train = {**QUICK, "checkpoint_every": 3}
        extra = {"transform": transform}
        stage(target, folder, [goal_of(target, UNITS)], loss=loss, extra=extra, train=train).run()
        return transform.weight.detach()

    expected = run(tmp_path / "whole", 10)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "crashed", 7)
    assert torch.equal(run(tmp_path / "crashed", 4), expected)


def test_without_extra_modules_checkpoints_name_the_model_alone(tmp_path):
    target = target_of("t5")
    stage(target, tmp_path, [goal_of(target, UNITS)]).run()
    tensors, _ = checkpoints.load_tensors(tmp_path / "checkpoints" / "prune-best.safetensors")
    assert {name.partition("/")[0] for name in tensors} == {"model", "masks", "lagrangian"}
    assert "model/shared.weight" in tensors


def test_a_state_with_one_goal_outside_its_tolerance_is_not_kept(tmp_path):
    target = target_of("t5")
    # The encoder follows its constraint alone; the loss holds the decoder's blocks open.
    encoder = goal_of(target, UNITS, sparsity=0.3, name="encoder", scope=["encoder.*"])
    decoder = goal_of(target, ("block",), sparsity=1 / 3, name="decoder", scope=["decoder.*"])

    def loss(batch, masks):
        held = 0.0 if not masks else 1e4 * (1 - masks["decoder.blocks"]).sum()
        return 0 * target.model(**batch).loss + held, {}

    train = {"epochs": 60, "batch_size": 16, "mask_learning_rate": 0.3, "eval_every": 60}
    with pytest.raises(TrainingError) as caught:
        stage(target, tmp_path, [encoder, decoder], loss=loss, train=train, sparsity_tolerance=0.05).run()
    text = str(caught.value)
    ended = rows_of(tmp_path)[-1]["decoder_sparsity"]
    assert "cofi: the decoder's sparsity ended at 0." in text
    assert "below the target of 0.333333 and outside the tolerance of 0.05, and no evaluation" in text
    assert "the encoder's" not in text
    assert ended < 0.2


def test_goals_that_cannot_be_reached_are_refused_before_training(tmp_path):
    target = target_of("t5")
    goal = goal_of(target, COFI_KINDS, sparsity=0.9)
    training = stage(target, tmp_path, [goal], train={**QUICK, "epochs": 1}, sparsity_tolerance=0.01)
    with pytest.raises(BudgetError, match=r"^cofi: 2 training steps .* sparsity of the model to 0\.9: "):
        training.run()
    assert not (tmp_path / "train.jsonl").exists()


def test_goals_do_not_change_each_others_random_numbers(tmp_path):
    target = target_of("t5")
    encoder = goal_of(target, UNITS, name="encoder", scope=["encoder.*"])
    decoder = goal_of(target, ("block",), name="decoder", scope=["decoder.*"])
    alone = stage(target, tmp_path / "a", [encoder]).masks
    both = stage(target, tmp_path / "b", [encoder, decoder]).masks
    assert list(both.kinds) == [*encoder.masks, *decoder.masks]
    assert all(torch.equal(alone.log_alpha(name), both.log_alpha(name)) for name in encoder.masks)
