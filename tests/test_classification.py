"""Classification on tiny models: batches, answers, scores, cut-off, what does not fit."""

import math
from types import SimpleNamespace

import pytest
import torch
from pydantic import BaseModel, ValidationError
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from prunekit.embedded.gloss import CLASSES, TOKENIZER_FOLDER, load_split
from prunekit.errors import DataError
from prunekit.progress import Progress
from prunekit.tasks import prunekit_register_metrics, prunekit_register_tasks
from prunekit.tasks.base import Metric
from prunekit.tasks.gloss import GlossConfig, GlossTask
from prunekit.tasks.text_classification import LabelledText, TextClassificationTask
from prunekit.testing.tiny import tiny_model

LABELS = ("red", "green", "blue")
TEXTS = [
    LabelledText("a", 0),
    LabelledText("b c d e f", 1),
    LabelledText("c a", 2),
    LabelledText("d d d d d d d d", 1),
]


def tokenizer(*, with_types=True):
    """One token a letter between [CLS] and [SEP]; a pair's second half is of type 1."""
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    vocabulary = {token: number for number, token in enumerate([*special.values(), *"abcdef"])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS]:1 $A:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = ["input_ids", "token_type_ids", "attention_mask"]
    if not with_types:
        names.remove("token_type_ids")
    return PreTrainedTokenizerFast(tokenizer_object=made, model_input_names=names, **special)


class Colours(TextClassificationTask):
    """Four texts in three classes, the same in every split."""

    name = "colours"
    summary = "letters to colours"
    Config = BaseModel
    splits = ("train", "test")
    labels = LABELS
    reads = 0

    def texts(self, split):
        self.reads += 1
        return TEXTS


class FirstLetter(nn.Module):
    """Answers by a table: the logits of the token behind [CLS]."""

    def __init__(self, table):
        super().__init__()
        self.table = nn.Parameter(torch.tensor(table))
        self.inner = nn.Dropout(0.5)
        self.config = SimpleNamespace(num_labels=3, vocab_size=10, id2label=dict(enumerate(LABELS)))
        self.device = torch.device("cpu")
        self.shapes = []

    def forward(self, input_ids, attention_mask, token_type_ids=None, labels=None):
        assert not self.training
        self.shapes.append(tuple(input_ids.shape))
        return SimpleNamespace(logits=self.table[input_ids[:, 1] - 4])


# a: red; b: green; c: red (wrong, blue is right); d: green and blue alike.
RIGHT_BUT_ONE = FirstLetter([[9.0, 0, 0], [0, 9.0, 0], [9.0, 0, 8.0], [0, 5.0, 5.0]])


@pytest.fixture
def task():
    return Colours(tokenizer(), max_length=32)


@pytest.fixture
def model():
    return tiny_model("bert")


def test_batches_pad_ids_and_types_and_mask_the_padding(task):
    batch = task.collate(task.examples("train")[:3])
    assert batch["input_ids"].tolist() == [
        [2, 4, 3, 0, 0, 0, 0],
        [2, 5, 6, 7, 8, 9, 3],
        [2, 6, 4, 3, 0, 0, 0],
    ]
    expected = [[1] * 3 + [0] * 4, [1] * 7, [1] * 4 + [0] * 3]
    assert batch["attention_mask"].tolist() == expected
    assert batch["token_type_ids"].tolist() == expected
    assert batch["labels"].tolist() == [0, 1, 2]
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}


def test_types_are_left_out_where_the_tokenizer_makes_none():
    task = Colours(tokenizer(with_types=False), max_length=32)
    assert set(task.collate(task.examples("train"))) == {"input_ids", "attention_mask", "labels"}


def test_a_batch_gives_a_loss_and_logits(task, model):
    output = model(**task.collate(task.examples("train")))
    assert torch.isfinite(output.loss)
    assert output.logits.shape == (4, 3)


def test_lengths_count_special_tokens_in_the_order_of_the_examples(task):
    assert task.lengths("test") == [3, 7, 4, 10]


def test_texts_are_cut_off_at_max_length_and_still_end_as_they_should():
    task = Colours(tokenizer(), max_length=5)
    assert task.lengths("train") == [3, 5, 4, 5]
    assert task.collate(task.examples("train")[1:2])["input_ids"].tolist() == [[2, 5, 6, 7, 3]]


def test_cutting_off_leaves_the_given_tokenizer_as_it_was():
    given = tokenizer()
    before = given.backend_tokenizer.to_str()
    Colours(given, max_length=5).examples("train")
    assert given.backend_tokenizer.to_str() == before
    assert len(given("a b c d e f")["input_ids"]) == 8


def test_examples_are_read_once_a_split(task):
    assert task.examples("train") is task.examples("train")
    task.lengths("train")
    assert task.reads == 1


def test_answers_are_the_labels_of_the_largest_logits_and_the_first_of_equals(task):
    answers = task.predict(RIGHT_BUT_ONE, task.examples("test"), batch_size=3)
    assert answers == ["red", "green", "red", "green"]


def test_evaluate_gives_accuracy_its_standard_error_and_the_number(task):
    # 3 of 4 right: 75 percent, sqrt(0.75 * 0.25 / 4).
    assert task.evaluate(RIGHT_BUT_ONE, "test", batch_size=2).metrics == {
        "accuracy": pytest.approx(75.0),
        "accuracy_stderr": pytest.approx(100 * math.sqrt(0.75 * 0.25 / 4)),
        "n": 4,
    }


def test_a_metric_of_several_ranks_is_given_the_best_labels_and_others_the_best_one(task):
    given = {}

    def kept(name):
        return lambda predictions, references: given.update({name: (predictions, references)}) or (1.0, 0.0)

    task.metrics = (Metric("plain", True, kept("plain")), Metric("two", True, kept("two"), ranks=2))
    found = task.evaluate(RIGHT_BUT_ONE, "test", batch_size=3).metrics
    assert given["plain"][0] == ["red", "green", "red", "green"]
    # Of equals the first in the task's order comes first.
    assert given["two"][0] == ["red\ngreen", "green\nred", "red\nblue", "green\nblue"]
    assert given["plain"][1] == given["two"][1] == [("red",), ("green",), ("blue",), ("green",)]
    assert list(found) == ["plain", "plain_stderr", "two", "two_stderr", "n"]


def test_with_fewer_labels_than_ranks_all_are_given(task):
    task.metrics = (Metric("five", True, lambda given, _: (len(given[0].split("\n")), 0.0), ranks=5),)
    assert task.evaluate(RIGHT_BUT_ONE, "test", batch_size=3).metrics["five"] == 3


def test_limit_scores_the_first_examples(task):
    scores = task.evaluate(RIGHT_BUT_ONE, "test", batch_size=2, limit=3).metrics
    assert scores["accuracy"] == pytest.approx(100 * 2 / 3)
    assert scores["n"] == 3


def test_batches_are_of_similar_length_the_longest_first(task):
    model = FirstLetter(RIGHT_BUT_ONE.table.tolist())
    task.predict(model, task.examples("test"), batch_size=2)
    assert model.shapes == [(2, 10), (2, 4)]


def test_answers_do_not_depend_on_the_batch_size(task):
    model = tiny_model("bert", seed=3)
    examples = task.examples("test")
    together = task.predict(model, examples, batch_size=4)
    assert together == [task.predict(model, [each], batch_size=1)[0] for each in examples]
    assert len(set(together)) > 1


@pytest.mark.parametrize("training", [True, False])
def test_evaluate_leaves_every_module_in_its_mode(task, training):
    model = FirstLetter(RIGHT_BUT_ONE.table.tolist()).train(training)
    model.inner.train(not training)
    task.evaluate(model, "test", batch_size=4)
    assert (model.training, model.inner.training) == (training, not training)


def test_a_trained_model_answers_what_it_learnt(task, model):
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        model(**task.collate(task.examples("train"))).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert task.evaluate(model, "test", batch_size=4).metrics["accuracy"] == 100


def test_progress_counts_every_example(task, model, monkeypatch):
    seen = []
    progress = Progress(quiet=True)
    silent = progress.task

    def watched(label, total):
        seen.append((label, total))
        return silent(label, total)

    monkeypatch.setattr(progress, "task", watched)
    task.evaluate(model, "test", batch_size=3, limit=3, progress=progress)
    assert seen == [("Evaluating colours", 3)]


def test_unknown_split_is_an_error_that_names_those_there_are(task):
    with pytest.raises(DataError, match=r"^Task colours has no split 'dev'; use one of: train, test\.$"):
        task.examples("dev")


def test_a_model_with_another_number_of_labels_is_an_error(task, model):
    model.config.num_labels = 5
    with pytest.raises(
        DataError,
        match=r"^Task colours has 3 labels, but the model answers with 5\. Use a model that was trained on "
        r"the task, or train one with num_labels 3\.$",
    ):
        task.predict(model, task.examples("test"), batch_size=2)


def test_a_model_with_the_labels_in_another_order_is_an_error(task, model):
    model.config.id2label = {0: "red", 1: "blue", 2: "green"}
    with pytest.raises(
        DataError,
        match=r"^Task colours: the model's label 1 is 'blue', the task's 'green'\. Use a model whose",
    ):
        task.evaluate(model, "test", batch_size=2)


def test_a_model_with_too_small_a_vocabulary_is_an_error(task, model):
    model.config.vocab_size = 9
    with pytest.raises(
        DataError,
        match=r"^Task colours: the tokenizer has 10 tokens, but the model's vocabulary only 9\. Use",
    ):
        task.evaluate(model, "test", batch_size=2)


def test_longer_texts_than_the_model_has_positions_for_are_an_error(model):
    task = Colours(tokenizer(), max_length=33)
    with pytest.raises(
        DataError,
        match=r"^Task colours: texts may have 33 tokens, but the model only 32 positions\. Set task",
    ):
        task.evaluate(model, "test", batch_size=2)


# The gloss task


@pytest.fixture(scope="module")
def gloss():
    return GlossTask(GlossConfig(max_length=16), AutoTokenizer.from_pretrained(TOKENIZER_FOLDER))


def test_gloss_examples_are_the_definitions_of_a_split_in_hash_order(gloss):
    first = gloss.examples("test")[2]
    text, label = load_split("test")[2]
    assert gloss.tokenizer.decode(first.features["input_ids"], skip_special_tokens=True) == text
    assert CLASSES[first.label] == label == "noun.communication"
    assert len(gloss.examples("test")) == 4118


def test_gloss_definitions_are_cut_off_at_the_recipes_max_length(gloss):
    assert max(gloss.lengths("test")) == 16
    assert GlossConfig().max_length == 64


@pytest.mark.parametrize("keys", [{"max_length": 2}, {"length": 5}])
def test_gloss_config_refuses_wrong_keys(keys):
    with pytest.raises(ValidationError):
        GlossConfig(**keys)


def test_the_task_and_its_metric_are_registered():
    assert GlossTask in prunekit_register_tasks()
    assert "accuracy" in {metric.name for metric in prunekit_register_metrics()}
