"""Examples to calibrate on: drawn from the right split, the same for a seed, never from data that scores."""

import pytest

from prunekit.errors import DataError
from prunekit.tasks.calibration import calibration_examples


class Splits:
    """A task with ten examples a split, each a pair of the split and a number."""

    name = "splits"

    def __init__(self, *splits):
        self.splits = splits

    def examples(self, split):
        assert split in self.splits
        return [(split, number) for number in range(10)]


def numbers(examples):
    return [number for _, number in examples]


def test_they_come_from_the_calibration_split_where_there_is_one():
    examples = calibration_examples(Splits("train", "test", "calibration"), 10, seed=0)
    assert {split for split, _ in examples} == {"calibration"}


def test_they_come_from_train_where_there_is_no_calibration_split():
    examples = calibration_examples(Splits("train", "validation", "test"), 10, seed=0)
    assert {split for split, _ in examples} == {"train"}


def test_no_example_is_drawn_twice():
    assert sorted(numbers(calibration_examples(Splits("train"), 10, seed=3))) == list(range(10))


def test_a_seed_gives_the_same_examples_again_and_another_seed_others():
    first = calibration_examples(Splits("train"), 6, seed=1)
    assert calibration_examples(Splits("train"), 6, seed=1) == first
    assert calibration_examples(Splits("train"), 6, seed=2) != first


def test_fewer_examples_of_a_seed_are_the_first_of_more():
    more = calibration_examples(Splits("train"), 8, seed=1)
    assert calibration_examples(Splits("train"), 3, seed=1) == more[:3]
    assert numbers(more) != sorted(numbers(more))


def test_a_task_with_neither_split_is_an_error_though_it_has_a_test_split():
    with pytest.raises(
        DataError,
        match=r"^Task splits has no data to calibrate on: it has validation, test, and calibration takes "
        r"calibration or train, never data that scores the result\. Give the task one of these splits",
    ):
        calibration_examples(Splits("validation", "test"), 1, seed=0)


def test_more_examples_than_the_split_has_is_an_error():
    with pytest.raises(
        DataError,
        match=r"^11 calibration examples were asked for, but the split 'calibration' of task splits has 10;",
    ):
        calibration_examples(Splits("calibration", "train"), 11, seed=0)


def test_no_examples_is_an_error():
    with pytest.raises(DataError, match=r"^0 calibration examples were asked for; ask for at least 1\.$"):
        calibration_examples(Splits("train"), 0, seed=0)
