import itertools
from typing import get_args

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from prunekit.training.layers import (
    LayerMatching,
    LayerTransform,
    compared_layers,
    layer_distances,
    layer_loss,
    match_layers,
    teacher_layers,
)

TOP_DOWN = pytest.mark.parametrize("matching", ["top-down", "random", "windows"])


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def states(count, *, seed=0, shape=(2, 3, 4)):
    return list(torch.randn((count, *shape), generator=generator(seed)))


def matched(distances, alive=None, matching="top-down"):
    """The student block of each row."""
    distances = torch.tensor(distances)
    alive = [True] * distances.shape[1] if alive is None else alive
    pairs = match_layers(distances, alive, matching)
    assert [row for _, row in pairs] == list(range(len(distances)))
    return [block for block, _ in pairs]


# Which of the teacher's blocks are compared


@pytest.mark.parametrize(
    ("depth", "expected"),
    [
        (12, (2, 5, 8, 11)),
        (24, (5, 11, 17, 23)),
        (6, (1, 2, 4, 5)),
        (5, (1, 2, 3, 4)),
        (4, (0, 1, 2, 3)),
        (3, (0, 1, 2)),
        (1, (0,)),
    ],
)
def test_compared_teacher_blocks_are_the_last_of_four_equal_parts(depth, expected):
    assert teacher_layers(depth) == expected


def test_parts_are_equal_to_one_block_and_end_with_the_last():
    for depth, count in itertools.product(range(1, 65), range(1, 9)):
        layers = teacher_layers(depth, count)
        sizes = np.diff((-1, *layers))
        assert len(layers) == min(depth, count)
        assert layers[-1] == depth - 1
        assert 1 <= sizes.min() <= sizes.max() <= sizes.min() + 1


@pytest.mark.parametrize("matching", ["argmin", "top-down"])
def test_rules_without_chance_compare_the_same_blocks_in_every_step(matching):
    assert compared_layers(12, matching) == compared_layers(12, matching) == (2, 5, 8, 11)


def test_same_index_compares_every_block():
    assert compared_layers(6, "same-index") == (0, 1, 2, 3, 4, 5)


def test_random_rows_are_four_different_blocks_in_order_and_reach_them_all():
    torch.manual_seed(0)
    draws = [compared_layers(12, "random") for _ in range(200)]
    assert all(len(set(draw)) == 4 and list(draw) == sorted(draw) for draw in draws)
    assert {index for draw in draws for index in draw} == set(range(12))


def test_windows_draw_one_block_of_each_part():
    torch.manual_seed(0)
    draws = [compared_layers(12, "windows") for _ in range(100)]
    assert [set(column) for column in zip(*draws, strict=True)] == [
        {0, 1, 2},
        {3, 4, 5},
        {6, 7, 8},
        {9, 10, 11},
    ]


def test_windows_follow_the_parts_of_a_depth_that_four_does_not_divide():
    torch.manual_seed(0)
    draws = [compared_layers(6, "windows") for _ in range(50)]
    assert [set(column) for column in zip(*draws, strict=True)] == [{0, 1}, {2}, {3, 4}, {5}]


@pytest.mark.parametrize("matching", ["random", "windows"])
@pytest.mark.parametrize("depth", [1, 3])
def test_a_short_stack_is_compared_whole(matching, depth):
    assert compared_layers(depth, matching) == tuple(range(depth))


@pytest.mark.parametrize("matching", ["random", "windows"])
def test_draws_follow_torchs_global_seed_and_differ_between_steps(matching):
    torch.manual_seed(3)
    first = [compared_layers(12, matching) for _ in range(5)]
    state = torch.get_rng_state()
    later = [compared_layers(12, matching) for _ in range(5)]
    torch.manual_seed(3)
    assert [compared_layers(12, matching) for _ in range(5)] == first
    torch.set_rng_state(state)
    assert [compared_layers(12, matching) for _ in range(5)] == later
    assert len(set(first + later)) > 1


# Which student block goes with each row


@TOP_DOWN
def test_rows_choose_from_the_last_to_the_first_below_the_block_chosen_before(matching):
    # Row 2 takes block 3 (1), row 1 the closest of 0..2, which is 1 (2), row 0 the only one left.
    distances = [[9.0, 1.0, 2.0, 0.0], [5.0, 2.0, 3.0, 1.0], [4.0, 3.0, 2.0, 1.0]]
    assert matched(distances, matching=matching) == [0, 1, 3]


def test_top_down_is_greedy_and_not_the_smallest_sum():
    # Row 1 is closest to block 1 by a hair, which leaves row 0 with block 0 at 100; (1, 2) would cost 2.1.
    distances = [[100.0, 1.0, 0.0], [9.0, 1.0, 1.1]]
    assert matched(distances) == [0, 1]


def test_top_down_passes_over_dead_blocks():
    distances = [[3.0, 0.0, 2.0, 1.0], [4.0, 3.0, 2.0, 1.0]]
    assert matched(distances, [True, False, True, False]) == [0, 2]


def test_top_down_takes_a_block_again_where_no_living_one_is_left_below():
    distances = [[1.0, 2.0, 3.0]] * 3
    assert matched(distances, [False, True, True]) == [1, 1, 1]


def test_top_down_takes_the_last_block_where_none_is_alive():
    assert matched([[1.0, 2.0, 3.0]] * 2, [False] * 3) == [2, 2]


def ordered_assignments(rows, alive):
    """Every way in which rows, last first, take living blocks below the last one; again if none is left."""

    def extend(taken):
        if len(taken) == rows:
            yield taken
            return
        below = [block for block in range(taken[-1]) if alive[block]] if taken else np.flatnonzero(alive)
        for block in below if len(below) else [taken[-1]]:
            yield from extend([*taken, int(block)])

    yield from extend([])


@pytest.mark.parametrize("seed", range(5))
def test_top_down_is_the_first_choice_of_the_last_row_then_of_the_row_before(seed):
    random = np.random.default_rng(seed)
    for _ in range(30):
        rows, blocks = random.integers(1, 5), random.integers(1, 8)
        distances, alive = random.random((rows, blocks)), random.random(blocks) < 0.7
        if not alive.any():
            continue
        best = min(
            ordered_assignments(rows, alive),
            key=lambda taken: [distances[rows - 1 - step, block] for step, block in enumerate(taken)],
        )
        assert matched(distances, alive.tolist()) == best[::-1]


def test_argmin_takes_the_closest_block_dead_or_alive_in_any_order():
    distances = [[3.0, 2.0, 1.0], [1.0, 2.0, 3.0], [2.0, 1.0, 1.5]]
    assert matched(distances, [True, False, False], "argmin") == [2, 0, 1]


def test_same_index_pairs_the_living_blocks():
    pairs = match_layers(torch.zeros(4, 4), [True, False, True, False], "same-index")
    assert pairs == ((0, 0), (2, 2))


def test_same_index_wants_as_many_blocks_on_both_sides():
    with pytest.raises(ValueError, match="shorter"):
        match_layers(torch.zeros(2, 3), [True] * 3, "same-index")


@pytest.mark.parametrize("matching", ["argmin", "top-down"])
def test_the_lowest_of_equally_close_blocks_is_taken(matching):
    assert matched([[2.0, 1.0, 1.0, 1.0]], matching=matching) == [1]
    assert matched([[0.0, 1.0, 1.0, 1.0]], [False, False, True, True], "top-down") == [2]


# Distances and loss


def test_the_transform_starts_as_the_identity():
    transform, values = LayerTransform(4), states(1)[0]
    assert torch.equal(transform(values), values)
    assert {name: tuple(p.shape) for name, p in transform.named_parameters()} == {
        "weight": (4, 4),
        "bias": (4,),
    }


def test_the_transform_computes_in_float32_under_autocast():
    transform, values = LayerTransform(4), states(1)[0]
    with torch.no_grad():
        transform.weight += 1e-3
        expected = values @ transform.weight.T
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = transform(values)
    assert found.dtype == torch.float32
    assert torch.allclose(found, expected, atol=1e-6)


def test_distances_are_means_over_width_and_positions_that_count():
    ours, theirs = states(3), states(2, seed=1)
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    found = layer_distances(ours, theirs, mask)
    for row, column in itertools.product(range(2), range(3)):
        squares = np.square(ours[column].double().numpy() - theirs[row].double().numpy())
        expected = (squares[0, 0] + squares[0, 1] + squares[1, 0]).sum() / (3 * 4)
        assert found[row, column].item() == pytest.approx(expected, rel=1e-5)


def test_padding_of_any_content_leaves_the_loss_alone():
    ours, theirs, mask = states(3), states(3, seed=1), torch.tensor([[1, 1, 0], [1, 0, 0]])
    alive, transform = torch.ones(3, dtype=torch.bool), LayerTransform(4)
    plain = layer_loss(ours, theirs, mask, transform, alive)
    ours = [torch.where(mask.bool().unsqueeze(-1), state, 1e4) for state in ours]
    theirs = [torch.where(mask.bool().unsqueeze(-1), state, float("nan")) for state in theirs]
    assert layer_loss(ours, theirs, mask, transform, alive).item() == pytest.approx(plain.item(), rel=1e-6)


@pytest.mark.parametrize("matching", get_args(LayerMatching))
def test_a_student_equal_to_its_teacher_has_no_layer_loss(matching):
    torch.manual_seed(0)
    own = states(6)
    alive = torch.ones(6, dtype=torch.bool)
    assert layer_loss(own, own, torch.ones(2, 3), LayerTransform(4), alive, matching).item() == 0


def layer_loss_by_hand(ours, theirs, pairs, weight, bias):
    total = 0.0
    for block, index in pairs:
        mapped = ours[block].double().numpy() @ weight.T + bias
        total += np.square(mapped - theirs[index].double().numpy()).mean()
    return total


@pytest.mark.parametrize("matching", ["same-index", "argmin", "top-down"])
def test_the_loss_is_the_sum_of_the_transformed_distances_of_the_pairs(matching):
    ours, theirs, alive = states(6), states(6, seed=1), [True, True, False, True, True, False]
    transform = LayerTransform(4)
    with torch.no_grad():
        for parameter in transform.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator(2))
    weight, bias = (p.detach().double().numpy() for p in (transform.weight, transform.bias))
    rows, every = (1, 2, 4, 5), range(6)
    table = np.array(
        [[layer_loss_by_hand(ours, theirs, [(j, i)], weight, bias) for j in every] for i in rows]
    )
    if matching == "same-index":
        pairs = [(0, 0), (1, 1), (3, 3), (4, 4)]
    elif matching == "argmin":
        pairs = [(int(values.argmin()), index) for values, index in zip(table, rows, strict=True)]
    else:
        pairs, below = [], [0, 1, 3, 4]
        for values, index in zip(table[::-1], rows[::-1], strict=True):
            pairs.append((min(below, key=values.__getitem__), index))
            below = [block for block in below if block < pairs[-1][0]] or [pairs[-1][0]]
    loss = layer_loss(ours, theirs, torch.ones(2, 3), transform, torch.tensor(alive), matching)
    assert loss.item() == pytest.approx(layer_loss_by_hand(ours, theirs, pairs, weight, bias), rel=1e-5)


def test_only_matched_blocks_and_the_transform_get_gradients():
    ours = [state.requires_grad_() for state in states(5)]
    theirs = states(5, seed=1)
    with torch.no_grad():
        for block, index in ((4, 4), (3, 2), (1, 1), (0, 0)):  # the teacher's block 3 has nothing close
            ours[block].copy_(theirs[index] + 1e-3)
    transform = LayerTransform(4)
    layer_loss(ours, theirs, torch.ones(2, 3), transform, torch.tensor([True] * 5)).backward()
    assert teacher_layers(5) == (1, 2, 3, 4)
    used = [state.grad is not None for state in ours]
    assert used[4]
    assert sum(used) <= 4
    assert transform.weight.grad.abs().sum() > 0
    assert transform.bias.grad.abs().sum() > 0


def test_no_living_block_of_the_same_index_costs_nothing():
    alive = torch.zeros(3, dtype=torch.bool)
    loss = layer_loss(states(3), states(3, seed=1), torch.ones(2, 3), LayerTransform(4), alive, "same-index")
    assert loss.item() == 0


class HostReads(TorchFunctionMode):
    """Counts the calls that would wait for the device, were the tensors on one."""

    READS = (
        *(getattr(torch.Tensor, name) for name in ("cpu", "numpy", "item", "tolist", "nonzero")),
        *(getattr(torch.Tensor, name) for name in ("__bool__", "__int__", "__float__")),
    )
    ON_HOST = (torch.Tensor.cpu, torch.randperm, torch.randint)

    def __init__(self):
        super().__init__()
        self.count, self.host = 0, []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in self.READS and not any(
            args[0].untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr()
            for tensor in self.host
        ):
            self.count += 1
        result = function(*args, **(kwargs or {}))
        if function in self.ON_HOST:
            self.host.append(result)
        return result


@pytest.mark.parametrize("matching", get_args(LayerMatching))
def test_the_device_is_waited_for_once(matching):
    torch.manual_seed(0)
    ours, theirs, alive = states(6), states(6, seed=1), torch.ones(6, dtype=torch.bool)
    with HostReads() as reads:
        layer_loss(ours, theirs, torch.ones(2, 3), LayerTransform(4), alive, matching)
    assert reads.count == 1
