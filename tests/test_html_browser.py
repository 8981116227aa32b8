"""Pages in a real browser: they load alone, fit a phone, read in the dark, sort and show their plots."""

import functools
import itertools

import pytest
from browser import browser, opened
from comparison_calls import comparison, row
from page_calls import comparison_page, run_page

pytestmark = pytest.mark.slow

__all__ = ["browser"]

PAGES = {"run": functools.cache(run_page), "comparison": functools.cache(comparison_page)}


@pytest.fixture(params=PAGES)
def page_file(request, tmp_path):
    path = tmp_path / f"{request.param}.html"
    path.write_text(PAGES[request.param](), encoding="utf-8")
    return path


@pytest.fixture
def compared(tmp_path):
    path = tmp_path / "comparison.html"
    path.write_text(PAGES["comparison"](), encoding="utf-8")
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1200])
def test_a_page_loads_alone_without_errors_and_is_no_wider_than_the_window(browser, page_file, width, scheme):
    with opened(browser, page_file, width=width, scheme=scheme) as page:
        page.locator("details").evaluate_all("all => all.forEach(one => one.open = true)")
        assert page.evaluate("document.documentElement.scrollWidth") == width


def test_a_page_is_light_on_dark_or_dark_on_light_as_the_reader_has_it(browser, page_file):
    found = {}
    for scheme in ("light", "dark"):
        with opened(browser, page_file, scheme=scheme) as page:
            style = "getComputedStyle(document.querySelector(%r)).%s"
            texts = (
                style % ("svg text", "fill"),
                style % ("body", "color"),
                style % ("body", "backgroundColor"),
            )
            found[scheme] = [brightness(page.evaluate(text)) for text in texts]
    assert max(found["light"][:2]) < 130 < 240 < found["light"][2]
    assert min(found["dark"][:2]) > 130 > 40 > found["dark"][2]


def brightness(colour):
    return sum(int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(", ")) / 3


def test_every_plot_is_drawn_inside_its_page_and_has_points_and_words(browser, page_file):
    with opened(browser, page_file, width=375) as page:
        page.locator("details").evaluate_all("all => all.forEach(one => one.open = true)")
        boxes = page.locator("svg").evaluate_all(
            "all => all.map(one => [one.getBoundingClientRect().width, one.getBoundingClientRect().height,"
            " one.querySelectorAll('path, use').length, one.querySelectorAll('text').length])"
        )
        assert len(boxes) >= 4
        for width, height, marks, words in boxes:
            assert 200 < width <= 375
            assert 100 < height < 600
            assert min(marks, words) > 3


def names(page):
    return [cell.strip() for cell in page.locator("table.sortable tbody th").all_inner_texts()]


def test_the_table_sorts_by_a_column_and_back_with_unknown_values_last(browser, compared):
    with opened(browser, compared) as page:
        heading = page.locator("table.sortable thead th", has_text="speedup")
        heading.get_by_role("button").click()
        assert heading.get_attribute("aria-sort") == "ascending"
        slowest_first = names(page)
        assert slowest_first[1:] == ["dense", "uniform", "cofi", "nash-4", "nash-2", "optin"]
        heading.get_by_role("button").click()
        assert heading.get_attribute("aria-sort") == "descending"
        assert names(page) == [*reversed(slowest_first[:-1]), "optin"]


def test_the_table_sorts_by_the_keyboard_alone(browser, compared):
    with opened(browser, compared) as page:
        page.locator("table.sortable thead button").first.focus()
        page.keyboard.press("Enter")
        assert names(page) == sorted(names(page))
        page.keyboard.press("Tab")
        page.keyboard.press("Space")
        assert page.locator("th[aria-sort]").all_inner_texts()[0].startswith("per")
        assert names(page)[0] == "uniform"
        assert names(page)[-1] == "optin"


def test_text_that_wants_to_be_markup_is_shown_and_not_run(browser, page_file):
    with opened(browser, page_file) as page:
        assert page.locator("script").count() == 1
        assert page.locator("img").count() == 0
        assert "<script>alert(1)</script>" in page.locator("body").inner_text()


def test_names_in_the_plot_do_not_hide_each_other(browser, tmp_path):
    """Twelve rows within a tenth of a point and of a speedup of each other."""
    rows = []
    for number in range(12):
        name = f"method-{number}"
        figures = {
            "mean": 9 + 0.1 * (number % 3),
            "sd": 0.02,
            "stderr": 0.1,
            "by_seed": [],
            "vs_reference": None,
        }
        x = 1.5 + 0.1 * (number // 3)
        speed = {"speedup": x, "speedup_low": x - 0.01, "speedup_high": x + 0.01, "verdict": "faster"}
        speed |= {"median_ms": 100, "by_seed": [], "peak_mib": None, "weights_mib": 1, "vs_reference": None}
        rows.append(row(name, name, quality={"per": figures}, speed=speed, frontier=False))
    path = tmp_path / "close.html"
    path.write_text(comparison_page(comparison(rows=rows)), encoding="utf-8")
    with opened(browser, path) as page:
        boxes = page.locator("svg text", has_text="method-").evaluate_all(
            "all => all.map(one => one.getBoundingClientRect()).map(b => [b.left, b.top, b.right, b.bottom])"
        )
    assert len(boxes) == 12
    for a, b in itertools.combinations(boxes, 2):
        across, down = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
        assert min(across, down) <= 2


def test_the_map_names_each_head_and_each_width(browser, tmp_path):
    path = tmp_path / "run.html"
    path.write_text(PAGES["run"](), encoding="utf-8")
    with opened(browser, path) as page:
        kept = page.locator("#kept")
        assert kept.get_by_title("encoder layer 0, self attn, head 1: removed").count() == 1
        assert kept.get_by_title("encoder layer 0, self attn, head 2: kept").count() == 1
        bar = kept.get_by_title("encoder layer 0, ffn: 8 of 32 neurons kept")
        share = "one => one.firstChild.getBoundingClientRect().width / one.getBoundingClientRect().width"
        assert bar.evaluate(share) == pytest.approx(0.25, abs=0.01)
        assert kept.get_by_title("decoder block 1: removed").count() == 1
        assert kept.locator("tr.gone").count() == 1


def test_a_run_that_measured_and_trained_nothing_still_has_a_page(browser, tmp_path):
    path = tmp_path / "run.html"
    path.write_text(run_page(log=[], quality=None, speed=None, achieved=None, stages={}), encoding="utf-8")
    with opened(browser, path) as page:
        assert page.get_by_text("Not measured in this run.").count() == 2
        assert page.locator("#training").count() == 0
