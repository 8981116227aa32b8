"""What a paper printed stands beside what the run reached."""

from __future__ import annotations

import json

import pytest
import yaml
from cli_calls import call_main
from pipeline_calls import REGISTRY, quick_recipe, run, saved_tiny

from prunekit.finetune import finetune
from prunekit.recipe import load_recipe
from prunekit.reports.published import published_section

pytestmark = pytest.mark.slow

PUBLISHED = {
    "paper": "A paper (2023)",
    "place": "Table 1",
    "dense": {"rougeL": 43.33},
    "methods": {"nash-2": {"rougeL": 38.89, "speedup": 5.53, "parameters": 80_000_000}},
    "remarks": ["the paper's beams are not known"],
}
REPORT = {
    "label": "nash-2",
    "recipe": {"published": PUBLISHED},
    "achieved": {"params": {"dense": 222_903_552, "pruned": 102_998_016}},
    "quality": {
        "dense": {"rougeL": 43.01, "rougeL_stderr": 0.61},
        "pruned": {"rougeL": 38.5, "rougeL_stderr": 0.55},
    },
    "speed": {"speedup": 4.9, "speedup_low": 4.8, "speedup_high": 5.0},
}


def rows(report):
    lines = [
        line for block in published_section(report) for line in block.splitlines() if line.startswith("| ")
    ]
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines[2:]]


def test_published_and_reached_figures_stand_side_by_side():
    assert rows(REPORT) == [
        ["rougeL", "43.33", "43.01 ± 0.61", "38.89", "38.5 ± 0.55"],
        ["speedup", "", "1x", "5.53x", "4.90x [4.80, 5.00]"],
        ["parameters", "", "222,903,552", "80,000,000", "102,998,016"],
    ]
    text = "\n".join(published_section(REPORT))
    assert "A paper (2023), Table 1." in text
    assert "- the paper's beams are not known" in text


def test_what_was_not_measured_is_said():
    assert rows({**REPORT, "speed": None})[1] == ["speedup", "", "not measured", "5.53x", "not measured"]
    assert rows({**REPORT, "quality": {}})[0] == ["rougeL", "43.33", "not measured", "38.89", "not measured"]


def test_another_label_has_the_dense_models_figures_alone():
    assert rows({**REPORT, "label": "cofi"}) == [["rougeL", "43.33", "43.01 ± 0.61", "", "38.5 ± 0.55"]]


def test_a_recipe_without_published_figures_has_no_such_section():
    assert published_section({**REPORT, "recipe": {"published": None}}) == []


@pytest.mark.parametrize("published", [None, {"paper": "P", "place": "T", "dense": {"per": 8.0}}])
def test_the_runs_report_has_the_section_where_the_recipe_says_so(tmp_path, published):
    keys = {"methods": {"first": {}}, "recover": {"epochs": 0}, "published": published}
    run(quick_recipe(saved_tiny(tmp_path / "t5"), **keys), tmp_path / "run")
    assert ("## Beside the published figures" in (tmp_path / "run" / "report.md").read_text()) == bool(
        published
    )


def test_finetune_shows_the_dense_models_published_figures(tmp_path):
    made = quick_recipe(
        saved_tiny(tmp_path / "t5"),
        methods={},
        train={"max_steps": 1},
        published={"paper": "P", "place": "T", "dense": {"per": 8.0}},
    )
    assert finetune(made, tmp_path / "run", registry=REGISTRY)["published"] == {"per": 8.0}


def test_figures_for_a_label_that_the_recipe_lacks_are_a_fault(tmp_path, capsys):
    recipe = {
        "version": 1,
        "model": "embedded:t5-g2p",
        "task": {"name": "g2p"},
        "budget": {"sparsity": 0.3, "scope": ["encoder.*"]},
        "methods": {"nash-3": {"method": "nash", "decoder_layers": 3}},
        "published": {"paper": "P", "place": "T", "methods": {"nash_3": {"per": 9.0}}},
    }
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    done = call_main(capsys, "recipes", "validate", str(tmp_path))
    assert done.code == 2
    assert "methods has no label 'nash_3'; did you mean nash-3? (labels: nash-3)" in done.err


def test_a_recipe_with_published_figures_is_read_back_as_it_was(tmp_path):
    recipe = {
        "version": 1,
        "model": "embedded:t5-g2p",
        "task": {"name": "g2p"},
        "published": {"paper": "P", "place": "T", "dense": {"per": 9.0}},
    }
    (tmp_path / "r.yaml").write_text(json.dumps(recipe))
    loaded = load_recipe(tmp_path / "r.yaml", registry=REGISTRY)
    assert loaded.published is not None
    assert loaded.published.dense == {"per": 9.0}
