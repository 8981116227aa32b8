"""HTML pages as text: escaping, the policy that guards them, and what each page says."""

import base64
import hashlib
import re
import subprocess
import sys

import pytest
from comparison_calls import ERROR, UGLY, changed, comparison
from page_calls import HOSTILE, KEEP, STRUCTURE, comparison_page, run_page

from prunekit.reports.page import Cell, render_page

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run_text():
    return run_page()


@pytest.fixture(scope="module")
def compared_text():
    return comparison_page()


def words(page):
    """What a reader sees, without tags."""
    return " ".join(re.sub(r"<[^>]+>", " ", page[page.index("<body>") :]).split())


def test_no_text_of_users_models_or_data_becomes_markup(run_text, compared_text):
    for page in (run_text, compared_text):
        assert len(re.findall("<script", page)) == 1
        assert "<img" not in page
        assert not re.search("<i>&|<b>here", page)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in run_text
    assert "&lt;b&gt;here&lt;/b&gt;" in compared_text


@pytest.mark.parametrize("place", ["label", "model", "task", "prunekit_version", "run"])
def test_hostile_facts_of_a_run_are_escaped(place):
    page = run_page(log=[], **{place: HOSTILE})
    assert len(re.findall("<script", page)) == 1
    assert "<img" not in page


def test_a_hostile_fingerprint_is_escaped_and_stands_at_the_top():
    page = run_page(fingerprint={"model": HOSTILE, "recipe": "cd" * 32, "data": None})
    assert "<img" not in page
    assert "recipe cdcdcdcdcdcd, data shipped with prunekit, python 3.11.7." in words(page)


def test_hostile_names_in_a_log_are_escaped_also_in_drawings():
    log = [{"stage": HOSTILE, "step": step, "loss": 1.0 / step, HOSTILE: 2.0} for step in (1, 2, 3)]
    page = run_page(log=log)
    assert len(re.findall("<script", page)) == 1
    assert "<img" not in page
    assert "\x1b" not in page[page.index("<svg") : page.index("</svg>")]


def test_a_hostile_comparison_is_escaped_in_every_place():
    hostile = comparison(
        name=HOSTILE, description=HOSTILE, command=HOSTILE, model=HOSTILE, warnings=[HOSTILE]
    )
    for row in hostile["rows"][1:]:
        row["name"] = row["label"] = f"{row['name']} {HOSTILE}"
        row["method"] = HOSTILE
    hostile["quality"]["primary"] = HOSTILE
    for row in hostile["rows"]:
        if row["quality"]:
            row["quality"][HOSTILE] = row["quality"]["per"]
    page = comparison_page(hostile)
    assert len(re.findall("<script", page)) == 1
    assert "<img" not in page


def test_a_browser_may_run_the_pages_own_script_alone_and_load_nothing(run_text):
    policy = re.search(r'Content-Security-Policy"\s+content="([^"]+)"', run_text)[1]
    script = re.search(r"<script>(.*?)</script>", run_text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; img-src data:"
    )


def test_a_page_names_no_address_but_the_drawings_namespace(run_text, compared_text):
    found = set(re.findall(r"https?://[^\s\"'<]+", run_text + compared_text))
    assert found <= {"http://www.w3.org/2000/svg"}


def test_no_two_elements_of_a_page_share_an_id(compared_text):
    names = re.findall(r'\sid="([^"]+)"', compared_text)
    assert len(names) == len(set(names))
    links = set(re.findall(r'(?:href="|url\()#([^")]+)', compared_text))
    assert links <= set(names)


def test_a_lone_surrogate_does_not_keep_a_page_from_being_written():
    page = run_page(log=[], warnings=["broken \ud800 text"])
    assert "broken ? text" in page
    page.encode("utf-8")


def test_a_template_that_names_what_it_was_not_given_raises():
    from jinja2 import UndefinedError

    with pytest.raises(UndefinedError):
        render_page("run.html.j2", title="x")


def test_the_runs_page_says_what_decides(run_text):
    said = words(run_text)
    assert "Requested 50 % of encoder.* removed; achieved 50.0 %." in said
    assert "per (lower is better) 9.25 dense 8.5" in said
    assert "2.00x [1.90, 2.10], 200.0 → 100.0 ms" in said
    assert "parameters \N{MINUS SIGN}45.0 % 2,000 → 1,100" in said
    assert "time to prune 6 min 0 s" in said
    assert "AutoModelForSeq2SeqLM.from_pretrained" in said
    assert "hidden dimensions: 15 of 16" in said


def test_the_runs_page_has_curves_of_sparsity_losses_multipliers_and_quality(run_text):
    said = words(run_text)
    training = said[said.index("Training Sparsity") :]
    headings = [training.index(name) for name in ("Sparsity", "Losses", "Multipliers", "Quality")]
    assert headings == sorted(headings)
    for name in ("target", "realised sparsity", "prediction", "lambda 1", "lambda 2"):
        assert name in training


def test_a_plan_that_does_not_fit_the_report_leaves_out_the_map_alone():
    assert 'id="kept"' not in run_page(log=[], structure=STRUCTURE[:-1])
    assert 'id="kept"' in run_page(log=[])
    assert "hidden" in KEEP


def test_the_comparison_says_which_row_to_choose_and_what_it_costs(compared_text):
    said = words(compared_text)
    assert "Fastest of all: nash-2" in said
    answer = said[said.index("No other row is as good and as fast") :]
    assert "1.36x the dense model's speed [1.31, 1.40]".replace("'", "&#39;") in answer
    assert "per 8.6; against dense +0.038 [\N{MINUS SIGN}0.3, +0.4], no difference" in answer
    assert "29 % fewer parameters" in answer
    assert "95 s to prune" in answer


def test_a_failed_row_stays_in_the_table_with_its_error_below(compared_text):
    assert '<tr class="failed">' in compared_text
    assert ERROR.split("[red]")[0] in words(compared_text)


def test_maps_and_curves_stand_under_the_names_of_their_rows(compared_text):
    kept = compared_text[compared_text.index('id="kept"') : compared_text.index('id="training"')]
    names = [re.sub("<[^>]+>", "", name) for name in re.findall("<h3>(.*?)</h3>", kept)]
    assert names == ["nash-2", "cofi", UGLY.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")]


@pytest.mark.parametrize("missing", ["quality", "speed"])
def test_a_comparison_without_quality_or_speed_says_so_in_place_of_the_plot(missing):
    compared = comparison(**{missing: None})
    for row in compared["rows"]:
        row[missing] = row["frontier"] = None
    page = comparison_page(compared)
    assert "No row has both a quality and a speed" in page
    assert "table class" in page


def test_a_row_whose_time_could_not_be_taken_is_in_the_table_only():
    compared = changed("cofi", speed={"error": "out of memory"}, frontier=None)
    plot = comparison_page(compared)
    first = plot[plot.index("<svg") : plot.index("</svg>")]
    assert "cofi" not in first
    assert "nash-2" in first


def test_a_cell_sorts_by_its_key_and_an_unknown_one_by_nothing(compared_text):
    optin = re.search(r'<tr class="failed">(.*?)</tr>', compared_text, re.DOTALL)[1]
    keys = re.findall(r'data-key="([^"]*)"', optin)
    assert keys[0] == "optin"
    assert "" in keys[1:]
    assert Cell("x").key is None


def test_rendering_a_page_imports_no_torch_and_the_modules_no_jinja2_or_matplotlib():
    code = (
        "import sys, prunekit.reports.run_page, prunekit.reports.comparison_page\n"
        "heavy = {'torch', 'transformers', 'jinja2', 'matplotlib'}\n"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
