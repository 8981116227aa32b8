"""Model cards of pruned models: what the hub reads, what people read, and text that is not to be trusted."""

from __future__ import annotations

import re

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from test_reports import REPORT, changed, without

from prunekit.reports.card import BaseCard, model_card

BASE = BaseCard("embedded:t5-g2p", "embedded:t5-g2p", facts={"license": "apache-2.0"})
HUB = BaseCard("some/t5", "some/t5", hub=("some/t5",), facts={"license": "mit", "language": ["en", "fr"]})
NASTY = (
    "<script>x</script> [a](http://b) ![i](http://c) `t` *s* _u_ | **b** ~~d~~ &lt; [r]: http://d\n---\n# h"
)


def parts(card):
    """The front matter as data, and the Markdown after it."""
    matter, text = card.removeprefix("---\n").split("\n---\n", 1)
    return yaml.safe_load(matter), text


def matter(report=REPORT, base=BASE):
    return parts(model_card(report, base))[0]


def text(report=REPORT, base=BASE, **more):
    return parts(model_card(report, base, **more))[1]


def tokens(markdown):
    """Types of everything that a Markdown reader finds, of inline parts too."""
    found = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(markdown)
    return [each for token in found for each in [token, *(token.children or [])]]


# What the hub reads


def test_front_matter_names_library_method_and_carried_licence():
    found = matter()
    assert found["library_name"] == "prunekit"
    assert found["license"] == "apache-2.0"
    assert {"pruned", "nash"} <= set(found["tags"])


def test_every_metric_is_in_the_model_index_without_counts_and_standard_errors():
    (model,) = matter()["model-index"]
    (result,) = model["results"]
    assert model["name"] == "t5-g2p-nash-2"
    assert {each["type"]: each["value"] for each in result["metrics"]} == {
        "phoneme_error_rate": 0.085,
        "accuracy": 0.68,
    }
    assert result["dataset"] == {"name": "g2p", "type": "g2p", "args": {"examples": 1200}}


def test_the_hub_reads_its_own_format_back():
    from huggingface_hub import ModelCard

    results = ModelCard(model_card(REPORT, HUB)).data.eval_results
    assert [each.metric_type for each in results] == ["phoneme_error_rate", "accuracy"]


@pytest.mark.parametrize(("base", "expected"), [(BASE, None), (HUB, "some/t5")])
def test_only_a_model_of_the_hub_is_a_base_model(base, expected):
    assert matter(base=base).get("base_model") == expected


def test_languages_are_carried_over():
    assert matter(base=HUB)["language"] == ["en", "fr"]


def test_unquoted_norwegian_is_still_norwegian():
    facts = yaml.safe_load("language: [no, en]")
    assert matter(base=BaseCard("a/b", "a/b", facts=facts))["language"] == ["no", "en"]


@pytest.mark.parametrize(
    ("auto_class", "own", "expected"),
    [
        ("AutoModelForSequenceClassification", "fill-mask", "text-classification"),
        ("AutoModelForSeq2SeqLM", "summarization", "summarization"),
        ("AutoModelForSeq2SeqLM", "fill-mask", "text2text-generation"),
        ("AutoModelForMadeUp", "fill-mask", "fill-mask"),
        ("AutoModelForMadeUp", {"odd": 1}, None),
    ],
)
def test_the_pipeline_tag_is_the_base_cards_where_it_fits_the_head(auto_class, own, expected):
    base = BaseCard("a/b", "a/b", facts={"pipeline_tag": own})
    assert matter(changed(auto_class=auto_class), base).get("pipeline_tag") == expected


def test_the_hubs_data_set_stands_under_its_id_with_commit_and_split():
    task = {"name": "samsum", "data": {"hub": "who/samsum", "revision": "abc", "splits": {"test": "dev"}}}
    quality = {**REPORT["quality"], "split": "test"}
    found = matter(changed(recipe={"task": task}, quality=quality))
    assert found["datasets"] == ["who/samsum"]
    assert found["model-index"][0]["results"][0]["dataset"] == {
        "name": "samsum",
        "type": "who/samsum",
        "revision": "abc",
        "split": "dev",
        "args": {"examples": 1200},
    }


def test_a_mixtures_metrics_stand_under_their_own_data():
    task = {"name": "mixture", "tasks": {"a": {"name": "xsum", "data": {"hub": "who/xsum"}}, "b": {}}}
    pruned = {"mean": 1.0, "a/rouge1": 2.0, "a/n": 5, "b/wer": 3.0, "n": 9}
    quality = {"primary": "mean", "higher_is_better": True, "dense": pruned, "pruned": pruned}
    found = matter(changed(recipe={"task": task}, task="mixture", quality=quality))
    sets = {each["dataset"]["type"]: each for each in found["model-index"][0]["results"]}
    assert list(sets) == ["mixture", "who/xsum", "b"]
    assert sets["who/xsum"]["dataset"]["args"] == {"examples": 5}
    assert sets["who/xsum"]["metrics"] == [{"type": "rouge1", "name": "a/rouge1", "value": 2.0}]


def test_a_figure_that_is_no_number_is_left_out():
    pruned = {"phoneme_error_rate": float("nan"), "accuracy": 0.5, "n": 3}
    found = matter(changed(quality={**REPORT["quality"], "pruned": pruned}))
    assert found["metrics"] == ["accuracy"]


# Licences


def test_a_named_licence_keeps_its_name_and_its_link_leads_to_the_base_models_file():
    facts = {"license": "other", "license_name": "own-terms", "license_link": "LICENSE.md"}
    found = matter(base=BaseCard("some/t5", "some/t5", hub=("some/t5",), facts=facts))
    assert (found["license"], found["license_name"]) == ("other", "own-terms")
    assert found["license_link"] == "https://huggingface.co/some/t5/blob/main/LICENSE.md"


def test_a_link_to_a_file_of_an_unknown_repository_is_left_out():
    facts = {"license": "other", "license_link": "LICENSE.md"}
    assert "license_link" not in matter(base=BaseCard("folder", "folder", facts=facts))


def test_several_licences_stay_several():
    assert matter(base=BaseCard("a", "a", facts={"license": ["mit", "cc-by-4.0"]}))["license"] == [
        "mit",
        "cc-by-4.0",
    ]


@pytest.mark.parametrize(
    "stated", [None, 3, {"a": "b"}, [], [None], ["mit", 3], "", "two words", "x\n---\n# y", True]
)
def test_a_licence_that_cannot_be_read_is_left_out_and_said_so(stated):
    base = BaseCard("a/b", "a/b", facts={"license": stated, "license_name": "x"})
    assert not {"license", "license_name", "license_link"} & matter(base=base).keys()
    assert "The card of a/b states none that could be read. Find out its terms" in text(base=base)


def test_no_card_means_no_licence_and_the_text_says_so():
    base = BaseCard("tuned", "some/t5", hub=("some/t5",))
    assert "license" not in matter(base=base)
    assert "None is stated: no card of some/t5 was found." in text(base=base)
    assert "The dense model is tuned, which comes from some/t5." in text(base=base)


def test_a_model_from_random_weights_has_no_base_and_no_licence():
    base = BaseCard("tuned", "tuned", from_scratch=True)
    assert "tuned was trained from random weights, and has no card." in text(base=base)
    assert not {"license", "base_model"} & matter(base=base).keys()


# What people read


@pytest.mark.parametrize(
    "line",
    [
        "# t5-g2p-nash-2",
        "apache-2.0, as the card of embedded:t5-g2p says. The data has terms of its own.",
        "| parameters |  | 3,000,000 -> 2,100,000 (-30.0 %) |  |",
        "| encoder self_attn.heads | 9 of 16 | 6, 3 |",
        "| decoder.blocks | 2 of 4 |  |",
        "| phoneme_error_rate (lower is better) | 0.08125 ± 0.0021 | 0.085 ± 0.0022 |",
        "| generate, 16 tokens forced | 100.0 (99.0 to 102.0) | 75.0 (74.0 to 77.0) "
        "| 1.33x [1.30, 1.36], faster |",
        "- The run warned: recovery stopped early.",
        "| cpu | Chip 9000 |",
    ],
)
def test_the_card_says(line):
    assert line in text().splitlines()


def test_a_pruned_model_is_loaded_with_prunekit_and_a_stock_one_without():
    report = changed(auto_class="AutoModelForSeq2SeqLM")
    loading = 'model = AutoModelForSeq2SeqLM.from_pretrained("FOLDER-OR-HUB-ID")'
    pruned, stock = text(report), text(report, pruned_type=False)
    assert loading in pruned
    assert loading in stock
    assert "\nimport prunekit\n" in pruned
    assert "import prunekit" not in stock
    assert "prunekit is not needed to load it" in stock


def test_what_was_not_measured_is_said_to_be_so():
    bare = without("quality", "speed", "structure", "environment", "recipe", "requested", "achieved")
    found, said = parts(model_card(bare, BASE))
    assert "model-index" not in found
    assert "## Quality\n\nNot measured.\n\n## Speed\n\nNot measured in this run." in said


def test_folders_and_rows_of_data_stay_at_home():
    task = {"name": "text2text", "data": {"train": [{"a": "secret"}], "test": ["/home/me/test.csv"]}}
    recipe = {"model": "/home/me/t5", "teacher": "~/teacher", "task": task, "note": "C:\\me\\x"}
    said = text(changed(recipe=recipe))
    assert "secret" not in said
    assert not re.search(r"home|me/|~/|C:", said.partition("~~~yaml")[2])
    for line in ("model: t5", "teacher: teacher", "    train: 1 rows", "    - test.csv", "note: x"):
        assert line in said.splitlines()


# Text that is not to be trusted


def nasty_report(name):
    quality = {
        "primary": name,
        "higher_is_better": True,
        "split": name,
        "n": 2,
        "dense": {name: 1.0},
        "pruned": {name: 0.5, f"{name}_stderr": 0.1},
    }
    return changed(
        method=name,
        label=name,
        task=name,
        prunekit_version=name,
        auto_class=name,
        quality=quality,
        warnings=[name],
        environment={name: name},
        structure=[{"group": name, "kept": 1, "size": 2}],
        requested={"metric": "params", "sparsity": 0.5, "scope": [name]},
        recipe={"task": {"name": name, "data": {"hub": name}}, "description": name},
    )


def test_text_of_others_is_never_markup():
    base = BaseCard(NASTY, NASTY, facts={NASTY: NASTY, "license_link": NASTY, "language": NASTY})
    found = tokens(text(nasty_report(NASTY), base))
    kinds = {token.type for token in found}
    assert not kinds & {"link_open", "image", "html_block", "html_inline", "em_open", "strong_open", "s_open"}
    assert "".join(token.content for token in found if token.type == "text").count("&lt;") >= 5
    titles = [token.tag for token in found if token.type == "heading_open"]
    assert titles == ["h1", *["h2"] * (len(titles) - 1)]


@pytest.mark.parametrize("name", ["~~~~\nx", "a\n~~~\n# not a title", "```"])
def test_no_text_of_a_recipe_ends_its_block(name):
    found = tokens(text(changed(recipe={"description": name})))
    (block,) = [token for token in found if token.type == "fence" and token.info == "yaml"]
    assert yaml.safe_load(block.content) == {"description": name}


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(), max_size=30))
def test_any_text_gives_a_card_that_can_be_stored_and_read_again(name):
    card = model_card(nasty_report(name), BaseCard(name, name, facts={name: name, "license": name}))
    card.encode()
    found, _ = parts(card)
    assert found["library_name"] == "prunekit"
    assert found["model-index"][0]["results"][0]["metrics"][0]["value"] == 0.5
