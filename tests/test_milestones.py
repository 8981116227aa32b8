"""Milestones: one training of masks leaves models of several sparsities, and is not changed by it."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from nash_calls import BUDGET, QUICK, rows_of, target_of, tensors_of
from prunekit_cofi.config import CofiConfig
from prunekit_cofi.method import Cofi
from prunekit_nash.config import NashConfig
from prunekit_nash.method import Nash
from pydantic import ValidationError
from toy_task import copy_task

from prunekit.errors import BudgetError, CheckpointError
from prunekit.learned.config import LearnedMasksConfig
from prunekit.learned.milestones import Milestone, label, milestones, missed_warnings
from prunekit.pruning.cost import sparsity
from prunekit.pruning.verify import verify
from prunekit.recipe import BudgetSpec, TrainSpec
from prunekit.training import checkpoints
from prunekit.training.loop import Trainer

pytestmark = pytest.mark.usefixtures("module_on_one_thread")

# Of QUICK's ten steps the target rises within eight, from 0.0646 to 0.3.
PASSED = (0.15, 0.2)
SETTINGS = {
    "nash": (Nash, NashConfig, {"decoder_layers": 2, "initial_lambda_2": 1e4}, BUDGET),
    "cofi": (Cofi, CofiConfig, {"layer_weight": 0.1}, {"sparsity": 0.3}),
}
STATE = "checkpoints/prune-0.20.safetensors"


class Crash(Exception):
    """What stops a run."""


class Crashing(Trainer):
    """Stops dead after an update, before anything of it is kept."""

    stop = None

    def fit(self, *arguments, after_step, **options):
        def stopping(step):
            after_step(step)
            if step == self.stop:
                raise Crash

        return super().fit(*arguments, after_step=stopping, **options)


def run(folder, *, method="nash", stop=None, milestone=None, budget=None, train=QUICK, **keys):
    """The target with the weights that the method leaves, its plan, and the trainer."""
    made, config, own, usual = SETTINGS[method]
    settings = config(**{"validation_limit": 4, "sparsity_tolerance": 0.1, **own, **keys})
    trainer = Crashing(folder, TrainSpec(**{**train, "checkpoint_every": 4}), seed=0)
    trainer.stop, trainer.milestone = stop, milestone
    target = target_of("t5")
    plan = made(settings).plan(target, copy_task(), BudgetSpec(**(budget or usual)), trainer)
    return target, plan, trainer


@pytest.fixture(scope="module", params=["nash", "cofi"])
def passed(tmp_path_factory, request, module_on_one_thread):
    """Method, folder, target, plan and trainer of a run with two milestones."""
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, folder, *run(folder, method=request.param, save_at=PASSED)


def same_state(path, other):
    """Whether two states hold the same bits; the order of what their headers note is up to safetensors."""
    (own, facts), (others, theirs) = checkpoints.load_tensors(path), checkpoints.load_tensors(other)
    return facts == theirs and own.keys() == others.keys() and all(own[n].equal(others[n]) for n in own)


def removed(target, plan, budget):
    costs = target.parameter_costs(budget.get("scope", ()))
    return sparsity(costs, target.structure, plan.keep)


@pytest.mark.parametrize(
    ("save_at", "problem"),
    [
        ([0.5, 0.3], "each must be higher than the one before it, such as [0.3, 0.5, 0.7]"),
        ([0.3, 0.3], "each must be higher than the one before it"),
        ([0.0], "greater than 0"),
        ([1.0], "less than 1"),
    ],
)
def test_milestones_are_shares_in_rising_order(save_at, problem):
    with pytest.raises(ValidationError) as caught:
        LearnedMasksConfig(save_at=save_at)
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("sparsity", "name"), [(0.3, "0.30"), (0.25, "0.25"), (0.125, "0.125"), (0.001, "0.001")]
)
def test_a_milestone_is_named_by_two_digits_or_by_all_that_it_has(sparsity, name):
    assert label(sparsity) == name


def test_a_milestone_off_the_way_is_refused_before_anything_is_trained(tmp_path):
    with pytest.raises(BudgetError) as caught:
        run(tmp_path, save_at=(0.05, 0.2, 0.3))
    assert str(caught.value) == (
        "nash: save_at = 0.05, 0.3 is not on the way of this run, in which the target for the sparsity of "
        "the encoder rises from 0.0646 to 0.3. Write sparsities between these two; the last one is the run's "
        "own and needs no milestone."
    )
    assert list(tmp_path.iterdir()) == []


def test_milestones_of_several_goals_are_refused(tmp_path):
    with pytest.raises(BudgetError, match="learns those of encoder and decoder side by side"):
        run(tmp_path, save_at=PASSED, selection="auto", decoder_layers=1)


def test_milestones_under_a_latency_budget_are_refused(tmp_path):
    budget = {"metric": "latency", "ratio": 0.6, "scope": ["encoder.*"]}
    with pytest.raises(BudgetError, match="a latency budget chooses that by time"):
        run(tmp_path, budget=budget, save_at=PASSED)


def test_training_does_not_change_because_of_milestones(tmp_path, passed):
    method, folder, target, plan, _ = passed
    plain, alone, _ = run(tmp_path, method=method)
    assert (alone.keep, alone.scale) == (plan.keep, plan.scale)
    own = tensors_of(plain.model)
    assert all(torch.equal(own[name], tensor) for name, tensor in tensors_of(target.model).items())
    rows = [{k: v for k, v in row.items() if not k.startswith("milestone")} for row in rows_of(folder)]
    assert rows == rows_of(tmp_path)


def test_a_milestone_is_kept_at_the_first_step_that_meets_it_after_its_target_has_passed(passed):
    _, folder, _, _, trainer = passed
    rows = rows_of(folder)
    # A row has target and sparsity before its update.
    meets = [
        row["step"]
        for row, after in pairwise(rows)
        if after["target"] >= 0.2 and after["sparsity"] >= 0.2 - 0.1
    ]
    assert checkpoints.load_facts(folder / STATE) == {"step": meets[0], "sparsity": 0.2}
    told = trainer.milestones[1]
    assert (told["sparsity"], told["met"], told["step"]) == (0.2, True, meets[0])
    assert told["reached"] == pytest.approx(rows[meets[0]]["sparsity"])


def test_a_milestone_is_cut_within_one_unit_of_itself_and_the_cut_model_is_the_masked_one(passed):
    method, folder, _, final, _ = passed
    budget = SETTINGS[method][3]
    target, plan, _ = run(folder, method=method, milestone=0.2, save_at=PASSED)
    verify(target, target.pruned(plan), plan, copy_task().collate(copy_task().examples("validation")[:3]))
    assert 0.2 <= removed(target, plan, budget) < 0.22
    assert removed(target, final, budget) >= 0.3


def test_a_milestone_has_the_weights_of_its_step(passed):
    method, folder, trained, _, _ = passed
    target, _, _ = run(folder, method=method, milestone=0.2, save_at=PASSED)
    kept, _ = checkpoints.load_tensors(folder / STATE)
    name = "encoder.block.0.layer.0.SelfAttention.q.weight"
    stored = kept[f"model/{'model.' if method == 'cofi' else ''}{name}"]
    assert torch.equal(target.model.state_dict()[name], stored)
    assert not torch.equal(trained.model.state_dict()[name], stored)


# Checkpoints are written every fourth step: before a milestone, behind one that is newer than the
# checkpoint, behind both, and twice.
@pytest.mark.parametrize("stops", [(2,), (6,), (7,), (9,), (3, 8)])
def test_a_run_that_crashed_ends_with_the_same_milestones_bit_for_bit(tmp_path, passed, stops):
    method, folder, _, plan, trainer = passed
    for stop in stops:
        with pytest.raises(Crash):
            run(tmp_path, method=method, stop=stop, save_at=PASSED)
    _, again, resumed = run(tmp_path, method=method, save_at=PASSED)
    assert (again.keep, again.scale) == (plan.keep, plan.scale)
    assert resumed.milestones == trainer.milestones
    for name in (STATE, "checkpoints/prune-0.15.safetensors"):
        assert same_state(tmp_path / name, folder / name)


def test_a_milestone_newer_than_the_checkpoint_is_kept_anew(tmp_path, passed):
    method, folder, *_ = passed
    with pytest.raises(Crash):
        run(tmp_path, method=method, stop=2, save_at=PASSED)
    (tmp_path / "checkpoints").mkdir(exist_ok=True)
    (tmp_path / STATE).write_bytes(b"of steps that are lost")
    run(tmp_path, method=method, save_at=PASSED)
    assert same_state(tmp_path / STATE, folder / STATE)


def test_a_milestone_that_is_not_met_is_told_and_the_run_finishes(tmp_path, monkeypatch):
    met = "prunekit.learned.milestones.is_met"
    monkeypatch.setattr(met, lambda milestone, reached, config: milestone == 0.2)
    _, plan, trainer = run(tmp_path, save_at=PASSED)
    assert [(each["sparsity"], each["met"]) for each in trainer.milestones] == [(0.15, False), (0.2, True)]
    assert sum("the milestone 0.15 was not met" in warning for warning in trainer.warnings) == 1
    assert plan.keep
    assert not (tmp_path / "checkpoints" / "prune-0.15.safetensors").exists()


def test_without_snapping_a_milestone_is_met_where_its_cut_is_within_the_tolerance(tmp_path):
    target, plan, trainer = run(tmp_path, snap_to_budget=False, save_at=[0.2])
    [told] = trainer.milestones
    target, plan, _ = run(tmp_path, snap_to_budget=False, save_at=[0.2], milestone=0.2)
    assert told["met"]
    assert abs(told["reached"] - 0.2) <= 0.1
    assert removed(target, plan, BUDGET) == pytest.approx(told["reached"])


def test_the_nearest_step_of_a_milestone_that_was_not_met_is_told_with_its_distance():
    config = LearnedMasksConfig(save_at=[0.3], snap_to_budget=False)
    steps = {4: 0.21, 5: 0.27, 6: 0.35}
    rows = [{"stage": "prune", "step": step, "milestone_0.30": found} for step, found in steps.items()]
    fared = milestones([*rows, {"stage": "recover", "step": 1}], config)
    assert fared == [Milestone(0.3, met=False, step=5, reached=0.27)]
    assert missed_warnings(fared, config) == [
        "the milestone 0.3 was not met, and no model is saved for it: the nearest after its target had "
        "passed it was 0.2700 at step 5, 0.0300 below it and outside the tolerance of 0.01. With "
        "snap_to_budget the cut meets it to one unit"
    ]


def test_a_milestone_of_which_the_log_says_nothing_was_not_met():
    config = LearnedMasksConfig(save_at=[0.3])
    fared = milestones([], config)
    assert fared == [Milestone(0.3, met=False, step=None, reached=None)]
    assert "no step came near it" in missed_warnings(fared, config)[0]


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda path: path.unlink(), "prune-0.20.safetensors is missing from "),
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), "prune-0.20.safetensors cannot be read ("),
        (
            lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\x01"),
            "prune-0.20.safetensors cannot be read (its content is not what was written).",
        ),
    ],
)
def test_a_lost_state_is_named_with_what_brings_it_back(tmp_path, damage, problem):
    run(tmp_path, save_at=[0.2])
    damage(tmp_path / STATE)
    with pytest.raises(CheckpointError) as caught:
        run(tmp_path, milestone=0.2, save_at=[0.2])
    said = str(caught.value)
    assert said.startswith(f"the state of the milestone 0.2 is lost: {problem}")
    assert said.endswith(
        " To train again up to it, delete prune-last.safetensors beside it, with verify.json, and give the "
        "same command; or bring the file back."
    )
