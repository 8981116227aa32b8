"""Where two models' answers differ, example by example."""

import math

import pytest
from difference_calls import answer, classifier

from prunekit.comparison.difference import Side, difference
from prunekit.errors import ComparisonError
from prunekit.tasks.metrics.edit import PER, WER

CLASSES = ["a", "b"] * 10
ALL_RIGHT = classifier("dense", CLASSES, CLASSES)


def changed(*numbers):
    """A model that says ``c`` to these examples and is right otherwise."""
    answers = ["c" if number in numbers else name for number, name in enumerate(CLASSES)]
    return classifier("pruned", answers, CLASSES)


def compared(base, pruned, metric="accuracy", higher_is_better=True):
    return difference(base, pruned, metric=metric, higher_is_better=higher_is_better)


def phones(name, answers, references):
    """A model scored by phone error rate, and by the share of wrong words."""
    values = {metric.name: metric.function(answers, [[each] for each in references]) for metric in (PER, WER)}
    rows = [
        answer(given, wanted, **{name: value.influences[number] for name, value in values.items()})
        for number, (given, wanted) in enumerate(zip(answers, references, strict=True))
    ]
    return Side(name, {name: value.value for name, value in values.items()}, rows)


def without(side, metric):
    """The same answers, of a task that is not scored by this metric."""
    metrics = {name: value for name, value in side.metrics.items() if name != metric}
    rows = [
        {**row, "influences": {name: value for name, value in row["influences"].items() if name != metric}}
        for row in side.answers
    ]
    return Side(side.name, metrics, rows)


def test_a_model_against_itself_differs_nowhere():
    base = changed(3, 4)
    found = compared(base, base)
    assert found["difference"] == {"difference": 0.0, "low": 0.0, "high": 0.0, "verdict": "no difference"}
    assert found["disagreement"] == {"count": 0, "rate": 0.0, "stderr": 0.0}
    assert found["flips"] == {"by": "accuracy", "broken": 0, "fixed": 0, "same": 20}
    assert found["regressions"] == []


def test_the_mean_change_is_the_difference_of_the_metrics():
    found = compared(ALL_RIGHT, changed(0, 1, 2, 5))
    assert (found["base"], found["pruned"]) == (
        {"name": "dense", "value": 100.0},
        {"name": "pruned", "value": 80.0},
    )
    assert found["difference"]["difference"] == pytest.approx(-20)
    assert found["difference"]["low"] < -20 < found["difference"]["high"] < 0
    assert found["difference"]["verdict"] == "worse"


def test_flips_are_counted_both_ways():
    found = compared(changed(0, 1), changed(1, 2, 3))
    assert found["flips"] == {"by": "accuracy", "broken": 2, "fixed": 1, "same": 17}


def test_answers_that_differ_without_a_flip_still_disagree():
    other = classifier("pruned", ["d", *CLASSES[1:]], CLASSES)
    found = compared(changed(0), other)
    assert found["flips"]["same"] == 20
    assert found["disagreement"]["count"] == 1
    assert found["disagreement"]["rate"] == pytest.approx(5)
    assert found["disagreement"]["stderr"] == pytest.approx(100 * math.sqrt(0.05 * 0.95 / 20))


def test_classes_come_by_what_broke():
    found = compared(ALL_RIGHT, changed(1, 3, 4))
    rows = [(row["class"], row["n"], row["broken"], row["fixed"], row["same"]) for row in found["by_class"]]
    assert rows == [("b", 10, 2, 0, 8), ("a", 10, 1, 0, 9)]
    assert found["by_class"][0]["change"] == pytest.approx(-20)
    # Two of ten changes are -100: sqrt(0.2 * 0.8 * 10 / 9 / 10) of 100.
    assert found["by_class"][0]["stderr"] == pytest.approx(100 * math.sqrt(0.16 / 9))


def test_references_that_are_texts_are_no_classes():
    references = [f"sentence {number}" for number in range(20)]
    side = classifier("dense", references, references)
    assert compared(side, side)["by_class"] is None


def test_lengths_are_cut_into_ranges_of_about_as_many_examples():
    lengths = list(range(10, 30))
    base = classifier("dense", CLASSES, CLASSES, lengths)
    answers = ["c" if number >= 16 else name for number, name in enumerate(CLASSES)]
    found = compared(base, classifier("pruned", answers, CLASSES, lengths))
    rows = [(row["shortest"], row["longest"], row["n"], row["broken"]) for row in found["by_length"]]
    assert rows == [(10, 13, 4, 0), (14, 17, 4, 0), (18, 21, 4, 0), (22, 25, 4, 0), (26, 29, 4, 4)]


def test_one_length_makes_no_ranges():
    assert compared(ALL_RIGHT, changed(1))["by_length"] is None


def test_regressions_are_the_answers_that_got_worse_with_all_there_is_to_see():
    found = compared(changed(0), changed(7))
    assert found["regressions"] == [
        {
            "index": 7,
            "input": "text 7",
            "references": ["b"],
            "base": "b",
            "pruned": "c",
            "length": 5,
            "change": pytest.approx(-100),
        }
    ]


def test_a_rate_where_lower_is_better_has_its_regressions_above_zero():
    references = ["A B C D", "A B C D", "A B", "A"]
    base = phones("dense", references, references)
    pruned = phones("pruned", ["A B C D", "X X X D", "A X", "A"], references)
    found = compared(base, pruned, "per", higher_is_better=False)
    assert found["difference"]["difference"] == pytest.approx(100 * 4 / 11)
    assert [row["index"] for row in found["regressions"]] == [1, 2]
    assert found["regressions"][0]["change"] > found["regressions"][1]["change"] > 0


def test_flips_of_a_graded_metric_are_judged_by_one_that_tells_right_from_wrong():
    references = ["A B", "A C", "A D", "A E"]
    base = phones("dense", ["A B", "A C", "A X", "A E"], references)
    pruned = phones("pruned", ["A B", "X X", "A D", "A E"], references)
    found = compared(base, pruned, "per", higher_is_better=False)
    assert found["flips"] == {"by": "wer", "broken": 1, "fixed": 1, "same": 2}


def test_flips_of_a_graded_metric_alone_are_better_and_worse_where_the_answer_changed():
    references = ["A B", "A C D E", "A D", "A E"]
    base = without(phones("dense", ["A X", "A C D E", "A D", "A X"], references), "wer")
    pruned = without(phones("pruned", ["A X", "X X X E", "A D", "A E"], references), "wer")
    found = compared(base, pruned, "per", higher_is_better=False)
    assert found["flips"] == {"by": None, "broken": 1, "fixed": 1, "same": 2}


def test_scores_between_0_and_1_flip_too():
    base = Side("dense", {"hit": 0.5}, [answer("a", "a", hit=0.5), answer("b", "a", hit=-0.5)])
    pruned = Side("pruned", {"hit": 0.0}, [answer("b", "a", hit=0.0), answer("b", "a", hit=0.0)])
    assert compared(base, pruned, "hit")["flips"] == {"by": "hit", "broken": 1, "fixed": 0, "same": 1}


def test_other_examples_are_refused():
    other = classifier("pruned", CLASSES[:4], CLASSES[:4])
    with pytest.raises(ComparisonError, match="dense answered 20 examples and pruned 4"):
        compared(ALL_RIGHT, other)


@pytest.mark.parametrize("key", ["input", "references"])
def test_examples_that_differ_are_named(key):
    rows = [dict(row) for row in ALL_RIGHT.answers]
    rows[2] = {**rows[2], key: ["other"] if key == "references" else "other"}
    with pytest.raises(ComparisonError, match=f"the {key} of example 2 differs"):
        compared(ALL_RIGHT, Side("pruned", ALL_RIGHT.metrics, rows))


def test_one_example_has_no_spread():
    side = classifier("dense", ["a"], ["a"])
    with pytest.raises(ComparisonError, match="answered 1 examples; a difference has a spread from two on"):
        compared(side, side)


def test_a_metric_that_tells_nothing_of_single_examples_is_refused():
    side = without(ALL_RIGHT, "accuracy")
    with pytest.raises(ComparisonError, match="accuracy does not tell what single examples do to it"):
        compared(side, Side("pruned", {"accuracy": 100.0}, side.answers))
