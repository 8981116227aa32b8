"""NASH under a latency budget: the shape is settled before anything is trained, then learned."""

from __future__ import annotations

import json

import pytest
from nash_calls import QUICK, rows_of, run_nash, target_of
from pipeline_calls import REGISTRY, quick_recipe, saved_tiny
from stopwatch_calls import FakeStopwatch, chosen, latency, timed_target
from test_nash_errors import refused
from toy_task import copy_task

from prunekit import job, pipeline
from prunekit.errors import BudgetError, RunFolderError
from prunekit.models import load_model
from prunekit.pruning.cost import sparsity
from prunekit.pruning.plan import PruningPlan
from prunekit.pruning.verify import verify

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


# A run


def run(folder, ratio, *, target=None, budget=None, **config):
    """Like ``run_nash``, with the decoder's depth left open; the target comes along."""
    target = target or timed_target()
    config = {"decoder_layers": None, **config}
    budget = {**latency(ratio), **(budget or {})}
    return target, run_nash(target, folder, budget=budget, **config)


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_a_run_ends_with_the_chosen_shape_and_says_what_it_takes(tmp_path, name):
    target, plan = run(tmp_path, 0.75, target=timed_target(name))
    found = plan.achieved["latency"]
    assert plan.keep["decoder.blocks"] == (0, 2)
    assert chosen(found) == (2, found["encoder_sparsity"])
    removed = sparsity(target.parameter_costs(["encoder.*"]), target.structure, plan.keep)
    assert removed == pytest.approx(found["encoder_sparsity"], abs=0.01)
    # The masks chose other widths than an even cut, so the plan has a time of its own.
    assert found["measured"] == pytest.approx(target.stopwatch.share(plan))
    assert found["chosen"] == {
        "within": True,
        **{name: found["tries"][-1][name] for name in ("measured", "low", "high")},
    }
    assert target.stopwatch.timed[-1] == plan.model_copy(update={"achieved": {}})
    verify(target, target.pruned(plan), plan, copy_task().collate(copy_task().examples("validation")[:3]))


def test_the_shape_is_settled_before_anything_is_trained(tmp_path):
    target = timed_target()
    stopwatch = target.stopwatch
    seen = []
    stopwatch.measure = lambda share: (seen.append((tmp_path / "train.jsonl").exists()), share)[1]
    run(tmp_path, 0.75, target=target)
    assert seen == [False, True]


def test_masks_learn_the_chosen_sparsity(tmp_path):
    _, plan = run(tmp_path, 0.75)
    assert rows_of(tmp_path)[-1]["target"] == plan.achieved["latency"]["encoder_sparsity"] == 0.16


def test_the_blocks_may_be_learned(tmp_path):
    _, plan = run(tmp_path, 0.75, selection="auto-blocks")
    assert len(plan.keep["decoder.blocks"]) == plan.achieved["latency"]["decoder_layers"] == 2
    assert rows_of(tmp_path)[-1]["decoder_target"] == pytest.approx(1 / 3)


def test_rounded_widths_are_multiples(tmp_path):
    _, plan = run(tmp_path, 0.75, budget={"round_to": 8})
    for i in range(3):
        assert len(plan.keep.get(f"encoder.{i}.self_attn.heads", range(4))) % 2 == 0
        assert len(plan.keep.get(f"encoder.{i}.ffn.neurons", range(20))) in (0, 8, 16, 20)


def test_an_interrupted_run_goes_on_with_the_shape_that_it_trains(tmp_path):
    class Crash(Exception):
        pass

    class FailingTask(type(copy_task())):
        batches_left = 7

        def collate(self, examples):
            self.batches_left -= 1
            if self.batches_left < 0:
                raise Crash
            return super().collate(examples)

    options = {"train": {**QUICK, "checkpoint_every": 3}, "sparsity_tolerance": 0.9}
    _, expected = run(tmp_path / "whole", 0.75, **options)
    plain = copy_task()
    with pytest.raises(Crash):
        run(tmp_path / "crashed", 0.75, task=FailingTask(plain.config, plain.tokenizer), **options)
    # The machine is busy now: the choice would be another.
    slow = timed_target(measure=lambda share: 1.2 * share)
    _, resumed = run(tmp_path / "crashed", 0.75, target=slow, **options)
    assert (resumed.keep, resumed.scale) == (expected.keep, expected.scale)
    assert resumed.achieved["latency"]["chosen"] == expected.achieved["latency"]["chosen"]
    assert len(slow.stopwatch.timed) == 1


def test_a_damaged_choice_is_told_with_what_to_delete(tmp_path):
    path = tmp_path / "checkpoints" / "prune-shape.json"
    path.parent.mkdir()
    path.write_text("{")
    with pytest.raises(RunFolderError) as caught:
        run(tmp_path, 0.75)
    assert str(caught.value).startswith(f"{path} is damaged: not JSON: line 1, column 2: ")
    assert str(caught.value).endswith("Delete the folder that it is in to choose and train a shape again.")


def test_the_record_is_plain_data(tmp_path):
    _, plan = run(tmp_path, 0.75)
    assert json.loads(json.dumps(plan.achieved)) == plan.achieved


def test_a_recipe_runs_through_and_its_report_has_the_choice(tmp_path, monkeypatch):
    monkeypatch.setattr(job, "MeasuredStopwatch", lambda dense, *_, **__: FakeStopwatch(dense))
    nash = {"sparsity_tolerance": 0.9, "validation_limit": 4}
    recipe = quick_recipe(saved_tiny(tmp_path / "dense"), budget=latency(0.75), methods={"nash": nash})
    report = pipeline.run(recipe, None, tmp_path / "run", registry=REGISTRY)
    found = report["achieved"]["latency"]
    assert (found["target"], found["predicted"], *chosen(found)) == (0.75, 0.75, 2, 0.16)
    assert PruningPlan.load(tmp_path / "run" / "plan.json").achieved["latency"] == found
    assert len(load_model(str(tmp_path / "run" / "model")).decoder.block) == 2


# By parameters


def test_three_decoder_blocks_without_a_latency_to_choose_by(tmp_path):
    target = target_of("t5")
    assert "decoder.blocks" not in run_nash(target, tmp_path, decoder_layers=None).keep
    assert "latency" not in run_nash(target, tmp_path / "2", decoder_layers=2).achieved


# Errors


def refused_latency(folder, ratio=0.75, **options):
    """The message with which a run with a stopwatch is refused; nothing may be left in its folder."""
    target = options.pop("target", None) or timed_target()
    with pytest.raises(BudgetError) as caught:
        run(folder, ratio, target=target, **options)
    assert not folder.exists() or not list(folder.iterdir())
    return str(caught.value), target.stopwatch


def test_learned_sublayers_are_refused(tmp_path):
    text, stopwatch = refused_latency(tmp_path, selection="auto", decoder_layers=2)
    assert text == (
        "nash: with selection: auto it is learned which sublayers of the decoder go, and they differ in "
        "time, so no shape can be chosen before training. Under a latency budget write selection: "
        "auto-blocks, or a rule such as uniform."
    )
    assert stopwatch.timed == []


def test_more_decoder_blocks_than_there_are(tmp_path):
    text, stopwatch = refused_latency(tmp_path, decoder_layers=4)
    assert text == "decoder_layers = 4, but the decoder has 3 blocks; choose between 1 and 3."
    assert stopwatch.timed == []


def test_a_scope_that_names_nothing(tmp_path):
    text, stopwatch = refused_latency(tmp_path, budget={"scope": ["encodr.*"]})
    assert text.startswith("the budget's scope ['encodr.*'] matches no heads or neurons.")
    assert stopwatch.timed == []


def test_steps_that_cannot_reach_the_chosen_sparsity_leave_nothing_behind(tmp_path):
    train = {"epochs": 2, "batch_size": 8, "mask_learning_rate": 0.01}
    text, _ = refused_latency(tmp_path, train=train)
    assert "cannot bring the sparsity of the encoder to 0.16: " in text


def test_a_ratio_out_of_reach_leaves_nothing_behind(tmp_path):
    assert "no shape was found" in refused_latency(tmp_path, 0.2)[0]


def test_widths_that_nothing_would_round(tmp_path):
    text, _ = refused_latency(tmp_path, budget={"round_to": 8}, snap_to_budget=False)
    assert text == (
        "nash: without snap_to_budget each group loses what its own masks amount to, so widths are no "
        "multiples of budget.round_to = 8. Leave out one of the two."
    )


def test_a_latency_that_nothing_measures(tmp_path):
    text = refused(BudgetError, tmp_path, budget=latency(0.6))
    assert text == (
        "nash: a latency budget is chosen by measured times, and nothing here measures them. Run the recipe "
        "with `prunekit prune`, or give PrunableModel a stopwatch."
    )
