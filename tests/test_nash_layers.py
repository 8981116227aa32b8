"""Which decoder blocks NASH keeps."""

from __future__ import annotations

import re
from fractions import Fraction
from itertools import pairwise
from math import floor

import pytest

from prunekit.errors import BudgetError
from prunekit.pruning.layers import select_layers

PAIRS = [(depth, kept) for depth in range(1, 65) for kept in range(1, depth + 1)]

# Tables for 12 blocks (t5-base) and 6 (bart-base): kept -> (uniform, uniform-paper).
TWELVE = {
    2: ((0, 11), (0, 11)),
    3: ((0, 5, 11), (0, 5, 10)),
    4: ((0, 3, 7, 11), (0, 3, 6, 9)),
    6: ((0, 2, 4, 6, 8, 11), (0, 2, 4, 6, 8, 10)),
    8: ((0, 1, 3, 4, 6, 7, 9, 11), (0, 1, 2, 3, 4, 5, 6, 7)),
}
SIX = {
    3: ((0, 2, 5), (0, 2, 4)),
    4: ((0, 1, 3, 5), (0, 1, 2, 3)),
}
TABLE = [(12, kept, *sets) for kept, sets in TWELVE.items()] + [
    (6, kept, *sets) for kept, sets in SIX.items()
]


def test_uniform_is_the_exact_formula_for_every_depth_up_to_64():
    wrong = [
        (depth, kept)
        for depth, kept in PAIRS
        if kept > 1
        and select_layers(depth, kept)
        != tuple(floor(Fraction(i * (depth - 1), kept - 1)) for i in range(kept))
    ]
    assert wrong == []


def test_uniform_is_strictly_increasing():
    assert [pair for pair in PAIRS if any(a >= b for a, b in pairwise(select_layers(*pair)))] == []


def test_uniform_contains_both_ends():
    ends = {pair: select_layers(*pair)[:: pair[1] - 1] for pair in PAIRS if pair[1] > 1}
    assert [pair for pair, found in ends.items() if found != (0, pair[0] - 1)] == []


def test_uniform_leaves_gaps_that_differ_by_at_most_one():
    gaps = {pair: {b - a for a, b in pairwise(select_layers(*pair))} for pair in PAIRS if pair[1] > 1}
    assert [pair for pair, found in gaps.items() if max(found) - min(found) > 1] == []


@pytest.mark.parametrize("selection", ["uniform", "uniform-paper", "uniform-float", "low", "high"])
def test_every_rule_keeps_that_many_blocks_of_the_model(selection):
    for depth, kept in PAIRS:
        found = select_layers(depth, kept, selection)
        assert len(set(found)) == kept
        assert sorted(found) == list(found)
        assert 0 <= found[0] <= found[-1] < depth


@pytest.mark.parametrize("selection", ["uniform", "uniform-paper", "uniform-float", "low", "high"])
def test_every_rule_keeps_a_whole_decoder(selection):
    assert [d for d in range(1, 65) if select_layers(d, d, selection) != tuple(range(d))] == []


@pytest.mark.parametrize(("depth", "kept", "uniform", "paper"), TABLE)
def test_tables_of_the_published_depths(depth, kept, uniform, paper):
    assert select_layers(depth, kept) == uniform
    assert select_layers(depth, kept, "uniform-float") == uniform
    assert select_layers(depth, kept, "uniform-paper") == paper


@pytest.mark.parametrize(("depth", "blocks"), [(16, (0, 7, 15)), (24, (0, 11, 23))])
def test_three_blocks_of_deeper_decoders(depth, blocks):
    assert select_layers(depth, 3) == blocks


@pytest.mark.parametrize("kept", range(7, 12))
def test_the_papers_formula_becomes_the_lowest_blocks(kept):
    assert select_layers(12, kept, "uniform-paper") == select_layers(12, kept, "low")


def test_the_floating_point_formula_misses_the_last_block_for_some_pairs():
    missed = [
        (depth, kept)
        for depth, kept in PAIRS
        if kept > 1 and select_layers(depth, kept, "uniform-float")[-1] != depth - 1
    ]
    assert missed[:3] == [(16, 12), (16, 14), (27, 24)]
    assert {depth for depth, _ in missed}.isdisjoint({6, 12, 24})
    assert sum(select_layers(*pair) != select_layers(*pair, "uniform-float") for pair in PAIRS) == 70
    assert select_layers(16, 12)[-1] == 15


def test_low_and_high_are_the_first_and_the_last_blocks():
    assert select_layers(12, 3, "low") == (0, 1, 2)
    assert select_layers(12, 3, "high") == (9, 10, 11)


@pytest.mark.parametrize(
    ("selection", "block"),
    [("uniform", 0), ("uniform-paper", 0), ("uniform-float", 0), ("low", 0), ("high", 11)],
)
def test_a_single_block_is_the_first_except_under_high(selection, block):
    assert select_layers(12, 1, selection) == (block,)


@pytest.mark.parametrize("kept", [-1, 0, 13])
def test_a_number_of_blocks_that_the_decoder_does_not_have_is_an_error(kept):
    text = f"decoder_layers = {kept}, but the decoder has 12 blocks; choose between 1 and 12."
    with pytest.raises(BudgetError, match=f"^{re.escape(text)}$"):
        select_layers(12, kept)
