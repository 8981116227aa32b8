"""What a metric may ask of a task: the sources, the best answers; that the page of metrics is complete."""

import re
from pathlib import Path

import pytest
import yaml
from prunekit_judge.metric import LLM_JUDGE

from prunekit.errors import DataError, PluginError
from prunekit.recipe import Recipe
from prunekit.tasks.answering import Answered, check_metric, evaluation
from prunekit.tasks.base import Metric, MetricValue
from prunekit.tasks.metrics import ACCURACY, METRICS, TOP
from prunekit.tasks.own.text2text import Text2TextConfig

ANSWERS, REFERENCES = ["a\nb", "c\nd"], [["b"], ["c"]]


def scores(metrics, answers=ANSWERS, references=REFERENCES, *, sources=False, ranks=1):
    """The metrics of two answers; the inputs are ``x`` and ``y``."""
    asked = Answered(["x", "y"], references, [1, 2], answers, ranks)
    return evaluation(metrics, asked, has_sources=sources).metrics


def recorder(calls, **fields):
    def function(*given):
        calls.append(given)
        return MetricValue(1.0, 0.5)

    return Metric("seen", higher_is_better=True, function=function, **fields)


def test_a_metric_sees_answers_and_references_alone_unless_it_asks():
    calls = []
    assert scores([recorder(calls)]) == {"seen": 1.0, "seen_stderr": 0.5, "n": 2}
    assert calls == [(ANSWERS, REFERENCES)]


def test_a_metric_that_wants_sources_gets_them():
    calls = []
    scores([recorder(calls, wants_sources=True)], sources=True)
    assert calls == [(ANSWERS, REFERENCES, ["x", "y"])]


def test_a_task_without_sources_refuses_a_metric_that_wants_them_before_any_is_scored():
    calls = []
    metrics = [recorder(calls), recorder(calls, wants_sources=True)]
    with pytest.raises(
        DataError,
        match=r"^Metric seen reads the texts that the model was given, and this task gives none; leave",
    ):
        scores(metrics)
    assert calls == []


def test_each_metric_gets_as_many_of_the_best_answers_as_it_looks_at():
    found = scores([ACCURACY, *TOP], ranks=5)
    assert (found["accuracy"], found["top-1"], found["top-5"]) == (50, 50, 100)


def test_a_metric_of_more_answers_than_the_task_gives_is_refused():
    with pytest.raises(
        DataError,
        match=r"^Metric top-5 looks at the model's 5 best answers to an example, and this task gives one",
    ):
        scores(TOP)
    with pytest.raises(DataError, match=r"and this task gives 3; leave it out of the task's metrics\.$"):
        check_metric(TOP[1], has_sources=True, ranks=3)


def test_an_answer_of_several_lines_stays_whole_where_there_is_one_an_example():
    assert scores([ACCURACY], references=[["a\nb"], ["c\nd"]])["accuracy"] == 100


def test_a_metric_of_no_answers_is_a_fault_of_its_plugin():
    with pytest.raises(
        PluginError,
        match=r"^Metric 'seen': ranks is 0; give the number of answers that it looks at, at least 1",
    ):
        recorder([], ranks=0)


PAGE = (Path(__file__).parents[1] / "docs" / "metrics.md").read_text()


@pytest.mark.parametrize("metric", [*METRICS, LLM_JUDGE], ids=lambda metric: metric.name)
def test_every_metric_has_a_row_with_its_direction(metric):
    (row,) = [line for line in PAGE.splitlines() if re.match(rf"\|[^|]*`{metric.name}`[^|]*\|", line)]
    assert row.split(" | ")[2] == ("higher" if metric.higher_is_better else "lower")


def test_the_recipes_shown_name_metrics_that_there_are():
    blocks = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    recipe = yaml.safe_load(blocks[-1])
    named = {name for block in blocks for name in re.search(r"metrics: \[(.*)\]", block)[1].split(", ")}
    assert named <= {metric.name for metric in (*METRICS, LLM_JUDGE)}
    Recipe.model_validate(recipe)
    keys = {key: value for key, value in recipe["task"].items() if key not in ("name", "metrics")}
    assert Text2TextConfig(**keys, metrics=["rougeL"]).target == "response"
