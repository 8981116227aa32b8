"""Where the base model's card is found, and when a run's card is written."""

from __future__ import annotations

import json
import os
import shutil

import pytest
import yaml
from pipeline_calls import saved_tiny
from test_reports import changed

from prunekit.card import base_card, write_card
from prunekit.models import load_model, load_processor

pytestmark = pytest.mark.slow

MIT = "---\nlicense: mit\n---\n# A model\n"


def matter(path):
    return yaml.safe_load(path.read_text().split("---\n")[1])


def model_folder(path, card=None):
    path.mkdir(parents=True)
    (path / "config.json").write_text("{}")
    if card is not None:
        (path / "README.md").write_text(card)
    return path


def finished(out, model="embedded:t5-g2p", **more):
    """A run's folder as far as its card needs it."""
    model_folder(out / "model")
    (out / "report.json").write_text(json.dumps(changed(model=str(model), **more)))
    return out


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Puts models into an empty cache of the hub, which is switched off."""
    from huggingface_hub import constants

    cache = tmp_path / "cache"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def add(name, **files):
        folder = cache / f"models--{name.replace('/', '--')}"
        snapshot = folder / "snapshots" / "abc"
        snapshot.mkdir(parents=True)
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text("abc")
        for file, content in {"config.json": "{}", **files}.items():
            (snapshot / file).write_text(content)

    return add


# Where the base model's card is found


@pytest.mark.parametrize("name", ["t5-g2p", "bart-g2p", "bert-gloss", "vit-fashion"])
def test_an_embedded_model_has_its_own_card(name):
    found = base_card(f"embedded:{name}")
    assert (found.dense, found.hub) == (f"embedded:{name}", ())
    assert found.facts["license"] == "apache-2.0"


def test_a_folders_card_is_found_and_the_folder_is_named_by_its_last_part(tmp_path):
    found = base_card(str(model_folder(tmp_path / "mine", MIT)))
    assert (found.dense, found.origin, found.hub) == ("mine", "mine", ())
    assert found.facts == {"license": "mit"}


def test_the_base_model_of_a_folders_card_is_carried_on(tmp_path):
    folder = model_folder(tmp_path / "mine", "---\nlicense: mit\nbase_model: [some/t5, /home/x, 3]\n---\n")
    assert base_card(str(folder)).hub == ("some/t5",)


def test_a_hub_models_card_comes_from_the_cache(hub):
    hub("some/t5", **{"README.md": MIT})
    found = base_card("some/t5")
    assert (found.dense, found.hub, found.facts) == ("some/t5", ("some/t5",), {"license": "mit"})


def test_a_hub_model_without_a_card_in_the_cache_is_still_the_base_model(hub):
    hub("some/t5")
    found = base_card("some/t5")
    assert (found.hub, found.facts) == (("some/t5",), None)


def test_nothing_is_fetched_where_the_hub_is_switched_off(hub, monkeypatch):
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *_, **__: pytest.fail("fetched"))
    hub("some/t5")
    assert base_card("some/t5").facts is None


def test_a_card_that_is_not_in_the_cache_is_fetched_where_the_hub_is_on(hub, monkeypatch, tmp_path):
    from huggingface_hub import constants

    (tmp_path / "fetched.md").write_text(MIT)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    asked = []

    def download(*names, **_):
        asked.append(names)
        return str(tmp_path / "fetched.md")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    hub("some/t5")
    assert base_card("some/t5").facts == {"license": "mit"}
    assert asked == [("some/t5", "README.md")]


def test_a_network_that_fails_costs_the_card_and_nothing_else(hub, monkeypatch):
    from huggingface_hub import constants

    def download(*_, **__):
        raise TimeoutError("no answer")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    hub("some/t5")
    assert base_card("some/t5").facts is None


def test_a_name_that_was_never_loaded_is_not_taken_for_the_hubs(hub):
    found = base_card("runs/gone")
    assert (found.dense, found.hub, found.facts) == ("runs/gone", (), None)


def test_a_trained_teacher_leads_to_the_model_that_it_was_trained_from(hub, tmp_path):
    hub("some/t5", **{"README.md": MIT})
    teacher = tmp_path / "teachers" / "t5-samsum"
    model_folder(teacher / "model")
    (teacher / "recipe.yaml").write_text("model: some/t5\nteacher: null\n")
    for name in (teacher, teacher / "model"):
        found = base_card(str(name))
        assert (found.dense, found.origin, found.hub) == ("t5-samsum", "some/t5", ("some/t5",))
        assert found.facts == {"license": "mit"}


def test_a_pruned_model_without_a_card_leads_to_its_teacher(tmp_path):
    teacher = model_folder(tmp_path / "teacher", MIT)
    model_folder(tmp_path / "run" / "model")
    (tmp_path / "run" / "recipe.yaml").write_text(f"model: some/t5\nteacher: {teacher}\n")
    assert base_card(str(tmp_path / "run")).origin == "teacher"


def test_random_weights_end_the_way_back(tmp_path):
    model_folder(tmp_path / "run" / "model")
    (tmp_path / "run" / "recipe.yaml").write_text("model: {type: t5, processor: embedded:g2p}\n")
    found = base_card(str(tmp_path / "run"))
    assert (found.origin, found.facts, found.from_scratch) == ("run", None, True)


def test_recipes_that_name_each_other_end_too(tmp_path):
    for name, other in (("a", "b"), ("b", "a")):
        model_folder(tmp_path / name / "model")
        (tmp_path / name / "recipe.yaml").write_text(f"model: {tmp_path / other}\n")
    assert base_card(str(tmp_path / "a")).origin == "b"


@pytest.mark.parametrize(
    "card",
    [
        "no front matter",
        "---\n- a list\n---\n",
        "---\na: [unclosed\n---\n",
        "---\n!!python/object/apply:os.system ['x']\n---\n",
        "---\n? {a: b}\n: c\n---\n",
        "---\n" + "[" * 3000 + "\n---\n",
        "\ufeff---\n\n---\n",
    ],
    ids=["none", "list", "broken", "python", "keys", "deep", "empty"],
)
def test_an_odd_card_is_a_card_that_says_nothing(tmp_path, card):
    assert "license" not in base_card(str(model_folder(tmp_path / "mine", card))).facts


def test_a_card_that_is_no_text_says_nothing(tmp_path):
    (model_folder(tmp_path / "mine") / "README.md").write_bytes(b"---\nlicense: \xff\n---\n")
    assert base_card(str(tmp_path / "mine")).facts == {}


# When a run's card is written


def test_a_finished_runs_card_lies_beside_the_weights(tmp_path):
    write_card(finished(tmp_path / "run"))
    card = tmp_path / "run" / "model" / "README.md"
    assert matter(card)["license"] == "apache-2.0"
    assert "apache-2.0, as the card of embedded:t5-g2p says." in card.read_text()


def test_a_card_of_the_same_report_is_left_alone_with_what_was_added(tmp_path):
    run = finished(tmp_path / "run")
    write_card(run)
    card = run / "model" / "README.md"
    edited = card.read_text().replace("## Limits", "## Written by hand")
    card.write_text(edited)
    write_card(run)
    assert card.read_text() == edited


def test_another_report_gives_another_card(tmp_path):
    run = finished(tmp_path / "run")
    write_card(run)
    (run / "report.json").write_text(json.dumps(changed(seed=12)))
    write_card(run)
    assert "Seed 12." in (run / "model" / "README.md").read_text()


def test_a_card_that_prunekit_did_not_write_is_never_overwritten(tmp_path):
    run = finished(tmp_path / "run")
    (run / "model" / "README.md").write_text("mine")
    write_card(run)
    assert (run / "model" / "README.md").read_text() == "mine"


def test_pruning_a_pruned_model_carries_base_and_licence_on(hub, tmp_path):
    hub("some/t5", **{"README.md": MIT})
    first = finished(tmp_path / "first", model="some/t5")
    write_card(first)
    second = finished(tmp_path / "second", model=first)
    write_card(second)
    found = matter(second / "model" / "README.md")
    assert (found["base_model"], found["license"]) == ("some/t5", "mit")
    assert "The dense model is first." in (second / "model" / "README.md").read_text()


def test_no_folder_of_the_machine_is_named(tmp_path):
    mine = model_folder(tmp_path / "mine", MIT)
    write_card(finished(tmp_path / "run", model=mine, run=str(tmp_path / "run"), recipe={"model": str(mine)}))
    assert os.fspath(tmp_path) not in (tmp_path / "run" / "model" / "README.md").read_text()


def test_a_model_loads_with_its_card_beside_it(tmp_path):
    run = finished(tmp_path / "run")
    shutil.rmtree(run / "model")
    saved_tiny(run / "model")
    write_card(run)
    text = (run / "model" / "README.md").read_text()
    assert "prunekit is not needed to load it" in text
    assert load_model(str(run)).config.model_type == "t5"
    assert load_processor(str(run)) is not None
