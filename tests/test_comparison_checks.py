"""Which runs may stand in one table."""

import copy

import pytest

from prunekit.comparison.checks import check_comparable
from prunekit.errors import ComparisonError

QUALITY = {
    "primary": "per",
    "higher_is_better": False,
    "dense": {"per": 8.5, "per_stderr": 0.3, "n": 100},
    "pruned": {"per": 9.0, "n": 100},
    "evaluated": {
        "examples": "aa",
        "split": "test",
        "limit": None,
        "num_beams": 1,
        "metrics": {"per": "1", "wer": "1"},
    },
}


def report(run, evaluated=(), **quality):
    own = copy.deepcopy(QUALITY) | quality
    own["evaluated"] |= dict(evaluated)
    return {"run": run, "label": "nash", "base_config_sha256": "c0", "quality": own}


def complaint(*reports):
    with pytest.raises(ComparisonError) as caught:
        check_comparable(reports)
    return str(caught.value)


def test_runs_scored_alike_may_be_compared():
    other = report("runs/b", pruned={"per": 20.0, "n": 100})
    check_comparable([report("runs/a"), other, report("runs/c")])


def test_nothing_and_one_run_may_be_compared():
    check_comparable([])
    check_comparable([report("runs/a")])


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"evaluated": {"examples": "bb"}}, "  examples (sha256): aa and bb"),
        ({"evaluated": {"split": "validation"}}, "  split: test and validation"),
        ({"evaluated": {"limit": 50}}, "  limit: none and 50"),
        ({"evaluated": {"num_beams": 4}}, "  beams: 1 and 4"),
        ({"evaluated": {"metrics": {"per": "2", "wer": "1"}}}, "  version of per: 1 and 2"),
        ({"evaluated": {"metrics": {"per": "1"}}}, "  version of wer: 1 and none"),
        ({"primary": "wer"}, "  primary metric: per and wer"),
        ({"higher_is_better": True}, "  direction of the primary metric: False and True"),
        ({"dense": {"per": 8.6, "per_stderr": 0.3, "n": 100}}, "  dense model's per: 8.5 and 8.6"),
    ],
)
def test_what_differs_is_named_with_both_values(changes, line):
    text = complaint(report("runs/a"), report("runs/b", **changes))
    assert text.splitlines()[1:3] == ["runs/a and runs/b differ:", line]


def test_another_dense_configuration_is_refused_with_what_to_do():
    other = report("runs/b") | {"base_config_sha256": "c1"}
    text = complaint(report("runs/a"), other)
    assert "  dense model's configuration (sha256): c0 and c1" in text
    assert text.splitlines()[-1] == (
        "Run them again with the same task, data, evaluate section and prunekit version, and the same dense "
        "model (name it under `teacher:` so that it is not trained anew), or leave out the ones that differ."
    )


def test_every_difference_of_every_run_is_named_at_once():
    second = report("runs/b", {"split": "validation", "num_beams": 4})
    text = complaint(report("runs/a"), second, report("runs/c"), report("runs/d", {"limit": 7}))
    assert text.splitlines() == [
        "these runs cannot be compared.",
        "runs/a and runs/b differ:",
        "  split: test and validation",
        "  beams: 1 and 4",
        "runs/a and runs/d differ:",
        "  limit: none and 7",
        "Run them again with the same task, data, evaluate section and prunekit version, or leave out the "
        "ones that differ.",
    ]


def test_rounding_of_the_dense_models_figures_is_no_difference():
    check_comparable([report("runs/a"), report("runs/b", dense={**QUALITY["dense"], "per": 8.5 + 1e-9})])


def test_older_runs_are_refused_by_name_with_the_command_that_makes_them_anew():
    old = report("runs/my run")
    del old["quality"]["evaluated"]
    text = complaint(report("runs/a"), old)
    assert text.splitlines() == [
        "these runs do not say which examples and metric versions they were scored on. Make them anew:",
        "  runs/my run: prunekit prune --method nash 'runs/my run/recipe.yaml' --out 'runs/my run-again'",
    ]
