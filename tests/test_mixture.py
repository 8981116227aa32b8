"""The task mixture: what is interleaved, what is scored apart, which mixtures are refused."""

from __future__ import annotations

import pytest
import torch
from mixture_calls import mixture, text2text, words
from own_calls import warnings_in, write_csv
from writer_calls import Writes, tokenizer

from prunekit.errors import DataError
from prunekit.tasks.calibration import calibration_examples
from prunekit.tasks.mixture.mixing import MixedExamples, interleaved, joined
from prunekit.testing.tiny import tiny_model


def texts_of(examples):
    return [(label, tokenizer().decode(example.input_ids[:-1])) for label, example in examples]


@pytest.fixture
def files(tmp_path):
    """By name, the path of a file: six texts, and two with labels."""
    return {
        "many": write_csv(tmp_path / "many.csv", [(letter, "nice") for letter in "abcdef"]),
        "few": write_csv(tmp_path / "few.csv", [("g", "good"), ("h", "bad")]),
    }


@pytest.fixture
def task(files):
    return mixture({"long": text2text({"test": files["many"]}), "short": words({"test": files["few"]})})


# Examples


def test_every_task_has_its_share_of_any_first_examples(task):
    labels = [label for label, _ in task.examples("test")]
    assert len(labels) == 8
    for count in range(1, 9):
        assert abs(labels[:count].count("short") - count / 4) < 1


def test_parts_are_interleaved_evenly_each_in_its_own_order():
    part, index = interleaved([4, 2, 1])
    assert list(zip(part.tolist(), index.tolist(), strict=True)) == [
        (0, 0),
        (1, 0),
        (0, 1),
        (2, 0),
        (0, 2),
        (1, 1),
        (0, 3),
    ]
    part, index = interleaved([4, 1], limit=2)
    assert list(zip(part.tolist(), index.tolist(), strict=True)) == [(0, 0), (1, 0), (0, 1)]


def test_examples_are_asked_for_when_they_are_needed():
    asked = []

    class Asked(list):
        def __getitem__(self, index):
            asked.append(index)
            return super().__getitem__(index)

    examples = MixedExamples({"a": Asked("uvwxyz"), "b": Asked("p")})
    assert (len(examples), asked) == (7, [])
    assert examples[:2] == [("a", "u"), ("a", "v")]
    assert examples[-1] == ("a", "z")
    assert asked == [0, 1, 5]
    assert "".join(example for _, example in examples) == "uvwpxyz"


def test_lengths_are_in_the_order_of_examples(files):
    task = mixture(
        {
            "long": text2text({"test": files["many"]}, source="so so {text}"),
            "x": words({"test": files["few"]}),
        }
    )
    assert task.lengths("test") == [len(each.input_ids) for _, each in task.examples("test")]
    assert sorted(task.lengths("test")) == [2, 2, 4, 4, 4, 4, 4, 4]


def test_the_limit_takes_the_first_of_each_for_training_alone(tmp_path, files):
    data = {"train": write_csv(tmp_path / "t.csv", [(letter, "good") for letter in "abcdef"])}
    held_out = {"validation": files["few"], "test": files["many"]}
    entries = {
        "x": text2text(data | held_out),
        "y": text2text({"train": files["few"], "test": files["many"]}),
    }
    entries["y"]["data"] = {"train": files["many"], "validation": files["few"]}
    whole, limited = mixture(entries), mixture(entries, limit=3)
    assert (len(whole.examples("train")), len(limited.examples("train"))) == (12, 6)
    assert limited.examples("train")[:] == whole.examples("train")[:6]
    assert len(limited.lengths("train")) == 6
    assert len(limited.examples("validation")) == 4
    assert len(calibration_examples(limited, 6, seed=0)) == 6
    with pytest.raises(DataError, match="7 calibration examples were asked for"):
        calibration_examples(limited, 7, seed=0)


# Splits


def test_a_split_is_that_of_the_tasks_that_have_it_and_the_rest_are_told(files, caplog):
    first = text2text({"train": files["many"], "validation": files["few"]})
    task = mixture({"one": first, "two": words({"test": files["few"]})})
    assert task.splits == ("train", "validation", "test")
    assert {label for label, _ in task.examples("train")} == {"one"}
    assert {label for label, _ in task.examples("test")} == {"two"}
    assert warnings_in(caplog) == [
        "Task mixture, train: task two has no such rows and takes no part.",
        "Task mixture, validation: task two has no such rows and takes no part.",
        "Task mixture, test: task one has no such rows and takes no part.",
    ]


def test_a_task_without_calibration_rows_gives_training_rows_and_never_others(tmp_path, files):
    other = write_csv(tmp_path / "v.csv", [("c c", "good")])
    held_out = {"validation": other, "test": files["few"]}
    own = write_csv(tmp_path / "c.csv", [("b b", "good")])
    task = mixture(
        {
            "one": text2text({"train": files["many"], **held_out, "calibration": own}),
            "two": text2text({"train": files["many"], **held_out}),
            "three": text2text({"test": files["few"]}),
        }
    )
    found = texts_of(task.examples("calibration"))
    assert sorted(found) == [("one", "b b"), *(("two", letter) for letter in "abcdef")]


def test_a_split_that_no_task_has_is_an_error(task):
    for ask in (task.examples, task.lengths):
        with pytest.raises(DataError, match="Task mixture has no split 'train'; use one of: test"):
            ask("train")
    with pytest.raises(DataError, match="Task mixture has no split 'train'; use one of: test"):
        task.evaluate(tiny_model("t5"), "train", batch_size=2)


# Batches


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_a_batch_of_all_tasks_has_the_loss_of_its_parts(files, name):
    task = mixture(
        {
            "long": text2text({"test": files["many"]}, source="so {text} so", target="so {label}"),
            "short": words({"test": files["few"]}),
        }
    )
    examples = task.examples("test")
    batch = task.collate(examples[:])
    assert {name: tuple(tensor.shape) for name, tensor in batch.items()} == {
        "input_ids": (8, 4),
        "attention_mask": (8, 4),
        "labels": (8, 3),
    }
    model = tiny_model(name)
    logits = model(**batch).logits
    for index, (label, example) in enumerate(examples):
        alone = task.tasks[label].collate([example])
        length = alone["labels"].shape[1]
        assert batch["labels"][index, :length].tolist() == example.labels
        torch.testing.assert_close(logits[index, :length], model(**alone).logits[0])


def test_batches_are_joined_in_the_order_of_their_rows():
    first = {"labels": torch.tensor([[1, 2], [3, 4]]), "input_ids": torch.tensor([[5], [6]])}
    second = {"labels": torch.tensor([[7]]), "input_ids": torch.tensor([[8, 9]])}
    found = joined([first, second], [2, 0, 1], {"input_ids": 50})
    assert found["labels"].tolist() == [[3, 4], [7, -100], [1, 2]]
    assert found["input_ids"].tolist() == [[6, 50], [8, 9], [5, 50]]


# Answers and scores


ANSWERS = {**dict.fromkeys("abc", "nice"), **dict.fromkeys("def", "h"), "g": "Good", "h": "h"}


def test_each_example_is_answered_by_its_own_tasks_rules(task):
    examples = task.examples("test")[::-1]
    asked = [text for _, text in texts_of(examples)]
    found = dict(zip(asked, task.predict(Writes(ANSWERS), examples, batch_size=2), strict=True))
    assert found == ANSWERS | {"g": "good"}


def test_answers_end_where_each_task_says(task):
    model, seen = Writes(ANSWERS), set()
    generate = model.generate
    model.generate = lambda **keys: seen.add(keys["max_new_tokens"]) or generate(**keys)
    task.predict(model, task.examples("test"), batch_size=8)
    assert seen == {4, 3}


def test_tasks_are_scored_apart_and_their_mean_leads(task):
    found = task.evaluate(Writes(ANSWERS), "test", batch_size=3).metrics
    one, two = 100 * (0.25 / 6) ** 0.5, 100 * (0.25 / 2) ** 0.5
    assert found == pytest.approx(
        {
            "mean": 50,
            "mean_stderr": (one**2 + two**2) ** 0.5 / 2,
            "long/accuracy": 50,
            "long/accuracy_stderr": one,
            "long/n": 6,
            "short/accuracy": 50,
            "short/accuracy_stderr": two,
            "short/unparsable": 50,
            "short/unparsable_stderr": two,
            "short/n": 2,
            "n": 8,
        }
    )
    assert (task.primary_metric, task.higher_is_better) == ("mean", True)
    for label, own in task.tasks.items():
        alone = own.evaluate(Writes(ANSWERS), "test", batch_size=3).metrics
        assert {name: found[f"{label}/{name}"] for name in alone} == alone


def test_a_limit_of_the_evaluation_is_each_tasks(task):
    found = task.evaluate(Writes(ANSWERS), "test", batch_size=3, limit=1).metrics
    assert (found["long/n"], found["short/n"], found["n"]) == (1, 1, 2)


def test_a_mean_of_metrics_that_are_better_when_lower_is_better_when_lower(files):
    data = {"test": files["many"]}
    task = mixture({label: text2text(data, metrics=["wer", "accuracy"]) for label in ("one", "two")})
    assert not task.higher_is_better


def test_a_mean_over_opposite_directions_is_refused(files):
    data = {"test": files["many"]}
    with pytest.raises(DataError) as caught:
        mixture({"one": text2text(data), "two": text2text(data, metrics=["wer"])})
    assert str(caught.value) == (
        "Task mixture leads with the mean of the tasks' leading metrics, and they point in opposite "
        "directions: one by accuracy (higher is better), two by wer (lower is better). Put a metric of the "
        "same direction first in `metrics` of each."
    )


# What a mixture is asked besides


def test_the_data_of_a_mixture_is_that_of_its_tasks(files, monkeypatch):
    data = {"test": files["few"]}
    task = mixture({"one": text2text(data), "two": words(data)})
    for own, found in zip(
        task.tasks.values(), ({"a": "1", "hub:b": "2"}, {"hub:b": "3", "a": "1"}), strict=True
    ):
        monkeypatch.setattr(own, "fingerprint", lambda found=found: found)
    assert task.fingerprint() == {"a": "1", "hub:b": "2, 3"}
    assert task.head_config() == {}


def test_a_model_must_fit_every_task(files):
    data = {"test": files["few"]}
    task = mixture(
        {"one": text2text(data, max_source_length=32), "two": text2text(data, max_source_length=64)}
    )
    task.check_model(tiny_model("t5"))
    with pytest.raises(DataError, match=r"task\.max_source_length is 64, but the model has 32 positions"):
        task.check_model(tiny_model("bart"))


def test_a_fault_in_one_tasks_data_names_the_task(files):
    with pytest.raises(DataError) as caught:
        mixture({"one": text2text({"test": files["few"]}), "two": words({"test": files["many"]})})
    assert str(caught.value).startswith(
        f"Task mixture: task.tasks.two: Task text2text-classification: {files['many']}, line "
    )
