import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy
from torch import nn

from prunekit.errors import UnsupportedModelError
from prunekit.training.distill import counted_positions, hidden_mse, logit_kl, predicted, record_block_outputs


def random_tensor(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Block(nn.Module):
    """A block like those of transformers: a hidden state, or a tuple that starts with it."""

    def __init__(self, *, gives_tuple):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.gives_tuple = gives_tuple

    def forward(self, hidden):
        out = hidden + self.linear(hidden)
        return (out, "attention weights") if self.gives_tuple else out


class Stack(nn.Module):
    """Two blocks and a final norm, whose output must not be taken for the last block's."""

    def __init__(self, *, gives_tuple=False, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.blocks = nn.ModuleList(Block(gives_tuple=gives_tuple) for _ in range(2))
        self.norm = nn.LayerNorm(4)

    def forward(self, hidden):
        for block in self.blocks:
            out = block(hidden)
            hidden = out[0] if isinstance(out, tuple) else out
        return self.norm(hidden)


# Teacher probabilities (1/2, 1/2), student (3/4, 1/4), as logits.
TEACHER = torch.tensor([[[0.0, 0.0]]])
STUDENT = torch.tensor([[[math.log(3), 0.0]]])
ONE_TOKEN = torch.ones(1, 1)


@pytest.mark.parametrize(
    ("direction", "expected"),
    [
        ("forward", 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)),
        ("reverse", 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)),
    ],
)
def test_direction_says_which_side_the_expectation_is_over(direction, expected):
    loss = logit_kl(STUDENT, TEACHER, ONE_TOKEN, temperature=1.0, direction=direction)
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_forward_is_the_default_direction():
    loss = logit_kl(STUDENT, TEACHER, ONE_TOKEN, temperature=1.0)
    assert loss.item() == pytest.approx(0.143841, abs=1e-6)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_divergence_agrees_with_scipy_on_the_tokens_that_count(temperature, direction):
    student, teacher = random_tensor(2, 3, 7), 3 * random_tensor(2, 3, 7, seed=1)
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    p = softmax(teacher.double().numpy() / temperature, axis=-1)
    q = softmax(student.double().numpy() / temperature, axis=-1)
    per_token = entropy(p, q, axis=-1) if direction == "forward" else entropy(q, p, axis=-1)
    expected = temperature**2 * (per_token[0, 0] + per_token[0, 1] + per_token[1, 0]) / 3
    loss = logit_kl(student, teacher, mask, temperature=temperature, direction=direction)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_gradient_at_temperature_1_is_student_minus_teacher_probabilities():
    student = STUDENT.clone().requires_grad_()
    logit_kl(student, TEACHER, ONE_TOKEN, temperature=1.0).backward()
    assert student.grad.flatten().tolist() == pytest.approx([0.75 - 0.5, 0.25 - 0.5], abs=1e-6)


def test_logits_of_one_label_per_example_are_accepted():
    loss = logit_kl(STUDENT[0], TEACHER[0], torch.ones(1), temperature=1.0)
    assert loss.item() == pytest.approx(0.143841, abs=1e-6)


def test_one_output_has_no_divergence_to_compute_and_says_so():
    values = random_tensor(2, 1)
    with pytest.raises(
        UnsupportedModelError, match=r"one output, a regression head.*recover\.distill\.logits"
    ):
        logit_kl(values, 2 * values, torch.ones(2), temperature=1.0)


def test_labelled_tokens_count_where_each_token_has_a_label():
    labels = torch.tensor([[1, -100, 0], [2, 1, -100]])
    assert counted_positions(random_tensor(2, 3, 7), labels).tolist() == [[1, 0, 1], [1, 1, 0]]


@pytest.mark.parametrize(
    ("shape", "labels"), [((2, 7), [3, -100]), ((2, 7), [[1.0] * 7] * 2), ((2, 3, 7), [0, 1])]
)
def test_every_prediction_counts_where_labels_are_for_whole_examples(shape, labels):
    counted = counted_positions(random_tensor(*shape), torch.tensor(labels))
    assert counted.shape == shape[:-1]
    assert counted.all()


def test_starts_and_ends_of_answers_count_in_every_example():
    counted = counted_positions(random_tensor(3, 2, 7), None)
    assert counted.shape == (3, 2)
    assert counted.all()


def test_a_model_without_a_head_has_nothing_to_distil():
    with pytest.raises(UnsupportedModelError, match="Stack gives no logits, so there are no predictions"):
        predicted(Stack(), SimpleNamespace(last_hidden_state=random_tensor(1, 2, 4)), {})


def test_hidden_distance_of_a_case_worked_by_hand():
    student = [torch.tensor([[[1.0, 3.0], [0.0, 0.0]]]), torch.tensor([[[2.0, 2.0], [1.0, 1.0]]])]
    teacher = [torch.zeros(1, 2, 2), torch.full((1, 2, 2), 9.0), torch.ones(1, 2, 2)]
    mask = torch.tensor([[1, 1]])
    # Pair (0, 0): (1 + 9 + 0 + 0) / 4; pair (1, 2): (1 + 1 + 0 + 0) / 4; teacher block 1 is in no pair.
    loss = hidden_mse(student, teacher, [(0, 0), (1, 2)], mask)
    assert loss.item() == pytest.approx(2.5 + 0.5)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_a_student_equal_to_its_teacher_has_no_divergence(direction):
    logits, mask = random_tensor(2, 3, 7), torch.tensor([[1, 1, 1], [1, 0, 0]])
    assert logit_kl(logits, logits.clone(), mask, temperature=2.0, direction=direction).item() == 0


def test_a_student_equal_to_its_teacher_has_no_hidden_distance():
    student, teacher = Stack(seed=3), Stack(seed=3)
    inputs = random_tensor(2, 3, 4)
    with record_block_outputs(student.blocks) as ours, record_block_outputs(teacher.blocks) as theirs:
        student(inputs)
        teacher(inputs)
    assert hidden_mse(ours, theirs, [(0, 0), (1, 1)], torch.ones(2, 3)).item() == 0


def test_more_padding_with_other_content_leaves_the_divergence_alone():
    student, teacher = random_tensor(2, 3, 7), random_tensor(2, 3, 7, seed=1)
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    padded_student = torch.cat([student, 100 * random_tensor(2, 4, 7, seed=2)], dim=1)
    padded_teacher = torch.cat([teacher, 100 * random_tensor(2, 4, 7, seed=3)], dim=1)
    padded_mask = torch.cat([mask, torch.zeros(2, 4, dtype=torch.long)], dim=1)
    loss = logit_kl(student, teacher, mask, temperature=2.0)
    padded = logit_kl(padded_student, padded_teacher, padded_mask, temperature=2.0)
    assert padded.item() == pytest.approx(loss.item(), rel=1e-6)


def test_more_padding_with_other_content_leaves_the_hidden_distance_alone():
    student, teacher = random_tensor(2, 3, 4), random_tensor(2, 3, 4, seed=1)
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    padded_student = torch.cat([student, 100 * random_tensor(2, 2, 4, seed=2)], dim=1)
    padded_teacher = torch.cat([teacher, 100 * random_tensor(2, 2, 4, seed=3)], dim=1)
    padded_mask = torch.cat([mask, torch.zeros(2, 2, dtype=torch.long)], dim=1)
    loss = hidden_mse([student], [teacher], [(0, 0)], mask)
    padded = hidden_mse([padded_student], [padded_teacher], [(0, 0)], padded_mask)
    assert padded.item() == pytest.approx(loss.item(), rel=1e-6)


def test_padding_gets_no_gradient():
    student = random_tensor(1, 2, 5).requires_grad_()
    mask = torch.tensor([[1, 0]])
    logit_kl(student, random_tensor(1, 2, 5, seed=1), mask, temperature=2.0).backward()
    assert student.grad[0, 0].abs().min() > 0
    assert student.grad[0, 1].tolist() == [0] * 5


def test_a_batch_of_nothing_but_padding_costs_nothing():
    logits, states = random_tensor(1, 2, 5), [random_tensor(1, 2, 4)]
    mask = torch.zeros(1, 2)
    assert logit_kl(logits, 2 * logits, mask, temperature=1.0).item() == 0
    assert hidden_mse(states, [torch.zeros(1, 2, 4)], [(0, 0)], mask).item() == 0


def test_terms_are_computed_in_float32_for_models_in_bfloat16():
    student, teacher = random_tensor(2, 3, 7).bfloat16(), random_tensor(2, 3, 7, seed=1).bfloat16()
    mask = torch.ones(2, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        kl = logit_kl(student, teacher, mask, temperature=2.0)
        mse = hidden_mse([student], [teacher], [(0, 0)], mask)
    p, q = (softmax(x.double().numpy() / 2, axis=-1) for x in (teacher, student))
    assert kl.dtype == mse.dtype == torch.float32
    assert kl.item() == pytest.approx(4 * entropy(p, q, axis=-1).mean(), rel=1e-5)
    squared = np.square(student.double().numpy() - teacher.double().numpy())
    assert mse.item() == pytest.approx(squared.mean(), rel=1e-5)


@pytest.mark.parametrize("gives_tuple", [False, True])
def test_recorded_outputs_are_those_of_the_blocks_in_the_given_order(gives_tuple):
    stack, inputs = Stack(gives_tuple=gives_tuple), random_tensor(2, 3, 4)
    with record_block_outputs([stack.blocks[1], stack.blocks[0]]) as outputs:
        stack(inputs)
    first = inputs + stack.blocks[0].linear(inputs)
    assert torch.equal(outputs[1], first)
    assert torch.equal(outputs[0], first + stack.blocks[1].linear(first))


def test_recording_does_not_change_the_model_output():
    stack, inputs = Stack(gives_tuple=True), random_tensor(2, 3, 4)
    plain = stack(inputs)
    with record_block_outputs(stack.blocks):
        assert torch.equal(stack(inputs), plain)


def test_gradients_flow_through_recorded_outputs():
    stack = Stack()
    with record_block_outputs(stack.blocks) as outputs:
        stack(random_tensor(2, 3, 4))
    outputs[0].sum().backward()
    assert stack.blocks[0].linear.weight.grad.abs().sum() > 0
    assert stack.blocks[1].linear.weight.grad is None


def test_the_latest_forward_pass_is_the_one_recorded():
    stack, inputs = Stack(), random_tensor(2, 3, 4)
    with record_block_outputs(stack.blocks) as outputs:
        stack(random_tensor(2, 3, 4, seed=1))
        stack(inputs)
    assert len(outputs) == 2
    assert torch.equal(outputs[0], inputs + stack.blocks[0].linear(inputs))


def test_nothing_is_recorded_after_the_context_not_even_after_an_error():
    stack = Stack()
    with pytest.raises(RuntimeError, match="stop"), record_block_outputs(stack.blocks) as outputs:
        raise RuntimeError("stop")
    stack(random_tensor(2, 3, 4))
    assert [output.numel() for output in outputs] == [0, 0]
