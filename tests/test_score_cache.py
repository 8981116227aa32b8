"""Scores kept in run folders: reused where nothing they depend on changed, and otherwise said why not."""

import logging

import pytest
import torch

from prunekit.scoring.cache import FILE, ScoreCache, fingerprint
from prunekit.scoring.scores import Scores
from prunekit.testing.tiny import tiny_inputs, tiny_model

NAME = "encoder.0.ffn.neurons"


def some_scores(seed=0):
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(5, generator=generator, dtype=torch.float64)
    return Scores(
        {NAME: values, "encoder.0.self_attn.heads": values[:2]},
        errors={NAME: values / 10},
        gradients={NAME: values[None]},
        exact={NAME: values * 2},
    )


def marks(**changes):
    model = tiny_model("bert")
    settings = {"method": "optin", "model": model, "batches": [tiny_inputs(model)], "settings": {"probes": 4}}
    return fingerprint(**{**settings, **changes})


def same(first, second):
    pairs = [
        (first.values, second.values),
        (first.errors, second.errors),
        (first.gradients, second.gradients),
        (first.exact, second.exact),
    ]
    return all(a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a) for a, b in pairs)


@pytest.mark.parametrize("reader", ["first", "second"])
def test_equal_fingerprints_give_the_saved_bits_to_the_run_and_to_its_neighbours(reader, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    ScoreCache(tmp_path / "first", marks()).save(some_scores())
    found = ScoreCache(tmp_path / reader, marks()).load()
    assert same(found, some_scores())
    assert caplog.messages == [f"scores of optin reused from {tmp_path / 'first' / FILE}"]


def test_nothing_is_found_and_nothing_said_where_there_are_no_scores(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    (tmp_path / "other").mkdir()
    assert ScoreCache(tmp_path / "run", marks()).load() is None
    assert caplog.messages == []


def test_a_run_prefers_its_own_scores(tmp_path):
    ScoreCache(tmp_path / "a", marks()).save(some_scores(1))
    ScoreCache(tmp_path / "b", marks()).save(some_scores(2))
    assert same(ScoreCache(tmp_path / "b", marks()).load(), some_scores(2))


def test_running_a_model_on_labels_does_not_change_its_fingerprint():
    model = tiny_model("bert")
    batch = tiny_inputs(model)
    before = fingerprint("optin", model, [batch], {})
    # transformers writes what kind of problem it is into the config then.
    model(**batch, labels=torch.zeros(len(batch["input_ids"]), dtype=torch.long))
    assert model.config.problem_type is not None
    assert fingerprint("optin", model, [batch], {}) == before


def changed_weights():
    model = tiny_model("bert")
    with torch.no_grad():
        model.classifier.bias[0] += 1e-6
    return {"model": model}


def changed_config():
    model = tiny_model("bert")
    model.config.layer_norm_eps = 1e-6
    return {"model": model}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (changed_weights, "weights"),
        (changed_config, "config"),
        (lambda: {"batches": [tiny_inputs(tiny_model("bert"), seed=1)]}, "data"),
        (lambda: {"settings": {"probes": 5}}, "settings.probes"),
        (lambda: {"settings": {}}, "settings.probes"),
    ],
    ids=["weights", "config", "data", "setting", "missing setting"],
)
def test_a_difference_is_named_and_not_reused(change, field, tmp_path, caplog):
    ScoreCache(tmp_path / "first", marks()).save(some_scores())
    assert ScoreCache(tmp_path / "second", marks(**change())).load() is None
    assert caplog.messages == [
        f"scores of optin computed anew: {field} differ from those in {tmp_path / 'first' / FILE}"
    ]


def test_the_nearest_of_several_is_the_one_compared_with(tmp_path, caplog):
    ScoreCache(tmp_path / "a", marks(**changed_weights(), settings={"probes": 5})).save(some_scores())
    ScoreCache(tmp_path / "b", marks(settings={"probes": 5})).save(some_scores())
    assert ScoreCache(tmp_path / "c", marks()).load() is None
    assert caplog.messages == [
        f"scores of optin computed anew: settings.probes differ from those in {tmp_path / 'b' / FILE}"
    ]


def test_another_methods_scores_are_passed_over_in_silence(tmp_path, caplog):
    ScoreCache(tmp_path / "first", marks(method="fisher")).save(some_scores())
    assert ScoreCache(tmp_path / "second", marks()).load() is None
    assert caplog.messages == []


def test_a_damaged_file_counts_as_none(tmp_path):
    path = tmp_path / "first" / FILE
    path.parent.mkdir()
    path.write_bytes(b"not safetensors")
    assert ScoreCache(tmp_path / "second", marks()).load() is None


def test_where_a_model_was_loaded_from_does_not_matter():
    model = tiny_model("bert")
    model.config._name_or_path = "elsewhere"
    assert marks(model=model) == marks()


def test_saving_again_replaces_the_scores(tmp_path):
    cache = ScoreCache(tmp_path, marks())
    cache.save(some_scores(1))
    cache.save(some_scores(2))
    assert same(cache.load(), some_scores(2))
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
