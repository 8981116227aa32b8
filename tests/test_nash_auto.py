"""NASH that learns which decoder sublayers or blocks go, instead of choosing blocks by a rule."""

from __future__ import annotations

import pytest
import torch
from nash_calls import QUICK, SETTLED, rows_of, run_nash, target_of, tensors_of
from prunekit_nash.config import NashConfig
from prunekit_nash.loss import StudentLoss
from test_nash_errors import refused
from toy_task import copy_task

from prunekit.errors import BudgetError
from prunekit.pruning.cost import sparsity
from prunekit.pruning.layers import select_layers
from prunekit.pruning.target import PrunableModel
from prunekit.pruning.verify import verify
from prunekit.training import checkpoints
from prunekit.training.distill import record_block_outputs

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

BOTH = pytest.mark.parametrize("name", ["t5", "bart"])
AUTO = pytest.mark.parametrize("selection", ["auto", "auto-blocks"])
UNITS = {f"encoder.{i}.{part}" for i in range(3) for part in ("self_attn.heads", "ffn.neurons")}
SUBLAYERS = {"decoder.self_attn", "decoder.cross_attn", "decoder.ffn"}


def decoder_sparsity(target, plan):
    return sparsity(target.parameter_costs(["decoder.*"]), target.structure, plan.keep)


# The plan


@BOTH
@pytest.mark.parametrize("kept", [1, 2])
def test_learned_blocks_are_as_many_as_asked_and_binary(tmp_path, name, kept):
    target = target_of(name)
    plan = run_nash(target, tmp_path, selection="auto-blocks", decoder_layers=kept)
    assert len(plan.keep["decoder.blocks"]) == kept
    assert plan.scale.keys() == UNITS
    assert plan.keep.keys() == UNITS | {"decoder.blocks"}
    verify(target, target.pruned(plan), plan, copy_task().collate(copy_task().examples("validation")[:3]))


@BOTH
@pytest.mark.parametrize("kept", [1, 2])
def test_learned_sublayers_remove_as_much_as_whole_blocks_would(tmp_path, name, kept):
    target = target_of(name)
    plan = run_nash(target, tmp_path, selection="auto", decoder_layers=kept)
    # BART's biases differ between the kinds of sublayers: off by them at most.
    assert decoder_sparsity(target, plan) == pytest.approx(1 - kept / 3, abs=1e-9 if name == "t5" else 0.02)
    assert plan.keep.keys() == UNITS | SUBLAYERS
    assert plan.scale.keys() == UNITS | SUBLAYERS
    verify(target, target.pruned(plan), plan, copy_task().collate(copy_task().examples("validation")[:3]))


@AUTO
def test_the_encoder_is_narrowed_as_ever(tmp_path, selection):
    target = target_of("t5")
    plan = run_nash(target, tmp_path, selection=selection)
    encoder = sparsity(target.parameter_costs(["encoder.*"]), target.structure, plan.keep)
    assert 0.3 <= encoder < 0.3 + 2 * 16 / 4992


@AUTO
def test_a_binary_plan_scales_nothing(tmp_path, selection):
    assert run_nash(target_of("t5"), tmp_path, selection=selection, final_mask="binary").scale == {}


@AUTO
def test_a_decoder_kept_whole_gets_no_masks(tmp_path, selection):
    plan = run_nash(target_of("t5"), tmp_path, selection=selection, decoder_layers=3)
    assert plan.keep.keys() == UNITS
    assert "sparsity" in rows_of(tmp_path)[0]


@AUTO
@pytest.mark.slow
def test_both_sparsities_are_learned(tmp_path, selection):
    run_nash(target_of("t5"), tmp_path, train={**SETTLED, "epochs": 100}, selection=selection)
    row = rows_of(tmp_path)[-1]
    assert row["encoder_sparsity"] == pytest.approx(0.3, abs=0.01)
    assert row["decoder_sparsity"] == pytest.approx(1 / 3, abs=0.01)
    assert row["decoder_realised_sparsity"] == pytest.approx(1 / 3, abs=1e-9)


# Training


@AUTO
def test_each_stack_has_a_target_and_multipliers_of_its_own(tmp_path, selection):
    run_nash(target_of("t5"), tmp_path, selection=selection)
    rows = rows_of(tmp_path)
    figures = ("sparsity", "target", "lambda_1", "lambda_2")
    names = {f"{stack}_{figure}" for stack in ("encoder", "decoder") for figure in figures}
    assert names <= rows[0].keys()
    assert not set(figures) & rows[0].keys()
    assert (rows[-1]["encoder_target"], rows[-1]["decoder_target"]) == pytest.approx((0.3, 1 / 3))
    assert rows[-1]["encoder_lambda_1"] != rows[-1]["decoder_lambda_1"]
    assert {"encoder_realised_sparsity", "decoder_realised_sparsity"} <= rows[-1].keys()
    for row in rows:
        penalty = sum(
            row[f"{stack}_lambda_1"] * gap + row[f"{stack}_lambda_2"] * gap**2
            for stack in ("encoder", "decoder")
            for gap in [row[f"{stack}_sparsity"] - row[f"{stack}_target"]]
        )
        hidden = 0.001 * (row["encoder_hidden"] + row["decoder_hidden"])
        assert row["loss"] == pytest.approx(row["prediction"] + hidden + penalty, rel=1e-4, abs=1e-5)


def test_a_checkpoint_holds_the_masks_and_both_pairs_of_multipliers(tmp_path):
    run_nash(target_of("t5"), tmp_path, selection="auto-blocks")
    tensors, _ = checkpoints.load_tensors(tmp_path / "checkpoints" / "prune-best.safetensors")
    beside = {name.partition("/")[0] for name in tensors}
    assert beside == {"model", "masks", "encoder_lagrangian", "decoder_lagrangian"}
    assert tensors["masks/logits.decoder/blocks"].shape == (3,)


@AUTO
def test_the_whole_decoder_is_trained_and_left_in_the_target(tmp_path, monkeypatch, selection):
    students = []
    make = PrunableModel.pruned

    def watched(self, plan):
        students.append(make(self, plan))
        return students[-1]

    monkeypatch.setattr(PrunableModel, "pruned", watched)
    target = target_of("t5")
    before = tensors_of(target.model)
    run_nash(target, tmp_path, selection=selection)
    after, student = target.model.state_dict(), students[0].model.state_dict()
    assert all(torch.equal(after[name], student[name]) for name in after)
    assert not any(torch.equal(after[name], before[name]) for name in after if "decoder.block" in name)


@BOTH
def test_hidden_states_of_block_i_are_compared_with_block_i_under_masks(name):
    student, teacher = target_of(name), target_of(name)
    with torch.no_grad():
        for parameter in student.model.parameters():
            parameter += 0.01
    config = NashConfig(selection="auto-blocks", encoder_hidden_weight=0, prediction_weight=0)
    batch = copy_task().collate(copy_task().examples("train")[:4])
    z = {"decoder.blocks": torch.tensor([1.0, 0.0, 0.5])}
    with student.masked(z):
        _, terms = StudentLoss(config, student, teacher, (0, 1, 2))(batch, z)

    def blocks(target):
        return list(target.model.get_submodule(target.structure.stacks["decoder"].blocks).children())

    with (
        torch.no_grad(),
        record_block_outputs(blocks(teacher)) as theirs,
        record_block_outputs(blocks(student)) as ours,
    ):
        teacher.model(**batch)
        with student.masked(z):
            student.model(**batch)
    torch.testing.assert_close(ours[1], ours[0])  # block 1 is closed: its output is its input
    counted = batch["labels"] != -100
    expected = sum((a - b)[counted].square().mean() for a, b in zip(ours, theirs, strict=True))
    assert terms["decoder_hidden"].item() == pytest.approx(expected.item(), rel=1e-4)


@AUTO
def test_the_same_seed_gives_the_same_plan(tmp_path, selection):
    plans = [
        run_nash(target_of("bart"), tmp_path / str(run), seed=6, selection=selection) for run in range(2)
    ]
    assert plans[0] == plans[1]


@AUTO
def test_an_interrupted_run_ends_with_the_same_plan(tmp_path, selection):
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
    options = {
        "train": {**QUICK, "checkpoint_every": 3},
        "sparsity_tolerance": 0.9,
        "selection": selection,
    }
    expected = run_nash(target_of("t5"), tmp_path / "whole", **options)
    failing = FailingTask(plain.config, plain.tokenizer)
    with pytest.raises(Crash):
        run_nash(target_of("t5"), tmp_path / "crashed", task=failing, **options)
    assert run_nash(target_of("t5"), tmp_path / "crashed", **options) == expected
    assert rows_of(tmp_path / "crashed") == rows_of(tmp_path / "whole")


# Errors


@AUTO
def test_more_decoder_blocks_than_there_are(tmp_path, selection):
    with pytest.raises(BudgetError) as expected:
        select_layers(3, 4)
    assert refused(BudgetError, tmp_path, decoder_layers=4, selection=selection) == str(expected.value)
