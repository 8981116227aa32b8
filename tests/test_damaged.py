"""Kept scores, evaluations and times that are damaged are named, and never used in part."""

import json

import pytest
import torch
from comparison_calls import comparison
from safetensors.torch import load_file, save_file

from prunekit.comparison.pages import write_pages
from prunekit.errors import PlanError, RunFolderError
from prunekit.evaluations import score_once
from prunekit.files import write_text
from prunekit.scoring.cache import FILE, ScoreCache
from prunekit.scoring.scores import Scores

MARKS = {"method": "optin", "data": "abc"}


@pytest.fixture
def scores(tmp_path):
    """The file of a run's scores."""
    ScoreCache(tmp_path / "run", MARKS).save(Scores({"encoder.ffn": torch.arange(4.0)}))
    return tmp_path / "run" / FILE


def flipped(data, at):
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda data: data[:-5], "SafetensorError: "),
        (lambda data: b"", "SafetensorError: "),
        (lambda data: flipped(data, len(data) - 1), "its sha256 is not the one that it was written with"),
    ],
    ids=["cut off", "empty", "one bit"],
)
def test_damaged_scores_are_named_and_computed_anew(damage, said, scores, caplog):
    scores.write_bytes(damage(scores.read_bytes()))
    assert ScoreCache(scores.parent, MARKS).load() is None
    (message,) = caplog.messages
    assert message.startswith(f"scores in {scores} are damaged ({said}")
    assert message.endswith(") and not used: they are computed anew. Delete that file.")


def test_a_neighbours_whole_scores_are_taken_in_place_of_damaged_ones(scores, tmp_path):
    ScoreCache(tmp_path / "other", MARKS).save(Scores({"encoder.ffn": torch.arange(4.0)}))
    scores.write_bytes(flipped(scores.read_bytes(), scores.stat().st_size - 1))
    assert ScoreCache(scores.parent, MARKS).load().values["encoder.ffn"].tolist() == [0, 1, 2, 3]


def test_scores_without_a_digest_are_not_trusted(scores):
    marks = {"fingerprint": json.dumps(MARKS), "seconds": "1"}
    save_file(load_file(scores), scores, metadata=marks)
    assert ScoreCache(scores.parent, MARKS).load() is None


def test_scores_that_cannot_be_saved_leave_the_old_ones(scores, monkeypatch):
    def full(*_):
        raise OSError(28, "")

    cache = ScoreCache(scores.parent, MARKS)
    with monkeypatch.context() as patch:
        patch.setattr("os.replace", full)
        with pytest.raises(
            RunFolderError, match=r"scores\.safetensors cannot be written: the disk is full\."
        ):
            cache.save(Scores({"encoder.ffn": torch.zeros(4)}))
    assert cache.load().values["encoder.ffn"].tolist() == [0, 1, 2, 3]


@pytest.fixture
def evaluated(tmp_path, monkeypatch):
    """Scores a dense model, if need be; returns what is found and how often it was evaluated so far."""
    from pipeline_calls import saved_tiny
    from toy_task import copy_task

    from prunekit import evaluations
    from prunekit.models import load_model
    from prunekit.progress import Progress
    from prunekit.recipe import EvaluateSpec, TaskSpec

    name, calls, real = str(saved_tiny(tmp_path / "t5")), [], evaluations.score
    monkeypatch.setattr(evaluations, "score", lambda *given: calls.append(1) or real(*given))

    def again():
        found = score_once(
            name,
            load_model(name),
            copy_task(),
            task_spec=TaskSpec(name="copy"),
            spec=EvaluateSpec(limit=2),
            folder=tmp_path / "evaluations",
            progress=Progress(quiet=True),
        )
        return found, len(calls)

    return again


def test_whole_evaluations_are_kept(evaluated):
    evaluated()
    assert evaluated()[1] == 1


@pytest.mark.parametrize("name", ["scores.json", "answers.jsonl"])
@pytest.mark.parametrize("damage", ["cut off", "changed"])
def test_a_damaged_evaluation_is_named_and_made_again(name, damage, evaluated, caplog):
    first, _ = evaluated()
    path = first.answers.with_name(name)
    whole = path.read_text()
    write_text(path, whole[:-9] if damage == "cut off" else whole.replace("1", "2"))
    found, calls = evaluated()
    assert (calls, found.metrics, path.read_text()) == (2, first.metrics, whole)
    (message,) = caplog.messages
    assert message.startswith(str(path))
    assert message.endswith("The model is evaluated again.")


def test_damaged_times_of_a_comparison_are_named_with_what_to_delete(tmp_path):
    from pipeline_calls import saved_tiny

    from prunekit.comparison.timing import time_together
    from prunekit.recipe import SpeedSpec

    dense = saved_tiny(tmp_path / "run" / "model")
    (tmp_path / "timing.json").write_text('{"asked": ')
    with pytest.raises(RunFolderError) as caught:
        time_together(str(dense), {"a": tmp_path / "run"}, SpeedSpec(), tmp_path, None)
    where = f"{tmp_path / 'timing.json'} is damaged: not JSON: line 1, column 11"
    assert str(caught.value).startswith(where)
    assert str(caught.value).endswith("Delete it to time all models again.")


def test_a_damaged_plan_of_a_compared_run_is_named(tmp_path):
    (tmp_path / "report.json").write_text('{"structure": []}')
    (tmp_path / "plan.json").write_text('{"keep": ')
    made = comparison()
    names = [seed["run"] for row in made["rows"] for seed in row["seeds"]]
    with pytest.raises(PlanError, match=r"plan\.json is not a pruning plan: not JSON: line 1, column 10"):
        write_pages(made, dict.fromkeys(names, tmp_path), tmp_path)
