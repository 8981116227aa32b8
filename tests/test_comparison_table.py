"""The comparison's table: what stands in it, in which order, and what is said below it."""

import pytest
from comparison_calls import DENSE, ERROR, ROWS, UGLY, called, changed, comparison

from prunekit.errors import ComparisonError
from prunekit.reports.comparison import FORMATS, comparison_table, render


def cells(name, found=None, **flags):
    """The row called ``name`` by header."""
    table = comparison_table(found or comparison(), **flags)
    [row] = [row for row in table.rows if row[0] == name]
    return dict(zip(table.header, row, strict=True))


def names(found=None, **flags):
    return [row[0] for row in comparison_table(found or comparison(), **flags).rows]


def notes(found=None, **flags):
    return comparison_table(found or comparison(), **flags).notes


# Cells


def test_the_columns_that_decide_come_first():
    assert comparison_table(comparison()).header == [
        "method",
        "per (lower is better)",
        "speedup",
        "ms",
        "parameters",
        "MACs",
        "encoder removed",
        "decoder removed",
        "requested -> achieved",
        "weights MiB",
        "time to prune",
        "training steps",
        "frontier",
    ]


def test_a_row_says_what_its_method_costs_and_gives():
    assert list(cells("nash-2").values()) == [
        "nash-2",
        "16.36 ± 0.45 ↓",
        "2.04x [1.95, 2.11]",
        "171.2",
        "1.36M (-51 %)",
        "10.5M (-50 %)",
        "30.0 %",
        "66.7 %",
        "30 % of encoder.* -> 30.0 %",
        "5.2",
        "5.2 min",
        "1,200",
        "yes",
    ]


def test_the_dense_row_has_nothing_requested_and_took_no_time():
    row = cells("dense")
    assert row["per (lower is better)"] == "8.56"
    assert row["speedup"] == "1x"
    assert row["parameters"] == "2.77M"
    assert row["requested -> achieved"] == ""
    assert row["time to prune"] == ""


@pytest.mark.parametrize(("name", "mark"), [("nash-2", "↓"), ("nash-4", "="), ("uniform", "↑")])
def test_quality_is_marked_against_the_reference(name, mark):
    assert cells(name)["per (lower is better)"].endswith(f" {mark}")


def test_a_speedup_inside_the_noise_is_marked():
    assert cells("uniform")["speedup"] == "1.01x [0.98, 1.04] ="


def test_a_failed_row_is_a_row_with_its_request_and_its_error_below():
    row = cells("optin")
    assert row["per (lower is better)"] == "failed"
    assert row["requested -> achieved"] == "97 % of MACs"
    assert f"optin failed: {ERROR}" in notes()


def test_a_row_that_was_not_timed_says_so():
    found = changed("cofi", speed={"error": "out of memory"}, frontier=None)
    assert cells("cofi", found)["speedup"] == "not measured"
    assert "cofi was not timed: out of memory" in notes(found)


def test_a_latency_budget_stands_beside_the_measured_share_of_time():
    found = changed("nash-2", requested={"metric": "latency", "ratio": 0.5, "scope": []})
    assert cells("nash-2", found)["requested -> achieved"] == "50 % of the time -> 49.1 %"


def test_columns_that_no_row_fills_are_left_out():
    rows = [{**row, "decoder_sparsity": None} for row in ROWS]
    assert "decoder removed" not in comparison_table(comparison(rows=rows)).header


def test_memory_is_the_gpus_peak_where_one_was_measured():
    found = changed("nash-2", speed={**ROWS[1]["speed"], "peak_mib": 123.4})
    assert cells("nash-2", found)["peak MiB"] == "123.4"
    assert "weights MiB" not in comparison_table(found).header


def test_a_comparison_without_quality_or_speed_still_renders():
    rows = [{**row, "quality": None, "speed": None, "frontier": None} for row in ROWS]
    found = comparison(rows=rows, quality=None, speed=None)
    assert "speedup" not in comparison_table(found).header
    assert "Speed was not measured." in notes(found)
    assert all(render(found, format) for format in FORMATS)


def test_a_comparison_in_which_everything_failed_still_renders():
    rows = [{**DENSE, "quality": None, "speed": None, "frontier": None, "params": None}, ROWS[-1]]
    found = comparison(rows=rows, speed=None, quality={**comparison()["quality"], "n": None})
    assert names(found) == ["dense", "optin"]
    assert all(render(found, format) for format in FORMATS)


@pytest.mark.parametrize(
    ("value", "sd", "text"),
    [(0.0, None, "0.000"), (91.237, 0.5, "91.24 ± 0.50"), (0.08125, 0.002, "0.08125 ± 0.00200")],
)
def test_the_largest_figure_has_four_digits(value, sd, text):
    per = {"mean": value, "sd": sd, "stderr": 0.1, "by_seed": [value], "vs_reference": None}
    found = comparison(rows=[{**row, "quality": {"per": per}} for row in ROWS if row["label"] == "cofi"])
    assert cells("cofi", found)["per (lower is better)"] == text


def test_all_rows_have_as_many_decimals():
    assert cells("dense")["per (lower is better)"] == "8.56"
    assert cells(UGLY)["per (lower is better)"] == "20.10 ± 0.20 ↓"


# Order and choice


def test_dense_is_first_then_the_fastest_and_what_failed_is_last():
    assert names() == ["dense", "nash-2", "nash-4", "cofi", "uniform", UGLY, "optin"]


@pytest.mark.parametrize(
    ("column", "order"),
    [
        ("quality", ["uniform", "dense", "nash-4", "cofi", "nash-2", UGLY, "optin"]),
        ("per", ["uniform", "dense", "nash-4", "cofi", "nash-2", UGLY, "optin"]),
        ("ms", ["nash-2", "nash-4", "cofi", "uniform", "dense", UGLY, "optin"]),
        ("prune_time", [UGLY, "uniform", "nash-4", "nash-2", "cofi", "dense", "optin"]),
        ("name", [UGLY, "cofi", "dense", "nash-2", "nash-4", "optin", "uniform"]),
    ],
)
def test_rows_are_sorted_by_any_column_best_first(column, order):
    assert names(sort=column) == order


def test_higher_is_better_turns_the_order():
    found = comparison(quality={**comparison()["quality"], "higher_is_better": True})
    assert names(found, sort="quality")[:2] == [UGLY, "nash-2"]


def test_an_unknown_column_is_refused_with_the_names():
    with pytest.raises(
        ComparisonError, match=r"is called 'qualty'; did you mean quality\? There are: name, "
    ):
        comparison_table(comparison(), sort="qualty")


@pytest.mark.parametrize(
    ("only", "shown"),
    [
        (["nash-4"], ["dense", "nash-4"]),
        (["nash*", "cofi"], ["dense", "nash-2", "nash-4", "cofi"]),
        (["magnitude"], ["dense", UGLY]),
        ([UGLY], ["dense", UGLY]),
    ],
)
def test_rows_are_chosen_by_name_pattern_or_method_and_dense_stays(only, shown):
    assert names(only=only) == shown


def test_a_name_with_brackets_is_found_as_it_is():
    assert names(called("x[1]"), only=["x[1]"]) == ["dense", "x[1]"]


def test_a_pattern_that_fits_no_row_is_refused_with_the_names():
    with pytest.raises(
        ComparisonError, match=r"no row fits 'nash_4'; did you mean nash-4\? There are: dense"
    ):
        comparison_table(comparison(), only=["nash_4"])


def test_the_frontier_alone():
    assert names(frontier=True) == ["dense", "nash-2", "nash-4", "uniform"]


def test_notes_of_rows_that_are_not_shown_are_not_shown():
    assert not any("optin failed" in note for note in notes(only=["nash*"]))


def test_published_figures_stand_beside_the_measured_ones_if_asked_for():
    row = cells("nash-2", expected=True)
    assert row["per, published"] == "12"
    assert row["speedup, published"] == "2.2x"
    assert row["parameters, published"] == "1.30M"
    assert "per, published" not in cells("nash-2")


def test_the_source_of_published_figures_is_named():
    published = {
        "paper": "A paper",
        "place": "Table 1",
        "dense": {},
        "methods": {},
        "remarks": ["Other data."],
    }
    found = comparison(recipe={**comparison()["recipe"], "published": published})
    assert {"Published: A paper, Table 1.", "Other data."} <= set(notes(found, expected=True))


def test_a_recipe_without_published_figures_says_so():
    found = comparison(rows=[{**row, "published": None} for row in ROWS])
    assert "The recipe carries no published figures." in notes(found, expected=True)


def test_keys_sort_as_the_figures_do():
    table = comparison_table(comparison())
    keys = dict(zip((row[0] for row in table.rows), table.keys, strict=True))
    assert keys["nash-2"][:4] == ["nash-2", pytest.approx(16.357, abs=1e-3), 2.038, 171.2]
    assert keys["optin"][1:4] == [None, None, None]


# Notes


@pytest.mark.parametrize(
    "note",
    [
        "Fastest with no measured loss against dense: nash-4 (1.36x, per 8.6, 95 s to prune).",
        "Fastest of all: nash-2 (2.04x, per 16.36, 5.2 min to prune).",
        "per is measured on 2,000 examples of test, beams 1, seeds 0, 1, 2.",
        "± is the standard deviation over seeds.",
        "↑ better, ↓ worse, = no difference from dense: whether the 95 % interval of the paired difference "
        "leaves out 0, by bootstrap over examples and seeds. Each row is judged for itself: of 20 that do "
        "not differ, about one is marked by chance.",
        "Speed at batch 32, 8 input tokens on Chip 9000, threads 1, fp32, sdpa, torch 2.13.0: generate, 16 "
        "tokens forced, beams 4; 4 interleaved rounds after 1 to warm up; compared with dense.",
        "The reference against itself differs by up to 1.2%; differences inside that are called no "
        "difference.",
        "Times are of a CPU; a GPU may rank the models differently.",
        "uniform: seed 1 failed, the figures are of seeds 0 and 2: TrainingError: the loss is not a number",
        "one run was measured <late> & [slowly]",
    ],
)
def test_the_notes_answer_what_to_use_and_what_figures_mean(note):
    assert note in notes()


def test_one_seed_has_no_spread_and_no_note_of_it():
    rows = [{**row, "quality": None} if row["name"] != "dense" else DENSE for row in ROWS]
    assert "± is the standard deviation over seeds." not in notes(comparison(rows=rows, seeds=[0]))


def test_where_every_faster_row_is_worse_the_notes_say_so():
    found = comparison(rows=[row for row in ROWS if row["name"] in ("dense", "nash-2", "cofi")])
    assert "Every row that is faster is also worse than dense, or was not compared with it." in notes(found)
