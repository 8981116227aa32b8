"""Models get the head that a task needs, and what cannot answer is refused before anything is trained."""

from __future__ import annotations

import logging

import pytest
import torch
from huggingface_hub import constants
from own_calls import classification, text2text, tiny_bert, word_tokenizer, write_csv
from safetensors.torch import load_file, save_file
from toy_task import copy_task, letter_tokenizer
from transformers import BertForMaskedLM, BertForSequenceClassification, BertModel

from prunekit.errors import CheckpointError, DataError, UnsupportedModelError
from prunekit.heads import check_head, load_to_train
from prunekit.models import load_model, load_processor, model_fingerprint, save_model
from prunekit.testing.tiny import tiny_model

ROWS = [("a good b", "good"), ("c bad d", "bad"), ("fair", "fair")] * 10


@pytest.fixture
def task(tmp_path):
    return classification({"train": write_csv(tmp_path / "rows.csv", ROWS)}, max_length=32)


def saved(model, folder, tokenizer=None):
    save_model(model, tokenizer or word_tokenizer(), folder)
    return str(folder)


def bert_without_labels(head, folder):
    """A BERT with another head, or none, as pretrained checkpoints come."""
    torch.manual_seed(1)
    return saved(head(tiny_bert().config), folder)


@pytest.mark.parametrize("head", [BertModel, BertForMaskedLM])
def test_a_pretrained_model_gets_a_new_head_with_the_tasks_labels(task, tmp_path, caplog, head):
    name = bert_without_labels(head, tmp_path / "bert")
    with caplog.at_level(logging.INFO):
        model = load_to_train(name, task, seed=0)
    assert type(model) is BertForSequenceClassification
    assert model.config.id2label == {0: "bad", 1: "fair", 2: "good"}
    assert model.config.label2id == {"bad": 0, "fair": 1, "good": 2}
    stored = load_file(f"{name}/model.safetensors")
    kept = stored[f"{'' if head is BertModel else 'bert.'}encoder.layer.0.intermediate.dense.weight"]
    assert torch.equal(model.bert.encoder.layer[0].intermediate.dense.weight, kept)
    assert "gets a new head for the task" in caplog.text
    assert "classifier.weight" in caplog.text


def test_the_seed_decides_the_new_heads_weights(task, tmp_path):
    name = bert_without_labels(BertModel, tmp_path / "bert")
    first, again, other = (load_to_train(name, task, seed=seed).classifier.weight for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_head_with_the_tasks_labels_is_kept(tmp_path):
    name = saved(tiny_bert(["good", "fair", "bad"]), tmp_path / "bert")
    tokenizer = word_tokenizer()
    tokenizer.name_or_path = name
    task = classification({"train": write_csv(tmp_path / "rows.csv", ROWS)}, tokenizer, max_length=32)
    model = load_to_train(name, task, seed=0)
    assert torch.equal(model.classifier.weight, load_model(name).classifier.weight)
    assert model.config.id2label == {0: "good", 1: "fair", 2: "bad"}


def test_a_head_without_names_takes_the_tasks(task, tmp_path):
    name = saved(tiny_bert(num_labels=3), tmp_path / "bert")
    model = load_to_train(name, task, seed=0)
    assert torch.equal(model.classifier.weight, load_model(name).classifier.weight)
    assert model.config.id2label == {0: "bad", 1: "fair", 2: "good"}


@pytest.mark.parametrize("names", [["yes", "no"], ["one", "two", "three"]])
def test_a_head_for_other_labels_is_replaced(task, tmp_path, names):
    name = saved(tiny_bert(names), tmp_path / "bert")
    model = load_to_train(name, task, seed=0)
    assert model.config.id2label == {0: "bad", 1: "fair", 2: "good"}
    assert model.classifier.weight.shape[0] == 3


def test_a_checkpoint_that_lacks_more_than_a_head_is_refused(task, tmp_path):
    name = bert_without_labels(BertModel, tmp_path / "bert")
    weights = load_file(f"{name}/model.safetensors")
    whole = {key: value for key, value in weights.items() if ".query." not in key}
    save_file(whole, f"{name}/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="lacks weights of the model itself, not only of its head"):
        load_to_train(name, task, seed=0)


def test_an_architecture_without_the_head_is_refused(tmp_path):
    name = saved(tiny_model("vit"), tmp_path / "vit")
    with pytest.raises(
        UnsupportedModelError,
        match=r"the architecture vit has no AutoModelForSeq2SeqLM, which task copy needs",
    ):
        load_to_train(name, copy_task(), seed=0)


def test_a_model_with_another_head_is_refused_before_it_is_pruned(task, tmp_path):
    model = load_model(bert_without_labels(BertForMaskedLM, tmp_path / "bert"))
    with pytest.raises(UnsupportedModelError) as caught:
        check_head("my-bert", model, task)
    assert str(caught.value) == (
        "my-bert is a BertForMaskedLM, but task text-classification needs a model of "
        "AutoModelForSequenceClassification, trained on the task. Train one with `prunekit finetune`, or let "
        "the recipe do it with `teacher: {train: {epochs: 3}}`."
    )


def test_a_model_with_other_labels_is_refused_before_it_is_pruned(task):
    with pytest.raises(DataError, match="the labels are bad, fair, good; the model's are yes, no, maybe"):
        check_head("my-bert", tiny_bert(["yes", "no", "maybe"]), task)


def test_an_encoder_decoder_keeps_its_head(tmp_path):
    name = saved(tiny_model("t5"), tmp_path / "t5", letter_tokenizer())
    task = text2text({"train": write_csv(tmp_path / "rows.csv", ROWS)})
    model = load_to_train(name, task, seed=0)
    stored = load_model(name).state_dict()
    assert all(torch.equal(tensor, stored[key]) for key, tensor in model.state_dict().items())


def test_a_model_that_does_not_exist_is_told_by_name(task, tmp_path):
    with pytest.raises(CheckpointError, match="no such folder"):
        load_to_train(str(tmp_path / "nothing"), task, seed=0)


def test_a_model_of_the_hub_that_is_not_in_the_cache_tells_what_to_do_without_a_network(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for load in (load_model, load_processor, model_fingerprint):
        with pytest.raises(CheckpointError) as caught:
            load("nobody/nothing")
        text = str(caught.value)
        assert text.startswith(
            "nobody/nothing cannot be had: it is no folder here, and neither the hub nor its"
        )
        assert constants.HF_HUB_CACHE in text
        assert "run this once where there is one and copy that cache (HF_HOME says where" in text
        assert text.endswith("or copy the model's own folder and name that.")
