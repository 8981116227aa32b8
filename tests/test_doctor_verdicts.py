"""Verdicts on figures worked by hand."""

from __future__ import annotations

import pytest
from doctor_calls import row

from prunekit.doctor import says, verdicts


def ladder(**times):
    """Rows of the model at batches, three equal samples each: ``b8=20`` is 20 ms at batch 8."""
    return [
        {"batch": int(name[1:]), "median_ms": ms, "samples_ms": [float(ms)] * 3} for name, ms in times.items()
    ]


def narrow(batch, verdict):
    return {"batch": batch, "narrow": {"verdict": verdict}}


# Overhead or compute


def test_doubling_costs_are_ratios_of_times_and_say_what_share_is_fixed():
    # 6 ms + 1 ms an example: 10 ms at 4, 14 ms at 8, 22 ms at 16.
    found = verdicts.doublings(ladder(b4=10, b8=14, b16=22), seed=0)
    assert [(pair["batch"], pair["ratio"]) for pair in found] == [
        (4, pytest.approx(1.4)),
        (8, pytest.approx(22 / 14)),
    ]
    assert found[0]["fixed_share"] == pytest.approx(6 / 10)
    assert found[1]["fixed_share"] == pytest.approx(6 / 14)


def test_batches_that_were_not_measured_make_no_pair():
    rows = [*ladder(b4=10, b6=12), {"batch": 8, "error": "out of memory"}]
    assert verdicts.doublings(rows, seed=0) == []


@pytest.mark.parametrize(
    ("after", "verdict"),
    [(10, "overhead-bound"), (12.9, "overhead-bound"), (13, "mixed"), (16.9, "mixed"), (17, "compute-bound")],
)
def test_thresholds_of_the_bound(after, verdict):
    pairs = verdicts.doublings(ladder(b1=10, b2=after), seed=0)
    found = verdicts.bound(pairs, 1)
    assert (found["verdict"], found["sure"]) == (verdict, True)


def test_an_interval_over_a_threshold_is_not_sure():
    pair = {"batch": 4, "ratio": 1.2, "low": 1.1, "high": 1.5, "fixed_share": 0.8}
    assert verdicts.bound([pair], 4) == {**pair, "verdict": "overhead-bound", "sure": False}


def test_half_the_batch_stands_in_where_the_double_was_not_measured():
    pairs = verdicts.doublings(ladder(b1=10, b2=11, b4=20), seed=0)
    assert verdicts.bound(pairs, 4)["batch"] == 2
    assert verdicts.bound(pairs, 64) == {"verdict": "not known", "sure": False}


# Width


def test_width_matters_from_the_smallest_batch_where_half_the_neurons_is_faster():
    rows = [narrow(1, "no difference"), narrow(2, "slower"), narrow(4, "faster"), narrow(8, "faster")]
    assert verdicts.width_from(rows) == 4
    assert verdicts.width_from(rows[:2]) is None
    assert verdicts.width_from([{"batch": 8, "error": "out of memory"}]) is None


# Dominant factor


def test_the_dominant_factor_is_the_cut_with_the_largest_gain_beyond_the_noise():
    rows = [
        row("encoder depth", "cut", 1.1, 1.05, 1.15, "faster"),
        row("decoder depth", "cut", 1.6, 1.5, 1.7, "faster"),
        row("bf16", "setting", 3.0, 2.9, 3.1, "faster"),
        {"name": "heads", "kind": "cut", "error": "out of memory"},
    ]
    found = verdicts.dominant(rows)
    assert (found["name"], found["clear"]) == ("decoder depth", True)


def test_a_larger_gain_inside_the_noise_is_not_dominant():
    rows = [
        row("encoder depth", "cut", 1.3, 0.8, 2.1, "no difference"),
        row("decoder depth", "cut", 1.2, 1.15, 1.25, "faster"),
    ]
    found = verdicts.dominant(rows)
    assert (found["name"], found["clear"]) == ("decoder depth", False)


def test_nothing_dominates_where_no_cut_gains():
    assert verdicts.dominant([row("decoder depth", "cut", 1.3, 0.8, 2.1, "no difference")]) is None
    assert verdicts.dominant([row("bf16", "setting", 2.0, 1.9, 2.1, "faster")]) is None


def test_experiments_are_ordered_by_gain_and_the_unmeasured_come_last():
    failed = {"name": "c", "kind": "cut", "error": "out of memory"}
    rows = [failed, row("a", "cut", 0.9, 0.8, 1.0, "no difference"), row("b", "cut", 2, 1.9, 2.1, "faster")]
    assert [entry["name"] for entry in verdicts.ranked(rows)] == ["b", "a", "c"]


@pytest.mark.parametrize(
    ("ratio", "low", "high", "gain", "verdict"),
    [
        (1.25, 1.2, 1.6, 1.6, "faster"),
        (1.9, 1.85, 1.98, 2 / 1.9, "no difference"),
        (2.5, 2.4, 2.6, 0.8, "slower"),
    ],
)
def test_twice_the_batch_gains_examples_a_second(ratio, low, high, gain, verdict):
    pair = {"batch": 4, "ratio": ratio, "low": low, "high": high}
    found = verdicts.larger_batch(pair, {"speedup_low": 0.95, "speedup_high": 1.05})
    assert found["speedup"] == pytest.approx(gain)
    assert (found["speedup_low"], found["speedup_high"]) == pytest.approx((2 / high, 2 / low))
    assert (found["verdict"], found["how"]) == (verdict, ["speed: {batch_size: 8}"])


# Parts


def timed(call, **parts):
    return {"median_ms": call, "parts": {part: {"median_ms": ms} for part, ms in parts.items()}}


def test_parts_that_were_timed_are_shares_of_the_call():
    entry = timed(20.0, encoder=4.0, decoder=10.0, lm_head=1.0, rest=5.0, natural=9.0, per_token=2.0)
    rows = verdicts.time_shares(entry)
    assert {entry["part"]: entry["share"] for entry in rows} == pytest.approx(
        {"encoder": 0.2, "decoder": 0.5, "lm_head": 0.05, "rest": 0.25}
    )
    assert not any(entry["estimated"] for entry in rows)


def test_blocks_are_estimated_from_what_a_share_of_them_saves_in_a_forward_call():
    # 2 of 6 blocks gone save 3 of 12 ms, so all 6 take 9 ms.
    cut = row("encoder depth", "cut", 1.33, 1.3, 1.4, "faster", saved_ms=3.0) | {"left": 4 / 6}
    rows = verdicts.time_shares({"median_ms": 12.0}, [cut])
    assert [(entry["part"], entry["ms"], entry["estimated"]) for entry in rows] == [
        ("encoder blocks", pytest.approx(9.0), True),
        ("embeddings, head and rest", pytest.approx(3.0), True),
    ]


def test_nothing_is_estimated_from_a_saving_inside_the_noise():
    cut = row("encoder depth", "cut", 1.33, 0.9, 1.4, "no difference", saved_ms=3.0)
    assert verdicts.time_shares({"median_ms": 12.0}, [cut]) == []


DENSE = timed(20.0, encoder=4.0, decoder=10.0, lm_head=1.0, rest=5.0)
PRUNED = timed(14.0, encoder=3.0, decoder=5.0, lm_head=1.0, rest=5.0)


def run(dense=DENSE, pruned=PRUNED, **changes):
    parts = verdicts.removed_time(verdicts.time_shares(dense), verdicts.time_shares(pruned))
    before, after = dense["median_ms"], pruned["median_ms"]
    ratio = before / after
    return {
        "speedup": ratio,
        "speedup_low": ratio - 0.05,
        "speedup_high": ratio + 0.05,
        "verdict": "faster",
        "dense_ms": before,
        "pruned_ms": after,
        "parts": parts,
        "outside": verdicts.outside(parts),
        "kept": [
            {"stack": "encoder", "block": [6, 6], "head": [24, 12], "neuron": [60, 30]},
            {"stack": "decoder", "block": [6, 3], "head": [48, 24], "neuron": [60, 30]},
        ],
        "parameters": [1000, 600],
        "macs": [1000, 500],
        **changes,
    }


def test_removed_time_is_shared_out_over_the_parts():
    shares = {entry["part"]: entry["removed_share"] for entry in run()["parts"]}
    assert shares == pytest.approx({"encoder": 1 / 6, "decoder": 5 / 6, "lm_head": 0.0, "rest": 0.0})


def test_what_no_cut_reaches_limits_the_speedup():
    outside = run()["outside"]
    assert outside == pytest.approx({"dense_share": 6 / 20, "pruned_share": 6 / 14, "limit": 20 / 6})
    assert verdicts.outside([]) is None


def test_a_stack_with_much_of_the_time_and_all_its_blocks_is_named():
    kept = [{"stack": "encoder", "block": [6, 6]}, {"stack": "decoder", "block": [6, 6]}]
    assert verdicts.whole_stacks(run()["parts"], kept) == ["decoder"]
    assert verdicts.whole_stacks(run()["parts"], run()["kept"]) == []


# Sentences

BOUND = {"verdict": "mixed", "batch": 8}
CPU = {"device": "cpu"}


def test_the_paragraph_on_a_faster_run_says_where_its_time_went_and_where_it_ends():
    text = says.why(run(), BOUND, CPU)
    assert text.startswith(
        "The pruned model is 1.43x [1.38, 1.48] as fast as the dense one (20.0 -> 14.0 ms)."
    )
    assert "Of the time that went: decoder 83% (10.0 -> 5.0 ms), encoder 17% (4.0 -> 3.0 ms)" in text
    assert "It has 50% fewer MACs and takes 30% less time." in text
    assert "are 30% of the dense and 43% of the pruned call" in text
    assert "with all else gone the speedup would be 3.3x." in text


def test_the_paragraph_on_a_run_that_is_no_faster_says_what_holds_it_back():
    pruned = timed(19.0, encoder=3.5, decoder=9.5, lm_head=1.0, rest=5.0)
    kept = [{"stack": "decoder", "block": [6, 6]}]
    bound = {"verdict": "overhead-bound", "batch": 8}
    text = says.why(run(pruned=pruned, verdict="no difference", kept=kept), bound, CPU)
    assert "The pruned model is no faster" in text
    assert "Of the time that went" not in text
    assert "The decoder takes 50% of the dense call and kept all its blocks" in text
    assert "It has 50% fewer MACs and takes 5% less time. It is overhead-bound at batch 8" in text


def test_a_verdict_that_is_not_sure_is_called_probable():
    bound = {"batch": 4, "ratio": 1.2, "low": 1.1, "high": 1.5, "fixed_share": 0.8}
    found = {"bound": bound | {"verdict": "overhead-bound", "sure": False}, "settings": {"device": "cuda"}}
    assert says.bound_sentence(found) == (
        "Probably launch-bound at batch 4: from batch 4 to 8 a call takes 1.20x [1.10, 1.50] as long; about "
        "80% of a call does not depend on the batch, so what counts is how many operations are called, not "
        "how large they are. The interval reaches over a threshold: ask for more --rounds."
    )


def test_overhead_is_called_launches_on_a_gpu():
    assert says.bound_word("overhead-bound", "cuda") == "launch-bound"
    assert says.bound_word("overhead-bound", "cpu") == "overhead-bound"
    assert says.bound_word("compute-bound", "cuda") == "compute-bound"


def test_a_run_that_was_not_compared_says_why():
    text = says.why({"error": "no such folder."}, BOUND, CPU)
    assert text == "Dense and pruned model were not compared: no such folder."
