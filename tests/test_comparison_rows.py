"""Runs joined into rows: means over seeds, what they are worth, and what failed."""

import json

import numpy as np
import pytest

from prunekit.comparison.rows import Finished, make_rows
from prunekit.errors import ComparisonError
from prunekit.measure import statistics

EXAMPLES = 60
DENSE_INFLUENCES = np.random.default_rng(0).normal(0, 2, EXAMPLES)
DENSE_INFLUENCES -= DENSE_INFLUENCES.mean()


def report(label="nash", seed=0, per=9.0, **changes):
    return {
        "run": f"runs/{label}-s{seed}",
        "model": "embedded:t5-g2p",
        "seed": seed,
        "requested": {"metric": "params", "sparsity": 0.3, "scope": []},
        "achieved": {
            "params": {"dense": 1000, "pruned": 700 + seed},
            "macs": {"dense": 5000, "pruned": 4000 - seed},
            "sparsity": 0.3 + 0.01 * seed,
            "encoder_sparsity": 0.4,
            "decoder_sparsity": None,
        },
        "quality": {
            "primary": "per",
            "higher_is_better": False,
            "dense": {"per": 8.0, "per_stderr": 0.3, "mean": 1.0, "n": EXAMPLES},
            "pruned": {"per": per, "per_stderr": 0.4, "mean": 2.0, "n": EXAMPLES},
        },
        "stages": {"plan_s": 10.0, "recover_s": 5.0 + seed, "evaluate_s": 100.0},
        "warnings": [],
        "recipe": {
            "seed": seed,
            "published": {"dense": {"per": 7.5}, "methods": {"nash": {"per": 8.8, "speedup": 1.5}}},
        },
        **changes,
    }


def run(label="nash", seed=0, per=9.0, shift=0.0, timed=None, **changes):
    """A run whose answers differ from the dense model's by noise of its own."""
    noise = np.random.default_rng([7, seed]).normal(shift, 0.5, EXAMPLES)
    influences = DENSE_INFLUENCES + noise - noise.mean()
    return Finished(
        label,
        "nash",
        seed=seed,
        run=f"{label}-s{seed}",
        report=report(label, seed, per, **changes),
        influences={"per": influences},
        timed=timed,
    )


def failed(label="nash", seed=0, error="BudgetError: too much"):
    return Finished(label, "nash", seed=seed, run=f"{label}-s{seed}", error=error)


def rows(runs, speed=None, reference="dense"):
    dense = Finished("dense", "dense", influences={"per": DENSE_INFLUENCES})
    made = make_rows(dense, runs, speed, reference=reference, seed=0)
    json.dumps(made, allow_nan=False)
    return {row["name"]: row for row in made}


def timed(samples, **more):
    return {**statistics.summary(samples), "peak_mib": None, "weights_mib": 4.0, **more}


def measurement(**others):
    """Ten rounds, of a dense model that takes 100 ms give or take what the machine does in that round."""
    drift = np.linspace(0, 5, 10)
    dense, twin = 100 + drift, 100.5 + drift
    models = {"dense": timed(dense)}
    for name, share in others.items():
        other = share * (100 + drift)
        models[name] = timed(other, **statistics.compare(dense, twin, other, 0))
    control = timed(twin, **statistics.compare(dense, twin, twin, 0))
    return {"reference": "dense", "models": models, "control": control}


# Seeds


def test_runs_that_differ_in_their_seed_are_one_row_of_means():
    row = rows([run(seed=0, per=9.0), run(seed=1, per=9.5), run(seed=2, per=10.0)])["nash"]
    assert [entry["seed"] for entry in row["seeds"]] == [0, 1, 2]
    per = row["quality"]["per"]
    assert (per["mean"], per["sd"], per["by_seed"]) == (9.5, 0.5, [9.0, 9.5, 10.0])
    assert row["params"] == {"dense": 1000, "pruned": 701, "by_seed": [700, 701, 702]}
    assert row["macs"] == {"dense": 5000, "pruned": 3999, "by_seed": [4000, 3999, 3998]}
    assert row["sparsity"] == pytest.approx(0.31)
    assert row["prune_s"] == 16.0


def test_the_dense_model_is_the_first_row():
    name, row = next(iter(rows([run(seed=0)]).items()))
    assert name == "dense"
    assert row["dense"]
    assert row["requested"] is None
    assert row["quality"]["per"]["mean"] == 8.0
    assert row["quality"]["per"]["vs_reference"] is None
    assert row["params"]["pruned"] == 1000
    assert (row["sparsity"], row["encoder_sparsity"], row["decoder_sparsity"]) == (0.0, 0.0, None)
    assert row["prune_s"] == 0.0


def test_counts_and_errors_are_no_metrics():
    assert list(rows([run()])["nash"]["quality"]) == ["per", "mean"]


def test_the_standard_error_of_a_mean_over_seeds_is_that_of_its_mean_influences():
    runs = [run(seed=0), run(seed=1)]
    mean = np.mean([each.influences["per"] for each in runs], axis=0)
    expected = np.sqrt(np.square(mean).sum()) / EXAMPLES
    assert rows(runs)["nash"]["quality"]["per"]["stderr"] == pytest.approx(expected)


def test_one_failed_seed_leaves_the_figures_of_the_others_and_a_warning():
    row = rows([run(seed=0, per=9.0), failed(seed=1), run(seed=2, per=10.0)])["nash"]
    assert row["error"] is None
    assert row["quality"]["per"]["by_seed"] == [9.0, 10.0]
    assert row["seeds"][1] == {"seed": 1, "run": "nash-s1", "error": "BudgetError: too much"}
    assert row["warnings"] == ["seed 1 failed, the figures are of seeds 0 and 2: BudgetError: too much"]


def test_a_row_whose_seeds_all_failed_is_its_error():
    row = rows([run("cofi"), failed(seed=0), failed(seed=1)])["nash"]
    assert row["error"] == "BudgetError: too much"
    assert (row["quality"], row["speed"], row["params"], row["frontier"]) == (None, None, None, None)
    assert row["published"] == {"per": 8.8, "speedup": 1.5}


def test_a_failed_row_still_says_what_was_requested():
    row = rows([Finished("nash", "nash", error="oh", requested={"metric": "macs", "sparsity": 0.97})])["nash"]
    assert row["requested"] == {"metric": "macs", "sparsity": 0.97}


def test_errors_that_differ_are_told_apart_by_seed():
    row = rows([run("cofi"), failed(seed=0), failed(seed=1, error="TrainingError: nan")])["nash"]
    assert row["error"] == "seed 0: BudgetError: too much; seed 1: TrainingError: nan"


def test_a_comparison_in_which_everything_failed_has_a_dense_row_without_figures():
    found = rows([failed()])
    assert found["dense"]["error"] is None
    assert found["dense"]["quality"] is None


def test_warnings_of_all_seeds_are_said_once_and_others_with_their_seed():
    runs = [run(seed=0, warnings=["late", "odd"]), run(seed=1, warnings=["late"])]
    assert rows(runs)["nash"]["warnings"] == ["late", "seed 0: odd"]


# Names


def test_swept_values_are_in_the_name():
    half = Finished("nash", "nash", {"budget.sparsity": 0.5}, report=report())
    more = Finished("nash", "nash", {"budget.sparsity": 0.7}, report=report())
    found = rows([half, more])
    assert list(found) == ["dense", "nash sparsity=0.5", "nash sparsity=0.7"]
    assert found["nash sparsity=0.7"]["point"] == {"budget.sparsity": 0.7}


def test_runs_of_one_label_and_seed_are_rows_of_their_own_named_by_run():
    twice = [
        Finished("nash", "nash", run="a", report=report()),
        Finished("nash", "nash", run="b", report=report()),
    ]
    assert list(rows(twice)) == ["dense", "nash (a)", "nash (b)"]


def test_runs_of_other_recipes_are_not_taken_for_seeds_of_one():
    other = Finished("nash", "nash", seed=1, run="b", report=report(seed=1) | {"recipe": {"seed": 1, "x": 2}})
    assert list(rows([run(seed=0), other])) == ["dense", "nash (nash-s0)", "nash (b)"]


def test_a_label_dense_is_not_the_dense_row():
    assert list(rows([run("dense")])) == ["dense", "dense (dense-s0)"]


# Quality against the reference


def test_quality_is_compared_with_the_reference_by_the_metrics_direction():
    found = rows([run(per=9.0), run("good", per=7.0), run("same", per=8.0)])
    verdicts = {name: row["quality"]["per"]["vs_reference"] for name, row in found.items()}
    assert verdicts["nash"]["difference"] == pytest.approx(1.0)
    assert verdicts["nash"]["verdict"] == "worse"
    assert verdicts["good"]["verdict"] == "better"
    assert verdicts["same"]["verdict"] == "no difference"


def test_any_row_can_be_the_reference():
    found = rows([run(per=9.0), run("cofi", per=11.0)], reference="nash")
    assert found["nash"]["quality"]["per"]["vs_reference"] is None
    assert found["cofi"]["quality"]["per"]["vs_reference"]["difference"] == pytest.approx(2.0)
    assert found["dense"]["quality"]["per"]["vs_reference"]["verdict"] == "better"


def test_the_same_runs_under_another_name_are_exactly_no_difference():
    speed = measurement(x=0.8)
    runs = [run(seed=seed, timed="x") for seed in (0, 1)] + [run("twin", seed, timed="x") for seed in (0, 1)]
    twin = rows(runs, speed, reference="nash")["twin"]
    expected = {"difference": 0.0, "low": 0.0, "high": 0.0, "verdict": "no difference"}
    assert twin["quality"]["per"]["vs_reference"] == expected
    expected = {"ratio": 1.0, "low": 1.0, "high": 1.0, "verdict": "no difference"}
    assert twin["speed"]["vs_reference"] == expected


def test_a_metric_without_influences_is_not_compared():
    assert rows([run()])["nash"]["quality"]["mean"]["vs_reference"] is None


def test_a_metric_of_unknown_direction_is_higher_or_lower():
    dense = Finished("dense", "dense", influences={"mean": np.zeros(EXAMPLES)})
    other = Finished("nash", "nash", report=report(), influences={"mean": np.zeros(EXAMPLES)})
    row = make_rows(dense, [other], None, reference="dense", seed=0)[1]
    assert row["quality"]["mean"]["vs_reference"]["verdict"] == "higher"


def test_an_unknown_reference_is_refused_with_the_names():
    with pytest.raises(ComparisonError, match="no row is called 'nahs'; did you mean nash") as caught:
        rows([run()], reference="nahs")
    assert str(caught.value).endswith("To compare with: dense, nash.")


def test_a_reference_that_failed_is_refused():
    with pytest.raises(ComparisonError, match="'nash' cannot be the reference: every run of it failed"):
        rows([failed(), run("cofi")], reference="nash")


# Speed


def test_a_rows_time_in_a_round_is_the_mean_over_its_seeds():
    speed = measurement(a=0.5, b=0.7)
    row = rows([run(seed=0, timed="a"), run(seed=1, timed="b")], speed)["nash"]
    mean = 0.6 * (100 + np.linspace(0, 5, 10))
    dense, twin = speed["models"]["dense"]["samples_ms"], speed["control"]["samples_ms"]
    expected = statistics.compare(dense, twin, mean, 0)
    assert row["speed"]["median_ms"] == pytest.approx(np.median(mean))
    assert row["speed"]["speedup"] == pytest.approx(expected["speedup"])
    assert row["speed"]["speedup_low"] == pytest.approx(expected["speedup_low"])
    assert row["speed"]["verdict"] == "faster"
    assert row["speed"]["by_seed"] == pytest.approx([1 / 0.5, 1 / 0.7])


def test_seeds_that_share_a_measurement_count_each():
    runs = [run(seed=0, timed="a"), run(seed=1, timed="a"), run(seed=2, timed="b")]
    row = rows(runs, measurement(a=0.5, b=0.8))["nash"]
    assert row["speed"]["median_ms"] == pytest.approx(0.6 * 102.5)
    assert len(row["speed"]["by_seed"]) == 3


def test_the_dense_row_has_a_speedup_of_one():
    row = rows([run(timed="a")], measurement(a=0.5))["dense"]["speed"]
    assert (row["speedup"], row["speedup_low"], row["speedup_high"]) == (1.0, 1.0, 1.0)
    assert (row["by_seed"], row["vs_reference"]) == ([1.0], None)


def test_speed_against_another_row_than_dense():
    runs = [run(timed="a"), run("cofi", timed="b")]
    found = rows(runs, measurement(a=0.5, b=0.8), reference="nash")
    assert found["cofi"]["speed"]["vs_reference"]["ratio"] == pytest.approx(0.5 / 0.8)
    assert found["cofi"]["speed"]["vs_reference"]["verdict"] == "slower"
    assert found["dense"]["speed"]["vs_reference"]["ratio"] == pytest.approx(0.5)
    assert found["nash"]["speed"]["vs_reference"] is None


def test_a_ratio_inside_the_control_interval_is_no_difference():
    # The dense model's twin is 0.5 % slower; a row that is 0.3 % faster proves nothing.
    speed = measurement(a=0.8, b=0.7976)
    speed["control"] |= {"speedup_low": 0.99, "speedup_high": 1.01}
    found = rows([run(timed="a"), run("cofi", timed="b")], speed, reference="nash")["cofi"]["speed"]
    assert found["vs_reference"]["low"] > 1
    assert found["vs_reference"]["verdict"] == "no difference"


def test_a_model_that_could_not_be_timed_is_a_warning_beside_the_others_times():
    speed = measurement(a=0.5)
    speed["models"]["b"] = {"error": "out of memory"}
    row = rows([run(seed=0, timed="a"), run(seed=1, timed="b")], speed)["nash"]
    assert row["speed"]["by_seed"] == pytest.approx([2.0])
    assert row["warnings"] == ["b was not timed, the times are of the others: out of memory"]


def test_a_row_of_which_nothing_could_be_timed_has_the_error():
    speed = measurement()
    speed["models"]["b"] = {"error": "out of memory"}
    row = rows([run(timed="b")], speed)["nash"]
    assert row["speed"] == {"error": "out of memory"}
    assert row["frontier"] is None


def test_a_measurement_that_failed_is_an_error_in_every_finished_row():
    found = rows([run(), failed("cofi")], {"error": "no device"})
    assert found["nash"]["speed"] == {"error": "no device"}
    assert found["cofi"]["speed"] is None


def test_memory_is_the_mean_over_seeds():
    speed = measurement(a=0.5, b=0.5)
    speed["models"]["a"]["peak_mib"], speed["models"]["b"]["peak_mib"] = 10.0, 20.0
    row = rows([run(seed=0, timed="a"), run(seed=1, timed="b")], speed)["nash"]
    assert (row["speed"]["peak_mib"], row["speed"]["weights_mib"]) == (15.0, 4.0)


# Frontier


def test_the_frontier_is_what_no_other_row_beats():
    speed = measurement(fast=0.5, slow=0.9, worse=0.6, alike=0.5)
    runs = [
        run("fast", per=9.0, timed="fast"),
        run("slow", per=7.5, timed="slow"),
        run("worse", per=10.0, timed="worse"),
        run("alike", per=9.0, timed="alike"),
        failed("failed"),
    ]
    found = {name: row["frontier"] for name, row in rows(runs, speed).items()}
    assert found == {
        "dense": False,  # slow is better and faster
        "fast": True,
        "slow": True,
        "worse": False,
        "alike": True,
        "failed": None,
    }


def test_without_speed_there_is_no_frontier():
    assert {row["frontier"] for row in rows([run()]).values()} == {None}


def test_published_figures_are_the_labels():
    found = rows([run(), run("cofi")])
    assert found["dense"]["published"] == {"per": 7.5}
    assert found["nash"]["published"] == {"per": 8.8, "speedup": 1.5}
    assert found["cofi"]["published"] is None
