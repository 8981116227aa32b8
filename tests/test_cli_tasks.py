"""prunekit tasks: what is listed and shown."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from fake_plugins import plugin, registry_of
from pydantic import BaseModel, Field
from typer.testing import CliRunner

from prunekit.cli.tasks import app
from prunekit.plugins import get_registry


class EchoConfig(BaseModel):
    words: int = Field(5, description="words in the data")


class Echo:
    name = "echo"
    summary = "says [what] it hears"
    family = "text2text"
    primary_metric = "per"
    Config = EchoConfig


@pytest.fixture
def call():
    """The printed output of a command."""

    def run(*arguments):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
        return SimpleNamespace(out=result.stdout, err=result.stderr)

    return run


@pytest.fixture
def fake(monkeypatch):
    def fail():
        raise ImportError("nothing there")

    metrics = [SimpleNamespace(name="per", higher_is_better=False)]
    registry = registry_of(good=plugin(tasks=[Echo], metrics=metrics), bad=plugin(tasks=fail))
    monkeypatch.setattr("prunekit.plugins.get_registry", lambda: registry)


@pytest.mark.usefixtures("fake")
def test_list_shows_each_task_as_it_is_and_broken_plugins_on_the_side(call):
    printed = call("list")
    assert printed.out.splitlines() == [
        "name  state   family     metric  summary                     distribution",
        "echo  ok      text2text  per     says [what] it hears        good-dist 1.0",
        "bad   broken  -          -       ImportError: nothing there  bad-dist 1.0",
    ]
    assert printed.err == (
        "Broken: bad-dist 1.0. Everything else works without; mend or uninstall what is broken.\n"
    )


@pytest.mark.usefixtures("fake")
def test_list_can_print_json(call):
    assert json.loads(call("list", "--json").out) == {
        "tasks": [
            {
                "name": "echo",
                "version": "1.0",
                "distribution": "good-dist",
                "state": "ok",
                "error": None,
                "family": "text2text",
                "metric": "per",
                "summary": "says [what] it hears",
            },
            {
                "name": "bad",
                "version": "1.0",
                "distribution": "bad-dist",
                "state": "broken",
                "error": "ImportError: nothing there",
            },
        ],
    }


@pytest.mark.usefixtures("fake")
def test_show_tells_the_metrics_direction_and_the_keys(call):
    lines = call("show", "echo").out.splitlines()
    assert lines[-7:] == [
        "distribution  good-dist",
        "metrics",
        "  per  lower is better",
        "",
        "Keys under task in a recipe, besides name:",
        "key    type  default  meaning",
        "words  int   5        words in the data",
    ]


def test_list_has_families_and_data_sets_by_name(call):
    rows = {line.split()[0]: line.split()[2:4] for line in call("list").out.splitlines()}
    assert rows["text2text"] == ["text2text", "-"]
    assert rows["samsum"] == ["text2text", "rougeL"]
    assert rows["cola-text"] == ["text2text-classification", "mcc"]


def test_show_prints_the_whole_file_of_a_named_task(call):
    printed = call("show", "cola-text").out
    assert "citation        Warstadt et al. 2019" in printed
    assert "homepage        https://gluebenchmark.com" in printed
    assert "    source  cola sentence: {sentence}" in printed
    assert "      unacceptable  not_acceptable" in printed
    assert "    hub       nyu-mll/glue" in printed
    assert "  mcc       higher is better" in printed
    assert "\nnote: The NASH release writes not_acceptable where T5 was trained on unacceptable" in printed
    assert "It was not run against the hub" in printed


def test_show_gives_the_files_values_as_the_defaults_of_the_keys(call):
    rows = [line.split() for line in call("show", "mrpc-text").out.partition("Keys under")[2].splitlines()]
    assert ["max_source_length", "int", "128"] in [row[:3] for row in rows]
    assert ["prompt", "Literal['t5',", "'released']", "t5"] in [row[:4] for row in rows]


def test_show_prints_a_named_task_as_json(call):
    shown = json.loads(call("show", "rte", "--json").out)
    assert shown["keys"]["data"]["config"] == "rte"
    assert shown["metrics"] == {"accuracy": "higher is better"}
    assert shown["notes"][0].startswith("The labels of the data's own test split are hidden")
    assert shown["config"]["properties"]["max_length"]["default"] == 128
    assert "required" not in shown["config"]


def test_an_unknown_name_is_answered_with_the_nearest():
    error = CliRunner().invoke(app, ["show", "samsun"]).exception
    assert "no task 'samsun' is installed; did you mean samsum?" in str(error)


def test_every_installed_task_can_be_shown(call):
    for name in get_registry().tasks:
        assert "\nsummary" in call("show", name).out
