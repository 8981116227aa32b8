"""What the constraint alone can reach: the simulation against torch, and the refusals that come of it."""

from __future__ import annotations

import re

import pytest
from learned_calls import ALL_KINDS, COFI_KINDS, goal_of, pursued
from nash_calls import target_of

from prunekit.errors import BudgetError
from prunekit.learned import reach
from prunekit.learned.config import LearnedMasksConfig
from prunekit.learned.pursuit import Pursuit
from prunekit.recipe import TrainSpec
from prunekit.training import l0

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

UNITS = ("head", "neuron")


def check(target, goals, *, examples=32, config=None, **train):
    reach.check_reachable(
        "cofi", goals, target.structure, LearnedMasksConfig(**config or {}), TrainSpec(**train), examples
    )


def refusal(target, goals, **options):
    with pytest.raises(BudgetError) as caught:
        check(target, goals, **options)
    return str(caught.value)


# The simulation


@pytest.mark.parametrize("name", ["t5", "bart", "bert"])
@pytest.mark.parametrize(
    ("kinds", "keys"),
    [
        (UNITS, {}),
        (("hidden", *UNITS), {}),
        (COFI_KINDS, {"start_from_current": False, "droprate_init": 0.2}),
        (COFI_KINDS, {"count": "weights", "sparsity_warmup": 0.0}),
        (ALL_KINDS, {"sparsity_warmup": 0.5}),
        (("block",), {}),
    ],
)
def test_the_simulation_follows_torch_step_by_step(name, kinds, keys):
    target, config = target_of(name), LearnedMasksConfig(**keys)
    goal = goal_of(target, kinds, sparsity=0.6)
    simulated = Pursuit(goal, target.structure, config).run(200, 0.1)
    real = pursued(target, goal, config, 200, 0.1)
    assert len(simulated) == len(real) == 201
    # The real logits start apart by a hundredth; at a steep descent that is a step early or late.
    assert max(abs(a - b) for a, b in zip(simulated, real, strict=True)) < 2e-3
    assert abs(simulated[-1] - real[-1]) < 1e-4
    assert max(simulated) > 0.3


def test_sublayers_that_differ_are_simulated_apart():
    # The two stacks' attentions cost the same, their neurons do not.
    goal = goal_of(target_of("bart"), ALL_KINDS)
    pursuit = Pursuit(goal, target_of("bart").structure, LearnedMasksConfig())
    assert sorted((a.number, a.in_block, a.units) for a in pursuit.alike) == [
        (3, 1, 4),
        (3, 1, 20),
        (3, 1, 24),
        (6, 2, 4),
    ]
    # hidden, the blocks of each stack, and for each kind of sublayer its units and its gate
    assert len(pursuit.starts) == 1 + 2 + 4 * 2


@pytest.mark.parametrize("name", ["t5", "bart"])
def test_the_gradient_of_the_simulation_is_that_of_finite_differences(name):
    target = target_of(name)
    goal = goal_of(target, ALL_KINDS)
    pursuit = Pursuit(goal, target.structure, LearnedMasksConfig())
    logits = [0.3 * i - 1 for i in range(len(pursuit.starts))]
    _, gradient = pursuit.sparsity(logits)
    groups = {
        entry: number
        for alike in pursuit.alike
        for entry, number in (
            (alike.inner, alike.number * alike.units),
            (alike.gate, alike.number),
            (alike.block, alike.number // alike.in_block),
            (pursuit.hidden, 16),
        )
    }
    for index, slope in enumerate(gradient):
        up, down = (
            pursuit.sparsity([x + sign * 1e-5 * (i == index) for i, x in enumerate(logits)])[0]
            for sign in (1, -1)
        )
        # The collapsed logit moves all masks of its kind; the gradient is that of one of them.
        assert groups[index] * slope == pytest.approx((up - down) / 2e-5, rel=1e-6)


# Refusals


def test_settings_that_close_masks_but_never_settle_are_refused():
    target = target_of("t5")
    goal = goal_of(target, COFI_KINDS, sparsity=0.95)
    keys = {"max_steps": 500, "mask_learning_rate": 0.01}
    trace = Pursuit(goal, target.structure, LearnedMasksConfig()).run(500, 0.01)
    assert max(trace) > 0.9
    found = re.fullmatch(
        r"cofi: 500 training steps at a mask learning rate of 0\.01 cannot bring the sparsity of the model "
        r"to 0\.95: with nothing to oppose it, it goes from 0\.0\d{3} to 0\.9\d{3}, and at no evaluation "
        r"after the warm-up is it within the tolerance of 0\.01\. It takes at least train\.max_steps: (\d+) "
        r"at this rate, or train\.mask_learning_rate: (0\.\d+) in these steps; with the task loss against "
        r"it, more\.",
        refusal(target, [goal], **keys),
    )
    check(target, [goal], max_steps=int(found[1]), mask_learning_rate=0.01)
    check(target, [goal], max_steps=500, mask_learning_rate=float(found[2]))
    assert int(found[1]) < 3000


def test_the_proposal_in_epochs_counts_the_examples_and_the_accumulation():
    target = target_of("t5")
    goal = goal_of(target, UNITS, sparsity=0.3)
    keys = {"batch_size": 4, "gradient_accumulation": 2, "mask_learning_rate": 0.05}
    text = refusal(target, [goal], examples=100, epochs=1, **keys)
    assert text.startswith("cofi: 13 training steps at a mask learning rate of 0.05 cannot bring")
    found = re.search(r"at least train\.epochs: ([\d.]+) \((\d+) steps\) at this rate", text)
    assert -(-float(found[1]) * 25 // 2) == int(found[2])
    check(target, [goal], examples=100, epochs=float(found[1]), **keys)


@pytest.mark.parametrize(("kinds", "least", "ask"), [(UNITS, 0.0020, 0.003), (COFI_KINDS, 0.0060, 0.007)])
def test_a_target_below_what_open_masks_lose_is_refused(kinds, least, ask):
    target = target_of("t5")
    text = refusal(target, [goal_of(target, kinds, sparsity=0.001)], max_steps=500)
    assert text == (
        "cofi: a sparsity of 0.001 of the model cannot be learned; with every mask at its upper limit the "
        f"expected sparsity is {least:.4f}. Ask for at least {ask:g}, or for 0."
    )


def test_a_target_of_nothing_is_fine():
    target = target_of("t5")
    check(target, [goal_of(target, COFI_KINDS, sparsity=0.0)], max_steps=500)


def test_a_target_above_what_closed_masks_remove_is_refused():
    target = target_of("t5")
    assert refusal(target, [goal_of(target, UNITS, sparsity=0.97)], max_steps=500) == (
        "cofi: a sparsity of 0.97 of the model cannot be learned; with every mask at its lower limit the "
        "expected sparsity is 0.9529. Ask for at most 0.95."
    )


def test_the_limits_are_those_of_clamped_masks():
    target = target_of("t5")
    p = 1 / (1 + 2.718281828459045 ** (l0.CLOSING_LOGIT - l0.MAX_LOGIT))
    q = 1 / (1 + 2.718281828459045 ** (l0.CLOSING_LOGIT - l0.MIN_LOGIT))
    least, most = Pursuit(goal_of(target, ALL_KINDS), target.structure, LearnedMasksConfig()).limits()
    assert (least, most) == pytest.approx((1 - p**4, 1 - q**4), rel=1e-9)


def test_every_goal_is_asked_and_the_message_names_the_one_that_fails():
    target = target_of("t5")
    easy = goal_of(target, UNITS, sparsity=0.3, name="encoder", scope=["encoder.*"])
    hard = goal_of(target, ("block",), sparsity=2 / 3, name="decoder", scope=["decoder.*"])
    keys = {"max_steps": 100, "mask_learning_rate": 0.2, "config": {"sparsity_tolerance": 0.02}}
    check(target, [easy], **keys)
    assert "cannot bring the sparsity of the decoder to 0.666667: " in refusal(target, [easy, hard], **keys)


def test_a_crossing_that_an_evaluation_meets_is_let_through():
    # What the run itself would accept must not be refused: 500 steps ring around the target.
    target = target_of("t5")
    goal = goal_of(target, COFI_KINDS, sparsity=0.95)
    keys = {"max_steps": 500, "mask_learning_rate": 0.01, "config": {"sparsity_warmup": 0.6}}
    trace = Pursuit(goal, target.structure, LearnedMasksConfig(sparsity_warmup=0.6)).run(500, 0.01)
    assert abs(trace[-1] - 0.95) > 0.01
    assert min(abs(sparsity - 0.95) for sparsity in trace[300:]) < 0.01
    refusal(target, [goal], **keys)
    check(target, [goal], eval_every=1, **keys)


def test_without_settings_that_would_do_the_message_says_so(monkeypatch):
    monkeypatch.setattr(reach, "_PATIENCE", 100)
    target = target_of("t5")
    text = refusal(target, [goal_of(target, UNITS)], max_steps=60, mask_learning_rate=0.001)
    assert text.endswith(
        "No more steps at this rate and no other rate in these steps were found that do: train longer and "
        "raise train.mask_learning_rate, or raise sparsity_tolerance."
    )
