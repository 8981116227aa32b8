"""Plots of reports: what is drawn where, in which colour, and as which words."""

import re
from xml.etree import ElementTree

import pytest
from comparison_calls import UGLY, changed, comparison
from comparison_calls import row as plain_row
from page_calls import training_log

from prunekit.reports import plots
from prunekit.reports.curves import training_curves
from prunekit.reports.plots import frontier_picture, quality_against_speed, row_styles

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def plot():
    return ElementTree.fromstring(quality_against_speed(comparison()))


def points(plot):
    """Place and style of each row's point by the row's name."""
    found = {}
    for group in plot.iter(f"{SVG}g"):
        tip = group.find(f"{SVG}title")
        if tip is not None:
            use = next(group.iter(f"{SVG}use"))
            found[tip.text.partition(":")[0]] = (float(use.get("x")), float(use.get("y")), use.get("style"))
    return found


def test_a_point_stands_for_each_row_with_figures(plot):
    assert set(points(plot)) == {"dense", "nash-2", "nash-4", "cofi", "uniform", UGLY}


def test_faster_is_to_the_right_and_better_is_up_whichever_way_the_metric_goes(plot):
    place = points(plot)
    assert place["nash-2"][0] > place["nash-4"][0] > place["cofi"][0] > place[UGLY][0]
    assert place["nash-2"][1] > place["cofi"][1] > place["nash-4"][1]  # SVG counts downwards
    higher = comparison()
    higher["quality"]["higher_is_better"] = True
    place = points(ElementTree.fromstring(quality_against_speed(higher)))
    assert place["nash-2"][1] < place["cofi"][1] < place["nash-4"][1]


def test_rows_off_the_frontier_are_hollow(plot):
    hollow = {name for name, (_, _, style) in points(plot).items() if "fill: var(--paper)" in style}
    assert hollow == {"cofi", UGLY}


def test_a_point_tells_its_figures_and_the_drawing_tells_all_of_them(plot):
    tips = [tip.text for tip in plot.iter(f"{SVG}title")]
    assert "nash-4: per 8.6 ± 0.1, 1.36x [1.31, 1.40]" in tips
    assert plot.get("role") == "img"
    assert all(tip in plot.get("aria-label") for tip in tips)


def test_words_stay_words_in_the_pages_font_and_colours(plot):
    texts = [text.text for text in plot.iter(f"{SVG}text")]
    assert {"nash-2", "per (lower is better)", "dense", UGLY} <= set(texts)
    assert "font-family" not in ElementTree.tostring(plot, encoding="unicode")
    assert not re.search(r"#0[0-9]0[0-9]0[0-9]", ElementTree.tostring(plot, encoding="unicode"))


def test_a_name_is_not_read_as_a_formula():
    compared = changed("cofi", label="$x_1$ \x07\n")
    texts = [text.text for text in ElementTree.fromstring(quality_against_speed(compared)).iter(f"{SVG}text")]
    assert any(text.startswith("$x_1$") for text in texts)


@pytest.mark.filterwarnings("error")
def test_a_name_in_a_script_that_the_font_lacks_is_drawn_without_a_warning():
    compared = changed("cofi", label="剪枝")
    assert "剪枝" in quality_against_speed(compared)


def test_one_method_has_one_colour_and_rows_of_one_method_have_one_a_label():
    styles = row_styles(comparison()["rows"])
    assert styles["nash-2"] == styles["nash-4"]
    assert len({styles[name] for name in ("nash-2", "cofi", "uniform", UGLY, "optin")}) == 5
    assert styles["dense"].variable == "ink"
    same = [plain_row(name, "nash") for name in ("a", "b")]
    assert len(set(row_styles(same).values())) == 2


def test_the_points_of_a_sweep_are_named_by_their_budget():
    compared = changed("nash-2", label="nash", point={"budget.sparsity": 0.5})
    assert ">nash 0.5<" in quality_against_speed(compared)


def test_nothing_to_draw_is_no_drawing():
    compared = comparison(speed=None)
    for row in compared["rows"]:
        row["speed"] = None
    assert quality_against_speed(compared) == frontier_picture(compared) == ""


def test_the_picture_for_documents_carries_both_palettes_and_needs_nothing_else():
    picture = ElementTree.fromstring(frontier_picture(comparison()))
    assert (picture.get("width"), picture.get("viewBox")) == ("708", "-14 -12 708 454")
    style = picture.find(f"{SVG}style").text
    assert "prefers-color-scheme: dark" in style
    used = set(re.findall(r"var\((--[\w-]+)\)", ElementTree.tostring(picture, encoding="unicode")))
    light, dark = style.split("@media")
    assert used <= set(re.findall(r"--[\w-]+(?=:)", light)) & set(re.findall(r"--[\w-]+(?=:)", dark))


def test_the_same_comparison_is_drawn_the_same_twice():
    assert quality_against_speed(comparison()) == quality_against_speed(comparison())


@pytest.mark.parametrize("scheme", [0, 1])
def test_words_in_every_colour_can_be_read_on_the_pages_ground(scheme):
    """WCAG 2.2, contrast (minimum): 4.5 to 1 for text."""
    palette = dict(re.findall(r"--([\w-]+): (#\w{6});", plots._palettes()[scheme]))
    worded = [name for name in palette if re.match("series|ink|muted|accent|better|worse", name)]
    assert len(worded) == 13
    for name in worded:
        shades = sorted((luminance(palette[name]), luminance(palette["paper"])), reverse=True)
        assert (shades[0] + 0.05) / (shades[1] + 0.05) >= 4.5, name


def luminance(colour):
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_curves_are_told_apart_by_their_names():
    panels = training_curves(training_log())
    assert {kind: [name for name, _, _ in panel.legend] for kind, panel in panels.items()} == {
        "sparsity": ["sparsity", "target", "realised sparsity"],
        "losses": ["loss", "prediction"],
        "multipliers": ["lambda 1", "lambda 2"],
        "quality": ["per"],
    }


def test_what_was_aimed_at_is_dashed_and_each_stack_has_its_colour():
    log = [
        {"stage": "plan", "step": step, "loss": 1.0}
        | {f"{stack}_{what}": 0.1 for stack in ("encoder", "decoder") for what in ("sparsity", "target")}
        for step in (1, 2)
    ]
    legend = {name: (colour, dash) for name, colour, dash in training_curves(log)["sparsity"].legend}
    assert legend["encoder target"] == (legend["encoder sparsity"][0], "dashed")
    assert legend["decoder target"] == (legend["decoder sparsity"][0], "dashed")
    assert legend["encoder sparsity"][0] != legend["decoder sparsity"][0]


def test_stages_follow_each_other_on_the_axis():
    said = training_curves(training_log(400))["losses"].drawing
    texts = [text.text for text in ElementTree.fromstring(said).iter(f"{SVG}text")]
    assert {"plan", "recover"} <= set(texts)
    assert max(int(text) for text in texts if text.isdigit()) > 600


def test_a_long_log_is_drawn_with_few_points():
    log = [{"stage": "recover", "step": step, "loss": 1 + 1 / step} for step in range(1, 50_001)]
    assert len(training_curves(log)["losses"].drawing) < 20_000


def test_values_that_are_not_finite_are_left_out_and_an_empty_log_has_no_curves():
    log = [
        {"stage": "plan", "step": step, "loss": value} for step, value in enumerate([1.0, float("nan"), 2.0])
    ]
    assert "from 1 to 2" in training_curves(log)["losses"].drawing
    assert training_curves([]) == {}
    assert training_curves([{"stage": "plan", "step": 1, "loss": "broken"}]) == {}
