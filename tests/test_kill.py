"""kill -9 at random moments of the quickstart: the same command again ends in the same bytes."""

from __future__ import annotations

import json
import random
from types import SimpleNamespace

import kills
import numpy as np
import pytest
from kills import ROOT, UNRENAMED
from number_task import fit, net, spec, squared_error

SIGKILL = -9
SEED = 9

# Few words, few steps, and all stages.
SMALL = [
    "task.train_examples=96",
    "train.max_steps=6",
    "train.batch_size=8",
    "train.mask_learning_rate=1.0",
    "train.eval_every=3",
    "train.checkpoint_every=2",
    "recover.max_steps=3",
    "recover.batch_size=8",
    "recover.checkpoint_every=2",
    "evaluate.limit=4",
    "speed.rounds=2",
    "speed.warmup=0",
    "speed.batch_size=2",
    "speed.num_beams=1",
    "speed.new_tokens=2",
    "speed.threads=1",
]
LEARNED = ["methods.nash.sparsity_tolerance=0.9", "methods.nash.validation_limit=4"]
SCORED = ["methods.optin.examples=4", "methods.optin.batch_size=4"]

# How many calls of each part are drawn at which the run is killed.
QUICKSTART = {
    "around the stages": 1,
    "opening": 1,
    "planning": 1,
    "planning: training": 2,
    "planning: assessing": 2,
    "planning: checkpoint": 2,
    "planning: cutting": 1,
    "planning: checking": 1,
    "planning: saving": 1,
    "recovering: training": 1,
    "recovering: checkpoint": 1,
    "evaluating": 1,
    "timing": 1,
    "reporting": 1,
    UNRENAMED: 3,
}
ONE_SHOT = {"planning: scoring": 2, "planning: keeping scores": 1}


def command(method, *settings):
    changes = [part for setting in (*SMALL, *settings) for part in ("--set", setting)]
    return ["prune", "--method", method, str(ROOT / "recipes" / "quickstart.yaml"), "--out", "run", *changes]


def points(wanted):
    return [
        pytest.param(part, number, id=f"{part} {number + 1}")
        for part, count in wanted.items()
        for number in range(count)
    ]


@pytest.fixture(scope="module")
def zygote(tmp_path_factory):
    with kills.zygote(tmp_path_factory.mktemp("words") / "words.xz") as found:
        yield found


def never_killed(zygote, folder, arguments, wanted):
    """A run that nobody looked at, one whose calls were counted, and calls drawn from these."""
    runs = SimpleNamespace(arguments=arguments, whole=folder / "whole", counted=folder / "counted")
    assert zygote.run(runs.whole, arguments) == 0, said(runs.whole)
    # Only now: the first run imports modules, whose calls no later run has.
    assert zygote.run(runs.counted, arguments, mapped=True) == 0, said(runs.counted)
    runs.calls = json.loads((runs.counted / "calls.json").read_text())
    runs.drawn = kills.drawn(runs.calls, wanted, SEED)
    return runs


@pytest.fixture(scope="module")
def learned(zygote, tmp_path_factory):
    folder = tmp_path_factory.mktemp("learned")
    return never_killed(zygote, folder, command("nash", *LEARNED), QUICKSTART)


@pytest.fixture(scope="module")
def scored(zygote, tmp_path_factory):
    return never_killed(zygote, tmp_path_factory.mktemp("scored"), command("optin", *SCORED), ONE_SHOT)


def said(folder):
    return (folder / "said.txt").read_text(errors="replace")


def half_written(folder):
    return [path.name for path in folder.rglob("*.partial")]


def check_recovery(zygote, runs, folder):
    """The same command, given again, ends as the run that was never killed did."""
    assert zygote.run(folder, runs.arguments) == 0, said(folder)
    assert kills.differences(folder, runs.whole) == []
    assert half_written(folder) == []


def test_twenty_points_of_the_quickstart_are_drawn():
    assert sum(QUICKSTART.values()) == 20


@pytest.mark.slow
def test_counting_its_calls_does_not_change_a_run(learned):
    assert kills.differences(learned.counted, learned.whole) == []


@pytest.mark.slow
@pytest.mark.parametrize(("part", "number"), points(QUICKSTART))
def test_a_killed_quickstart_goes_on_and_ends_in_the_same_bytes(zygote, learned, tmp_path, part, number):
    assert zygote.run(tmp_path, learned.arguments, kill_at=learned.drawn[part][number]) == SIGKILL
    assert bool(half_written(tmp_path)) or part != UNRENAMED
    check_recovery(zygote, learned, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("part", "number"), points(ONE_SHOT))
def test_a_killed_one_shot_method_goes_on_and_ends_in_the_same_bytes(zygote, scored, tmp_path, part, number):
    assert zygote.run(tmp_path, scored.arguments, kill_at=scored.drawn[part][number]) == SIGKILL
    check_recovery(zygote, scored, tmp_path)


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_ends_in_the_same_bytes(zygote, learned, tmp_path):
    generator, statuses = random.Random(SEED), []
    total = max(last for ranges in learned.calls.values() for _, last in ranges)
    for _ in range(5):
        statuses.append(zygote.run(tmp_path, learned.arguments, kill_at=generator.randint(1, total // 3)))
    assert statuses == [SIGKILL] * 5
    check_recovery(zygote, learned, tmp_path)


def test_training_begins_with_every_generator_seeded(tmp_path, one_thread):
    figures = []
    for name in ("first", "second"):
        model = net()

        def loss(batch, step, model=model):
            drawn = {"python": random.random(), "numpy": float(np.random.rand())}
            return squared_error(model)(batch, step)[0], drawn

        fit(tmp_path / name, model, spec(), loss=loss)
        figures.append((tmp_path / name / "train.jsonl").read_text())
    assert figures[0] == figures[1]
