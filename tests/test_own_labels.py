"""Labels of the task text-classification: by name, whatever the order of the data and of the model."""

from __future__ import annotations

import datasets
import pyarrow.parquet as pq
import pytest
import torch
from own_calls import (
    REVIEWS,
    FirstWord,
    classification,
    tiny_bert,
    warnings_in,
    word_tokenizer,
    write_csv,
    write_lines,
)
from transformers import AutoTokenizer, BertForSequenceClassification

from prunekit.errors import DataError
from prunekit.tasks.label_map import in_order, label_map

NAMES = ("bad", "good")
# Logits by word: a 4, b 5, ..., good 12, bad 13, fair 14.
FIRST_OF_TWO = [[0.0, 0.0]] * 4 + [[1.0, 0.0]] * 13


@pytest.fixture
def path(tmp_path):
    return write_csv(tmp_path / "a.csv", REVIEWS)


def labels_of(path, **keys):
    """The names, and the label handed out for each row's text."""
    task = classification({"test": path}, **keys)
    examples = task.examples("test")
    batch = task.collate(examples)
    texts = [task.tokenizer.decode(each.features["input_ids"], skip_special_tokens=True) for each in examples]
    return task.labels, dict(zip(texts, batch["labels"].tolist(), strict=True))


def saved_bert(folder, names, **config):
    """A tiny BERT with these label names and its tokenizer, as one loads it."""
    model = tiny_bert(names, **config)
    model.save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


# Labels


def test_labels_are_the_sorted_names_in_train(tmp_path, path):
    train = write_csv(tmp_path / "t.csv", [("a", "good"), ("b", "fair"), ("c", "bad"), ("d", "good")] * 3)
    task = classification({"train": train, "validation": path})
    assert task.labels == ("bad", "fair", "good")
    assert {task.reference(example) for example in task.examples("validation")} == {"bad", "good"}


def test_a_label_that_is_only_in_rows_held_out_is_known(tmp_path):
    rows = [(f"w{i}", "rare" if i == 3 else NAMES[i % 2]) for i in range(10)]
    for start in range(10):  # wherever the mixing puts it
        part = rows[start:] + rows[:start]
        task = classification({"train": write_csv(tmp_path / "t.csv", part)})
        assert task.labels == ("bad", "good", "rare")


@pytest.mark.parametrize(
    ("values", "given", "expected"),
    [
        (["1", "0"], None, ("0", "1")),
        (["10", "9"], None, ("9", "10")),
        ([1, 0], ["bad", "good"], ("bad", "good")),
        (["1", "0"], ["bad", "good"], ("bad", "good")),
        ([True, False], ["bad", "good"], ("bad", "good")),
        (["good", "bad"], ["bad", "good"], ("bad", "good")),
        (["good", "bad"], ["good", "bad"], ("good", "bad")),
        (["good", "bad"], ["bad", "fair", "good"], ("bad", "fair", "good")),
        ([2, 1], ["1", "2"], ("1", "2")),
    ],
)
def test_integers_count_the_labels_given_and_are_names_otherwise(tmp_path, values, given, expected):
    rows = [{"text": f"w{i}", "label": values[i % 2]} for i in range(8)]
    task = classification({"train": write_lines(tmp_path / "t.jsonl", rows)}, labels=given)
    assert task.labels == expected
    first = [example for split in task.splits for example in task.examples(split)]
    assert {each.label for each in first} == {
        expected.index(str(v)) if str(v) in expected else int(v) for v in values
    }


def parquet_with_classes(path, names):
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=names)}
    )
    data = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features)
    data.to_parquet(str(path))
    return str(path)


def test_names_that_the_data_gives_to_its_integers_are_taken(tmp_path):
    path = parquet_with_classes(tmp_path / "a.parquet", ["good", "bad"])
    assert pq.read_schema(path).field("label").type == "int64"
    assert labels_of(path) == (("good", "bad"), {"a": 1, "b": 0})
    assert labels_of(path, labels=["positive", "negative"])[0] == ("positive", "negative")


def test_labels_that_contradict_the_datas_names_are_an_error(tmp_path):
    path = parquet_with_classes(tmp_path / "a.parquet", ["good", "bad"])
    with pytest.raises(
        DataError,
        match=r"^Task text-classification: task\.labels is bad, good, but the data numbers the same names as "
        r"good, "
        r"bad\. Leave task\.labels out",
    ):
        classification({"test": path}, labels=["bad", "good"])


@pytest.mark.parametrize(
    ("value", "given", "message"),
    [
        (
            "godo",
            NAMES,
            "'label' holds 'godo', which is none of the labels; did you mean good? (bad, good)",
        ),
        (2, NAMES, "'label' holds 2, which is none of the labels (bad, good)"),
        (-1, NAMES, "'label' holds -1, which"),
        (0, ("1", "2"), "'label' holds 0, which"),
        (None, NAMES, "'label' holds nothing, which"),
        ("", NAMES, "'label' holds nothing, which"),
        (0.5, NAMES, "'label' holds 0.5, which"),
    ],
)
def test_a_label_outside_the_map_is_told_with_its_row(tmp_path, value, given, message):
    rows = [{"text": "a", "label": given[0]}, {"text": "b", "label": value}]
    path = write_lines(tmp_path / "a.jsonl", rows)
    with pytest.raises(DataError) as caught:
        classification({"test": path}, labels=list(given))
    assert f"Task text-classification: {path}, line 2: {message}" in str(caught.value)
    assert str(caught.value).endswith("Correct the row, or list every label under task.labels.")


def test_a_label_that_is_neither_name_nor_integer_is_an_error(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [{"text": "a", "label": 0.5}] * 9)
    with pytest.raises(DataError, match=r"'label' holds 0\.5, but a name or an integer is needed\. Correct"):
        classification({"train": path})


def test_without_training_rows_labels_must_be_given(path):
    with pytest.raises(
        DataError,
        match=r"^Task text-classification: found 0 labels in the training rows \(none\), and no others are "
        r"known\. "
        r"List all labels under task\.labels\.$",
    ):
        classification({"test": path})


# Labels and models


@pytest.mark.parametrize("names", [("bad", "good"), ("good", "bad"), ("GOOD", "Bad")])
def test_labels_are_handed_out_in_the_order_of_the_model_that_the_tokenizer_came_with(tmp_path, path, names):
    tokenizer = saved_bert(tmp_path / "bert", names)
    for keys in ({}, {"labels": ["bad", "good"]}, {"labels": ["good", "bad"]}):
        labels, handed_out = labels_of(path, tokenizer=tokenizer, **keys)
        assert tuple(label.lower() for label in labels) == tuple(name.lower() for name in names)
        assert handed_out["bad a"] == [name.lower() for name in names].index("bad")


def test_labels_of_the_model_that_the_data_lacks_are_added(tmp_path, path):
    tokenizer = saved_bert(tmp_path / "bert", ("good", "fair", "bad"))
    assert classification({"train": path}, tokenizer).labels == ("good", "fair", "bad")


def test_integers_count_the_labels_given_whatever_the_models_order(tmp_path):
    path = write_csv(tmp_path / "a.csv", [("a", "0"), ("b", "1")])
    tokenizer = saved_bert(tmp_path / "bert", ("good", "bad"))
    assert labels_of(path, tokenizer=tokenizer, labels=["bad", "good"]) == (("good", "bad"), {"a": 1, "b": 0})


def test_a_model_without_names_of_its_own_has_the_tasks(tmp_path, path):
    tokenizer = saved_bert(tmp_path / "bert", None)
    task = classification({"test": path}, tokenizer, labels=["bad", "good"])
    assert task.labels == NAMES
    assert (
        task.predict(FirstWord(FIRST_OF_TWO, ("LABEL_0", "LABEL_1")), task.examples("test"), batch_size=4)
        == ["bad"] * 4
    )


def test_other_labels_of_the_model_beside_the_tokenizer_are_told_at_once(tmp_path, caplog):
    tokenizer = saved_bert(tmp_path / "bert", ("NEGATIVE", "POSITIVE"))
    path = write_csv(tmp_path / "a.csv", [(letter, str(i % 2)) for i, letter in enumerate("abcdefgh")])
    classification({"train": path}, tokenizer)
    assert warnings_in(caplog) == [
        f"Task text-classification: the labels are 0, 1, but the model in {tmp_path}/bert has NEGATIVE, "
        "POSITIVE "
        "and will not be scored on them."
    ]


def test_answers_are_read_by_the_models_own_names(path):
    task = classification({"test": path}, labels=["bad", "good"])
    examples = task.examples("test")
    for names, answer in ((("bad", "good"), "bad"), (("good", "bad"), "good"), (("GOOD", "BAD"), "good")):
        assert set(task.predict(FirstWord(FIRST_OF_TWO, names), examples, batch_size=4)) == {answer}


def test_a_permuted_model_scores_as_the_same_model_in_the_tasks_order(path):
    task = classification({"test": path}, labels=["bad", "good"])
    table = [[0.0, 0.0]] * 4 + [[0.3 * i - 1, 0.2] for i in range(13)]
    swapped = [[second, first] for first, second in table]
    one, other = (
        task.evaluate(FirstWord(*each), "test", batch_size=2)
        for each in ((table, ("bad", "good")), (swapped, ("good", "bad")))
    )
    assert one == other
    assert one.metrics["accuracy"] == 50


def test_a_permuted_model_is_refused_once_labels_were_handed_out(path):
    task = classification({"test": path}, labels=["bad", "good"])
    task.collate(task.examples("test"))
    with pytest.raises(DataError) as caught:
        task.evaluate(FirstWord(FIRST_OF_TWO, ("good", "bad")), "test", batch_size=2)
    assert str(caught.value) == (
        "Task text-classification: batches had their labels in the order bad, good, but the model's order is "
        "good, "
        "bad: what was trained on them has learnt the wrong names. Write task.labels: [good, bad]."
    )


@pytest.mark.parametrize(
    ("names", "others"),
    [
        (("no", "yes"), "no, yes"),
        (("bad", "fair", "good"), "bad, fair, good"),
        (("LABEL_0", "LABEL_1", "LABEL_2"), "3 without names"),
    ],
)
def test_a_model_with_other_labels_is_refused_with_both_lists(path, names, others):
    task = classification({"test": path}, labels=["bad", "good"])
    with pytest.raises(DataError) as caught:
        task.evaluate(FirstWord([[0.0] * len(names)] * 17, names), "test", batch_size=2)
    assert str(caught.value) == (
        f"Task text-classification: the labels are bad, good; the model's are {others}. Use a model that was "
        "trained on these labels. If the data counts the model's labels from 0, or lacks some of them, list "
        "them "
        "all under task.labels."
    )


def test_names_are_told_apart_by_case_where_that_alone_differs():
    assert in_order(("US", "us"), ("us", "US")) == ("us", "US")
    assert in_order(("US", "us"), ("Us", "uS")) is None
    found = label_map("t", given=None, classes=(), found=["US", "us"], outputs=("US", "us", "x"))
    assert found.names == ("US", "us")


def test_a_trained_model_answers_by_its_own_names(tmp_path):
    path = write_csv(tmp_path / "a.csv", [("good a", "good"), ("bad a", "bad")] * 20)
    tokenizer = saved_bert(tmp_path / "bert", ("good", "bad"))
    model = BertForSequenceClassification.from_pretrained(tmp_path / "bert")
    task = classification({"train": path}, tokenizer, max_length=16)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(20):
        model(**task.collate(task.examples("train"))).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert task.evaluate(model, "test", batch_size=4).metrics["accuracy"] == 100
    ids = tokenizer("good a", return_tensors="pt")
    assert model.config.id2label[model.eval()(**ids).logits.argmax().item()] == "good"
