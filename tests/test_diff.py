"""``prunekit diff``: what runs keep, two models evaluated, the terminal and the page."""

import json

import pytest
from browser import browser, opened
from cli_calls import call_main
from difference_calls import classifier, write_answered

pytestmark = pytest.mark.slow

__all__ = ["browser"]

CLASSES = ["good", "bad"] * 15
LENGTHS = [4] * 15 + [9] * 15
DENSE = classifier("dense", CLASSES, CLASSES, LENGTHS)
PRUNED = classifier("pruned", ["bad"] * 20 + CLASSES[20:], CLASSES, LENGTHS)


@pytest.fixture
def diff(capsys):
    return lambda *arguments: call_main(capsys, "diff", *map(str, arguments))


@pytest.fixture
def run(tmp_path):
    return write_answered(tmp_path / "run", DENSE, PRUNED)


def test_a_run_alone_sets_its_pruned_model_against_its_dense_one(diff, run):
    done = diff(run, "--worst", "1")
    assert done.code == 0, done.err
    shown = [line.rstrip() for line in done.out.splitlines()]
    assert shown[0] == f"base: dense, pruned: {run}; 30 examples."
    assert shown[1].startswith("accuracy (higher is better): 100 -> 66.67, change -33.33 [")
    assert shown[1].endswith("], worse.")
    assert shown[2] == "Answers that differ: 33.3 % ± 8.6 (10)."
    assert shown[3] == "Judged: 10 right -> wrong, 0 wrong -> right, 20 neither."
    assert "By class, most regressions first" in shown
    assert shown[8].split()[:4] == ["good", "15", "10", "0"]
    assert shown[-5:] == [
        "#0  -100",
        "  input       text 0",
        "  reference   good",
        "  base        good",
        "  pruned      bad",
    ]


def test_two_runs_set_one_pruned_model_against_the_other(diff, run, tmp_path):
    other = write_answered(tmp_path / "other", DENSE, DENSE)
    found = json.loads(diff(run, other, "--json").out)
    assert (found["base"]["name"], found["pruned"]["name"]) == (str(run), str(other))
    assert found["flips"] == {"by": "accuracy", "broken": 0, "fixed": 10, "same": 20}
    assert found["difference"]["verdict"] == "better"


def test_json_lists_as_many_regressions_as_asked_for(diff, run):
    assert len(json.loads(diff(run, "--json", "--worst", "3").out)["regressions"]) == 3


def test_no_regression_is_said_so(diff, tmp_path):
    run = write_answered(tmp_path / "run", DENSE, DENSE)
    assert "No answer changed for the worse." in diff(run).out


def test_texts_are_shown_as_they_are_and_never_obeyed(diff, tmp_path):
    answers = ["[bold]<b>\x1b[31m\nlast", *CLASSES[1:]]
    run = write_answered(tmp_path / "run", DENSE, classifier("pruned", answers, CLASSES, LENGTHS))
    page = tmp_path / "page.html"
    done = diff(run, "--html", page)
    assert r"  pruned      [bold]<b>\x1b[31m last" in done.out
    assert "\x1b" not in done.out
    assert "[bold]&lt;b&gt;" in page.read_text()
    assert "[bold]<b>" not in page.read_text()
    assert "\x1b" not in page.read_text()


def test_a_long_text_is_cut_on_the_terminal_and_whole_on_the_page(diff, tmp_path):
    answers = ["x" * 1000, *CLASSES[1:]]
    run = write_answered(tmp_path / "run", DENSE, classifier("pruned", answers, CLASSES, LENGTHS))
    page = tmp_path / "page.html"
    done = diff(run, "--html", page)
    assert "x" * 299 + "…" in done.out
    assert "x" * 301 not in done.out
    assert "x" * 1000 in page.read_text()


def test_the_page_says_what_the_terminal_says(diff, run, tmp_path):
    page = tmp_path / "page.html"
    assert diff(run, "--html", page, "--worst", "2").code == 0
    text = page.read_text()
    for part in (
        "Answers that differ: 33.3 % ± 8.6 (10).",
        "By class, most regressions first",
        "By length of the input",
        "Worst regressions by accuracy: 2 of 10",
        "Example 0: -100",
    ):
        assert part in text


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_opens_on_a_phone_with_nothing_beside_it(diff, run, tmp_path, browser, scheme):
    file = tmp_path / "page.html"
    assert diff(run, "--html", file).code == 0
    with opened(browser, file, width=375, scheme=scheme) as page:
        assert page.locator("table").count() == 2
        assert page.locator("#regressions li").count() == 10
        assert page.evaluate("document.documentElement.scrollWidth") == 375


def test_the_terminal_has_the_first_classes_and_the_page_all(diff, tmp_path):
    classes = [f"class {number:02}" for number in range(25) for _ in range(5)]
    side = classifier("dense", classes, classes)
    run = write_answered(tmp_path / "run", side, side)
    page = tmp_path / "page.html"
    shown = diff(run, "--html", page).out
    assert "By class, most regressions first, the first 20 of 25" in shown
    assert "class 19" in shown
    assert "class 20" not in shown
    assert "class 24" in page.read_text()


def test_two_models_are_evaluated_on_the_same_examples(diff):
    done = diff("embedded:t5-g2p", "embedded:t5-g2p", "--task", "g2p", "--limit", "6", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["n"] == 6
    assert found["metric"] == "per"
    assert found["difference"] == {"difference": 0.0, "low": 0.0, "high": 0.0, "verdict": "no difference"}


def test_runs_that_were_not_scored_alike_are_refused_with_what_differs(diff, run, tmp_path):
    other = write_answered(tmp_path / "other", DENSE, PRUNED, num_beams=4, limit=30)
    done = diff(run, other)
    assert done.code == 1
    assert (
        f"ComparisonError: {run} and {other} were not scored alike (limit: None and 30; num_beams: 1 and 4). "
        "Give --task NAME or --recipe FILE to evaluate both models now."
    ) in done.err


def test_a_run_that_kept_no_answers_says_what_to_do(diff, run):
    (run / "answers-dense.jsonl").unlink()
    assert (
        f"{run} holds no answers-dense.jsonl, so there are no answers to compare. Give two" in diff(run).err
    )
    quality = json.loads((run / "quality.json").read_text())
    del quality["evaluated"]
    (run / "quality.json").write_text(json.dumps(quality))
    assert (
        f"{run} is of an older prunekit, which kept no answers. Give two models with --task" in diff(run).err
    )


def test_what_is_no_run_needs_a_task(diff, tmp_path):
    assert f"{tmp_path} holds no quality.json, so it is no run that was scored." in diff(tmp_path).err


def test_a_damaged_file_of_answers_is_named_with_its_line(diff, run):
    with (run / "answers-pruned.jsonl").open("a") as file:
        file.write("{\n")
    done = diff(run)
    assert done.code == 1
    assert "answers-pruned.jsonl, line 31" in done.err


def test_a_damaged_quality_file_is_named(diff, run):
    (run / "quality.json").write_text("{")
    done = diff(run)
    assert done.code == 1
    assert f"{run / 'quality.json'} is damaged" in done.err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--limit", "5", "--num-beams", "2"], "--limit, --num-beams says how to evaluate; give --task NAME"),
        (["--task", "g2p"], "--task and --recipe evaluate two models; give PRUNED too."),
        (["other", "--task", "g2p", "--recipe", "r.yaml"], "give either --task NAME or --recipe FILE."),
    ],
)
def test_options_that_do_not_go_together_are_told(diff, arguments, text):
    done = diff("base", *arguments)
    assert done.code == 2
    assert text in done.err
