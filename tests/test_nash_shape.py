"""Which shape NASH chooses for a latency budget, and what it says of its choice."""

from __future__ import annotations

import logging

import pytest
from nash_calls import target_of
from prunekit_nash.config import NashConfig
from prunekit_nash.latency import Shape, TimedChoice, Try, next_shape, shape_plan
from stopwatch_calls import chosen, latency, timed_target

from prunekit.errors import BudgetError
from prunekit.latency.meet import TRIES
from prunekit.pruning.cost import sparsity
from prunekit.pruning.stopwatch import Measured
from prunekit.recipe import BudgetSpec

pytestmark = pytest.mark.usefixtures("one_thread")


def choose(target, folder, ratio, **config):
    """The record of the choice."""
    budget = BudgetSpec(**latency(ratio))
    return TimedChoice.kept_or_made(target, NashConfig(**config), budget, folder).record


# Which shape


# Rows by decoder blocks: 20 ms a block, 1 ms for each hundredth of the encoder up to three.
GRID = {Shape(d, s / 100): (40 + 20 * d - s) / 100 for d in (1, 2, 3) for s in range(4)}


@pytest.mark.parametrize(
    ("ratio", "shape"),
    [
        (1.0, (3, 0.0)),
        (0.99, (3, 0.01)),
        (0.97, (3, 0.03)),
        (0.85, (2, 0.0)),
        (0.79, (2, 0.01)),
        (0.60, (1, 0.0)),
        (0.58, (1, 0.02)),
    ],
)
def test_the_deepest_decoder_that_is_fast_enough_with_the_widest_encoder(ratio, shape):
    assert next_shape(GRID, [], ratio) == Shape(*shape)


def test_a_depth_that_misses_by_less_than_the_tolerance_is_taken_at_its_fastest():
    assert next_shape(GRID, [], 0.95) == Shape(3, 0.03)  # 0.97 is 2.1 % above
    assert next_shape(GRID, [], 0.94) == Shape(2, 0.0)  # 3.2 % above


def test_the_fastest_shape_where_none_is_fast_enough():
    assert next_shape(GRID, [], 0.2) == Shape(1, 0.03)


def tried(layers, share, measured):
    shape = Shape(layers, share)
    return Try(shape, GRID[shape], Measured(measured, measured, measured))


def test_a_measurement_corrects_its_own_depth_and_the_others():
    # 10 % slower than predicted: two blocks take 0.88 to 0.847, one block 0.66 to 0.627.
    slower = [tried(2, 0.0, 0.88)]
    assert next_shape(GRID, slower, 0.87) == Shape(2, 0.01)
    assert next_shape(GRID, slower, 0.65) == Shape(1, 0.01)


def test_a_depth_that_was_measured_itself_is_not_corrected_by_another():
    both = [tried(2, 0.03, 0.77 * 1.2), tried(1, 0.0, 0.6 * 0.9)]
    assert next_shape(GRID, both, 0.56) == Shape(1, 0.0)
    assert next_shape(GRID, both, 0.95) == Shape(2, 0.01)


def test_between_two_depths_that_were_measured_the_correction_is_linear():
    # Factors 1.2 and 1: two blocks take 1.1 times what is predicted, 0.88 to 0.847.
    ends = [tried(1, 0.0, 0.6 * 1.2), tried(3, 0.0, 1.0)]
    assert next_shape(GRID, ends, 0.885) == Shape(2, 0.0)
    assert next_shape(GRID, ends, 0.87) == Shape(2, 0.01)


def test_between_two_measurements_of_a_depth_the_correction_is_linear():
    # Factors 1 at 0 and 1.03 at 0.03: 0.8, 0.79 * 1.01, 0.78 * 1.02, 0.77 * 1.03 = 0.7931.
    ends = [tried(2, 0.0, 0.8), tried(2, 0.03, 0.77 * 1.03)]
    assert next_shape(GRID, ends, 0.796) == Shape(2, 0.02)


# The shape as a plan


def test_units_are_cut_evenly_and_rounding_is_passed_on():
    target = target_of("t5")
    keep = shape_plan(target, Shape(2, 0.25), BudgetSpec(**latency(0.5))).keep
    assert {name: len(kept) for name, kept in keep.items()} == {
        **{f"encoder.{i}.self_attn.heads": 3 for i in range(3)},
        **{f"encoder.{i}.ffn.neurons": 15 for i in range(3)},
        "decoder.blocks": 2,
    }
    # 0.3 of 4 heads is 1.2: one goes of each, and what was left over would be a fourth at 0.3 * 12 = 3.6.
    keep = shape_plan(target, Shape(3, 0.3), BudgetSpec(**latency(0.5))).keep
    assert [len(keep[f"encoder.{i}.self_attn.heads"]) for i in range(3)] == [3, 3, 2]
    assert sum(20 - len(keep[f"encoder.{i}.ffn.neurons"]) for i in range(3)) == 18


def test_an_even_cut_removes_its_share_of_the_encoder():
    target = target_of("bart")
    for share in (0.1, 0.3, 0.6):
        plan = shape_plan(target, Shape(3, share), BudgetSpec(**latency(0.5)))
        removed = sparsity(target.parameter_costs(["encoder.*"]), target.structure, plan.keep)
        assert removed == pytest.approx(share, abs=0.05)


def test_nothing_to_remove_is_an_empty_plan():
    assert shape_plan(target_of("t5"), Shape(3, 0.0), BudgetSpec(**latency(1))).keep == {}


def test_only_what_is_in_scope_is_cut():
    budget = BudgetSpec(**latency(0.5, scope=["encoder.*.ffn.neurons"]))
    keep = shape_plan(target_of("t5"), Shape(1, 0.5), budget).keep
    assert keep.keys() == {*(f"encoder.{i}.ffn.neurons" for i in range(3)), "decoder.blocks"}


def test_widths_are_rounded_where_the_budget_says_so():
    # Heads are 4 wide, so two go together; neurons go in eights, or stay all 20.
    budget = BudgetSpec(**latency(0.5, round_to=8))
    keep = shape_plan(target_of("t5"), Shape(3, 0.3), budget).keep
    kept = {name: len(indices) for name, indices in keep.items()}
    assert all(count % (2 if name.endswith("heads") else 8) == 0 for name, count in kept.items())
    assert kept


# Choose, measure, correct


def test_a_right_prediction_needs_one_measurement(tmp_path):
    # Two decoder blocks take 80; 2 heads and 10 neurons less, 75. At 0.15 it is a neuron less.
    target = timed_target()
    record = choose(target, tmp_path, 0.75)
    assert chosen(record) == (2, 0.16)
    assert (record["target"], record["predicted"], record["measured"]) == (0.75, 0.75, 0.75)
    assert (record["low"], record["high"]) == (0.74, 0.76)
    assert len(target.stopwatch.timed) == 1
    assert record["tries"] == [
        {
            "decoder_layers": 2,
            "encoder_sparsity": 0.16,
            "predicted": 0.75,
            "measured": 0.75,
            "low": 0.74,
            "high": 0.76,
        }
    ]


def test_a_measurement_that_differs_corrects_the_encoders_share(tmp_path):
    # All takes 5 % longer than predicted, so 0.75 needs a prediction of 0.714. At 0.3, 4 heads and 18 neurons
    # less are 0.706; at 0.29 one head and one neuron more are 0.719.
    record = choose(timed_target(measure=lambda share: 1.05 * share), tmp_path, 0.75)
    assert [one["encoder_sparsity"] for one in record["tries"]] == [0.16, 0.3]
    assert chosen(record) == (2, 0.3)
    assert (record["predicted"], record["measured"]) == pytest.approx((0.706, 0.7413))
    assert record["within"]


@pytest.mark.parametrize("ratio", [0.6, 0.75, 0.9, 1.0])
@pytest.mark.parametrize("power", [0.8, 1.3])
def test_times_that_do_not_add_up_are_met_within_the_tolerance_or_undercut(tmp_path, ratio, power):
    record = choose(timed_target(measure=lambda share: share**power), tmp_path, ratio)
    assert record["measured"] <= 1.03 * ratio
    assert len(record["tries"]) <= TRIES
    layers, share = chosen(record)
    if record["measured"] < 0.97 * ratio:
        # Too fast only where a block more is too slow with all that may go of the encoder.
        assert share == 0
        target = timed_target()
        deeper = shape_plan(target, Shape(layers + 1, 0.3), BudgetSpec(**latency(ratio)))
        assert target.stopwatch.share(deeper) ** power > 1.03 * ratio


def test_a_shallower_decoder_after_all_where_measuring_shows_the_deeper_one_too_slow(tmp_path, caplog):
    # Predicted for two blocks: 0.71 with 0.3 of the encoder gone; it would measure 0.781.
    caplog.set_level(logging.INFO)
    record = choose(timed_target(measure=lambda share: 1.1 * share), tmp_path, 0.71)
    assert chosen(record) == (1, 0.0)
    assert record["measured"] == pytest.approx(0.66)
    assert not record["within"]
    assert [one["decoder_layers"] for one in record["tries"]] == [2, 1]
    assert caplog.messages[-1] == (
        "nash: 1 decoder block and 0% of the encoder removed: chosen at 0.660 [0.650, 0.670] of the dense "
        "model's time, 7.0% faster than the 0.71 asked for: no deeper decoder is predicted to be fast "
        "enough, even with max_encoder_sparsity (0.3) of the encoder removed."
    )
    assert caplog.records[-1].levelname == "WARNING"


def test_a_choice_that_noise_may_have_made_says_so(tmp_path, caplog):
    target = timed_target(measure=lambda share: 1.1 * share)
    target.stopwatch.off = 0.05
    choose(target, tmp_path, 0.71)
    assert caplog.messages[-1].endswith(
        "of the encoder removed. The intervals are wider than what is looked for, so the choice may be "
        "chance: raise speed.rounds, or keep other work off this machine."
    )


def test_decoder_layers_that_are_stated_stand(tmp_path, caplog):
    assert chosen(choose(timed_target(), tmp_path, 0.9, decoder_layers=3, max_encoder_sparsity=0.5))[0] == 3
    record = choose(timed_target(), tmp_path, 0.9, decoder_layers=2)
    assert chosen(record) == (2, 0.0)
    assert caplog.messages[-1].endswith(
        "11.1% faster than the 0.9 asked for: with these decoder_layers nothing of the encoder need go."
    )


def test_the_bound_on_the_encoder_is_a_key(tmp_path):
    assert chosen(choose(timed_target(), tmp_path, 0.7)) == (2, 0.3)
    assert chosen(choose(timed_target(), tmp_path, 0.65, max_encoder_sparsity=0.6))[0] == 2
    assert chosen(choose(timed_target(), tmp_path, 0.77, max_encoder_sparsity=0.0)) == (1, 0.0)


def test_the_whole_model_is_not_thought_faster_for_what_was_measured_of_a_shallower_one(tmp_path):
    record = choose(timed_target(measure=lambda share: 0.8 * share), tmp_path, 0.85)
    assert record["tries"][0]["decoder_layers"] == 2
    assert (3, 0.0) not in [chosen(one) for one in record["tries"]]


def test_a_ratio_out_of_reach_names_the_smallest(tmp_path):
    # One block, 4 of 12 heads and 18 of 60 neurons gone: 60 - 4 - 5.4.
    target = timed_target()
    with pytest.raises(BudgetError) as caught:
        choose(target, tmp_path, 0.3)
    assert str(caught.value) == (
        "nash: no shape was found that has a latency ratio of 0.3: the smallest of 1 measured is 0.506 "
        "[0.496, 0.516], with 1 decoder block and 30% of the encoder removed. Ask for a budget.ratio of "
        "0.506 or more, or let more of the encoder go (max_encoder_sparsity, now 0.3)."
    )


def test_stated_decoder_layers_that_are_out_of_reach_say_so(tmp_path):
    with pytest.raises(BudgetError) as caught:
        choose(timed_target(), tmp_path, 0.5, decoder_layers=2)
    assert str(caught.value).endswith(
        "with 2 decoder blocks and 30% of the encoder removed. Ask for a budget.ratio of 0.706 or more, or "
        "keep fewer decoder_layers (now 2; left out, they are chosen), or let more of the encoder go "
        "(max_encoder_sparsity, now 0.3)."
    )


def test_a_ratio_that_is_only_predicted_to_be_out_of_reach_is_measured(tmp_path):
    record = choose(timed_target(measure=lambda share: 0.8 * share), tmp_path, 0.42)
    assert record["measured"] == pytest.approx(0.42, rel=0.03)


def test_a_machine_that_says_something_else_each_time_is_asked_no_more_than_six_times(tmp_path):
    noise = iter([1.3, 0.7] * 10)
    target = timed_target(measure=lambda share: share * next(noise))
    record = choose(target, tmp_path, 0.8)
    assert len(target.stopwatch.timed) == len(record["tries"]) <= TRIES
    assert record["measured"] <= 0.8 * 1.03
