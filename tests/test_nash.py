"""NASH's plans, and what it leaves in the model. Loss, keys and errors are in test_nash_*.py beside this."""

from __future__ import annotations

import pytest
import torch
from nash_calls import (
    QUICK,
    SETTLED,
    deep_t5,
    encoder_size,
    rows_of,
    run_nash,
    target_of,
    tensors_of,
)
from toy_task import copy_task

from prunekit.pruning.layers import select_layers
from prunekit.pruning.target import PrunableModel
from prunekit.pruning.verify import verify
from prunekit.training import checkpoints, l0

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

BOTH = pytest.mark.parametrize("name", ["t5", "bart"])
ENCODER_GROUPS = {f"encoder.{i}.{part}" for i in range(3) for part in ("self_attn.heads", "ffn.neurons")}


# The plan


@pytest.mark.slow
@BOTH
def test_the_masks_learn_the_target_and_the_cut_meets_it(tmp_path, name):
    target = target_of(name)
    before = encoder_size(target.model)
    plan = run_nash(target, tmp_path, train=SETTLED, sparsity_warmup=0.5)
    assert rows_of(tmp_path)[-1]["sparsity"] == pytest.approx(0.3, abs=0.01)
    cheapest = 2 * 16 / before if name == "t5" else (2 * 16 + 1) / before
    assert 0.3 <= 1 - encoder_size(target.pruned(plan).model) / before < 0.3 + cheapest


@BOTH
@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.55])
def test_a_snapped_plan_removes_the_budget_to_within_one_unit(tmp_path, name, sparsity):
    target = target_of(name)
    before = encoder_size(target.model)
    plan = run_nash(target, tmp_path, budget={"sparsity": sparsity, "scope": ["encoder.*"]})
    after = encoder_size(target.pruned(plan).model)
    cheapest = 2 * 16 + (name == "bart")
    assert sparsity * before <= before - after < sparsity * before + cheapest


@BOTH
def test_a_plan_names_encoder_units_and_decoder_blocks_only(tmp_path, name):
    target = target_of(name)
    plan = run_nash(target, tmp_path)
    plan.check(target.groups)
    assert plan.keep.keys() == ENCODER_GROUPS | {"decoder.blocks"}
    assert plan.scale.keys() == ENCODER_GROUPS
    assert plan.keep["decoder.blocks"] == (0, 2)


@pytest.mark.parametrize("selection", ["uniform", "uniform-paper", "low", "high"])
@pytest.mark.parametrize("kept", [1, 4])
def test_decoder_blocks_are_those_of_the_rule(tmp_path, selection, kept):
    target = target_of(deep_t5(6))
    plan = run_nash(target, tmp_path, decoder_layers=kept, selection=selection)
    assert plan.keep["decoder.blocks"] == select_layers(6, kept, selection)


def test_sixteen_decoder_blocks_become_three(tmp_path):
    target = target_of(deep_t5(16))
    plan = run_nash(target, tmp_path, decoder_layers=3)
    assert plan.keep["decoder.blocks"] == (0, 7, 15)
    small = target.pruned(plan)
    assert len(small.model.decoder.block) == 3
    verify(target, small, plan, copy_task().collate(copy_task().examples("validation")[:3]))


def test_a_decoder_kept_whole_is_not_in_the_plan(tmp_path):
    assert run_nash(target_of("t5"), tmp_path, decoder_layers=3).keep.keys() == ENCODER_GROUPS


@BOTH
def test_an_unsnapped_plan_rounds_each_group_by_itself(tmp_path, name):
    target = target_of(name)
    plan = run_nash(target, tmp_path, snap_to_budget=False)
    tensors, _ = checkpoints.load_tensors(tmp_path / "checkpoints" / "prune-best.safetensors")
    logits = {key.removeprefix("masks/logits."): t for key, t in tensors.items() if key.startswith("masks/")}
    assert {key.replace("/", ".") for key in logits} == ENCODER_GROUPS
    masks = l0.L0Masks({group: (target.groups[group].size, "neuron") for group in plan.scale})
    masks.load_state_dict({f"logits.{key}": t for key, t in logits.items()})
    soft = masks.deterministic("soft")
    for key, log_alpha in logits.items():
        group = key.replace("/", ".")
        closed = round(len(log_alpha) - float(torch.sigmoid(log_alpha + 1.598597).sum()))
        kept = sorted(log_alpha.argsort(descending=True, stable=True)[: len(log_alpha) - closed].tolist())
        assert plan.keep[group] == tuple(kept) == tuple(soft[group].nonzero().flatten().tolist())
        assert plan.scale[group] == tuple(soft[group][kept].double().tolist())


def test_a_soft_plan_scales_kept_units_by_their_mask_and_a_binary_one_does_not(tmp_path):
    soft = run_nash(target_of("t5"), tmp_path / "soft")
    binary = run_nash(target_of("t5"), tmp_path / "binary", final_mask="binary", validation_limit=4)
    factors = [factor for group in soft.scale.values() for factor in group]
    assert 0 < min(factors) < max(factors) < 0.9961
    assert binary.scale == {}
    assert binary.keep["decoder.blocks"] == (0, 2)
    assert min(len(kept) for kept in binary.keep.values()) > 0


def test_a_narrower_scope_leaves_the_rest_of_the_encoder_whole(tmp_path):
    target = target_of("t5")
    plan = run_nash(target, tmp_path, budget={"sparsity": 0.3, "scope": ["encoder.*.ffn.neurons"]})
    assert plan.scale.keys() == {f"encoder.{i}.ffn.neurons" for i in range(3)}
    assert sum(len(plan.keep[name]) for name in plan.scale) == round(0.7 * 60)


# One seed, one plan


def test_the_same_seed_gives_the_same_plan_and_weights(tmp_path):
    targets = [target_of("t5"), target_of("t5")]
    plans = []
    for index, target in enumerate(targets):
        torch.rand(index + 1)
        plans.append(run_nash(target, tmp_path / str(index), seed=4))
    assert plans[0] == plans[1]
    first, second = (tensors_of(target.model) for target in targets)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_another_seed_gives_another_plan(tmp_path):
    assert run_nash(target_of("t5"), tmp_path / "a", seed=4) != run_nash(
        target_of("t5"), tmp_path / "b", seed=5
    )


def test_an_interrupted_run_ends_with_the_same_plan(tmp_path):
    class Crash(Exception):
        pass

    class FailingTask(type(copy_task())):
        batches_left = 7

        def collate(self, examples):
            self.batches_left -= 1
            if self.batches_left < 0:
                raise Crash
            return super().collate(examples)

    plain = copy_task()
    failing = FailingTask(plain.config, plain.tokenizer)
    options = {"train": {**QUICK, "checkpoint_every": 3}, "sparsity_tolerance": 0.9}
    expected = run_nash(target_of("bart"), tmp_path / "whole", **options)
    with pytest.raises(Crash):
        run_nash(target_of("bart"), tmp_path / "crashed", task=failing, **options)
    assert len(rows_of(tmp_path / "crashed")) == 7
    assert run_nash(target_of("bart"), tmp_path / "crashed", **options) == expected
    assert rows_of(tmp_path / "crashed") == rows_of(tmp_path / "whole")


# What is left in the model


@BOTH
def test_removed_decoder_blocks_stay_byte_equal_and_all_else_is_trained(tmp_path, name):
    target = target_of(name)
    before = tensors_of(target.model)
    run_nash(target, tmp_path)
    after = target.model.state_dict()
    prefix = f"{target.structure.stacks['decoder'].blocks}.1."
    same = {key for key, tensor in after.items() if torch.equal(tensor, before[key])}
    removed = {key for key in after if key.startswith(prefix)}
    # The keys' bias cancels in the softmax, and final_logits_bias is a buffer.
    idle = {key for key in after if key.endswith(("k_proj.bias", "final_logits_bias"))}
    assert removed
    assert same - idle == removed - idle
    assert removed <= same


@BOTH
@pytest.mark.parametrize("selection", ["uniform", "high"])
def test_the_cut_target_is_the_trained_student_under_its_masks(tmp_path, monkeypatch, name, selection):
    students = []
    make = PrunableModel.pruned

    def watched(self, plan):
        students.append(make(self, plan))
        return students[-1]

    monkeypatch.setattr(PrunableModel, "pruned", watched)
    target = target_of(name)
    plan = run_nash(target, tmp_path, selection=selection)
    student = students[0]
    masks = {group: mask for group, mask in plan.masks(target.groups).items() if group in plan.scale}
    batch = copy_task().collate(copy_task().examples("validation")[:4])
    with torch.no_grad():
        cut = target.pruned(plan).model(**batch).logits
        with student.masked(masks):
            trained = student.model.eval()(**batch).logits
        dense = target.model(**batch).logits
    torch.testing.assert_close(cut, trained, rtol=1e-4, atol=1e-4)
    assert (cut - dense).abs().max() > 0.1


@BOTH
def test_the_teacher_is_left_as_it_was(tmp_path, monkeypatch, name):
    teachers = []
    make = PrunableModel.copy

    def watched(self):
        teachers.append(make(self))
        return teachers[-1]

    monkeypatch.setattr(PrunableModel, "copy", watched)
    target = target_of(name)
    before = tensors_of(target.model)
    run_nash(target, tmp_path)
    (teacher,) = teachers
    assert all(torch.equal(tensor, before[key]) for key, tensor in teacher.model.state_dict().items())
    assert [p for p in teacher.model.parameters() if p.grad is not None or p.requires_grad] == []
    assert not teacher.model.training


def test_no_teacher_is_made_where_no_term_needs_one(tmp_path, monkeypatch):
    monkeypatch.setattr(PrunableModel, "copy", None)
    run_nash(target_of("t5"), tmp_path, preset="released")
    with pytest.raises(TypeError):
        run_nash(target_of("t5"), tmp_path / "paper")


@BOTH
@pytest.mark.parametrize("frozen", [True, False])
def test_freeze_embeddings_leaves_the_embedding_byte_equal(tmp_path, name, frozen):
    target = target_of(name)
    before = target.model.get_input_embeddings().weight.detach().clone()
    run_nash(target, tmp_path, freeze_embeddings=frozen)
    assert torch.equal(target.model.get_input_embeddings().weight, before) is frozen
    assert all(parameter.requires_grad for parameter in target.model.parameters())
