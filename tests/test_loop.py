"""The training loop: order of the data, updates, log, best state.

Numbers that are not finite are in test_guards.py, resuming in test_resume.py.
"""

from __future__ import annotations

import math

import pytest
import torch
from number_task import Numbers, equal_weights, fit, log_rows, net, spec, squared_error, weights
from torch import nn

from prunekit.training.batches import bucketed_batches, total_steps
from prunekit.training.loop import Assessment, ParameterGroup, task_loss, use_bf16

pytestmark = pytest.mark.usefixtures("one_thread")

LENGTHS = [int(n) for n in torch.randint(3, 40, (137,), generator=torch.Generator().manual_seed(0))]


# Order of the data


@pytest.mark.parametrize("batch_size", [1, 2, 8, 200])
def test_batches_cover_every_example_exactly_once(batch_size):
    batches = bucketed_batches(LENGTHS, batch_size, seed=0, epoch=0)
    assert sorted(index for batch in batches for index in batch) == list(range(len(LENGTHS)))
    assert len(batches) == math.ceil(len(LENGTHS) / batch_size)
    assert max(map(len, batches)) <= batch_size


def test_batches_depend_on_seed_and_epoch_alone():
    first = bucketed_batches(LENGTHS, 8, seed=1, epoch=2)
    torch.manual_seed(99)
    torch.rand(5)
    assert bucketed_batches(LENGTHS, 8, seed=1, epoch=2) == first
    assert bucketed_batches(LENGTHS, 8, seed=1, epoch=3) != first
    assert bucketed_batches(LENGTHS, 8, seed=2, epoch=2) != first


def test_drawing_batches_leaves_the_random_state_alone():
    before = torch.get_rng_state()
    bucketed_batches(LENGTHS, 8, seed=1, epoch=2)
    assert torch.equal(torch.get_rng_state(), before)


def test_examples_of_like_length_share_a_batch():
    batches = bucketed_batches(LENGTHS, 8, seed=0, epoch=0)
    padding = sum(max(LENGTHS[i] for i in b) * len(b) - sum(LENGTHS[i] for i in b) for b in batches)
    assert padding < 0.1 * sum(LENGTHS)


@pytest.mark.parametrize(
    ("keys", "steps"),
    [
        ({"epochs": 1}, 13),  # 100 examples in batches of 8
        ({"epochs": 2}, 26),
        ({"epochs": 0.5}, 7),
        ({"epochs": 1, "gradient_accumulation": 4}, 4),
        ({"epochs": 4, "max_steps": 10}, 10),
        ({"epochs": 1, "max_steps": 1000}, 1000),
    ],
)
def test_total_steps(keys, steps):
    assert total_steps(100, spec(**{"batch_size": 8, **keys})) == steps


# Updates


@pytest.mark.parametrize(
    ("keys", "rates"),
    [
        # Ten steps, no warm-up: 10/10, 9/10, … 1/10 of the peak.
        ({}, [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]),
        # Warm-up of 4: fifths of the peak, then sixths down.
        ({"warmup_ratio": 0.4}, [1 / 5, 2 / 5, 3 / 5, 4 / 5, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6]),
    ],
)
def test_learning_rate_rises_and_falls_linearly(tmp_path, keys, rates):
    fit(tmp_path, net(), spec(learning_rate=0.02, **keys))
    found = [row["learning_rate"] for row in log_rows(tmp_path)]
    assert found == pytest.approx([0.02 * rate for rate in rates])


def test_one_update_is_adamw_on_the_clipped_gradient(tmp_path):
    model, twin, task = net(), net(), Numbers(examples=4)
    fit(tmp_path, model, spec(epochs=1, max_grad_norm=0.01, weight_decay=0.5), task=task)
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in twin.parameters() if p.ndim > 1], "weight_decay": 0.5},
            {"params": [p for p in twin.parameters() if p.ndim == 1], "weight_decay": 0.0},
        ],
        lr=0.05,
    )
    squared_error(twin)(task.collate(task.examples("train")), 0)[0].backward()
    norm = math.sqrt(sum(float(p.grad.square().sum()) for p in twin.parameters()))
    for parameter in twin.parameters():
        parameter.grad *= 0.01 / norm
    optimizer.step()
    assert norm > 0.01
    assert log_rows(tmp_path)[0]["grad_norm"] == pytest.approx(norm, rel=1e-5)
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_gradient_accumulation_equals_the_big_batch(tmp_path):
    big, small, task = net(), net(), Numbers(examples=8)
    fit(tmp_path / "big", big, spec(epochs=3, batch_size=8), task=task)
    fit(tmp_path / "small", small, spec(epochs=3, batch_size=2, gradient_accumulation=4), task=task)
    for ours, theirs in zip(small.parameters(), big.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    losses = [[row["loss"] for row in log_rows(tmp_path / name)] for name in ("small", "big")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_group_descends_or_ascends_at_its_own_constant_rate(tmp_path):
    down, up = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(()))
    model = net()

    def loss(batch, step):
        return squared_error(model)(batch, step)[0] + 1000 * (down + up), {}

    groups = [ParameterGroup([down], 0.1), ParameterGroup([up], 0.2, maximize=True)]
    fit(tmp_path, model, spec(weight_decay=0.1), loss=loss, groups=groups)
    # A constant gradient moves AdamW one rate a step, ten steps here.
    assert (down.item(), up.item()) == pytest.approx((-1.0, 2.0), rel=1e-4)
    assert max(row["grad_norm"] for row in log_rows(tmp_path)) < 100


def test_frozen_parameters_stay_and_are_not_in_the_norm(tmp_path):
    model = net()
    model[0].requires_grad_(False)
    before = weights(model)
    fit(tmp_path, model, spec())
    changed = {name for name, tensor in weights(model).items() if not torch.equal(tensor, before[name])}
    assert changed == {"3.weight", "3.bias"}


def test_after_step_gets_the_number_of_updates_done(tmp_path):
    seen = []
    fit(tmp_path, net(), spec(), after_step=seen.append)
    assert seen == list(range(1, 11))


def test_the_loss_gets_the_number_of_updates_done_before_it(tmp_path):
    model, seen = net(), []

    def loss(batch, step):
        seen.append(step)
        return squared_error(model)(batch, step)

    fit(tmp_path, model, spec(epochs=1, batch_size=5, gradient_accumulation=2), loss=loss)
    assert seen == [0, 0, 1, 1]


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(tmp_path):
    models = [net(dropout=0.5) for _ in range(3)]
    for index, (model, seed) in enumerate(zip(models, (3, 3, 4), strict=True)):
        fit(tmp_path / str(index), model, spec(), seed=seed)
        torch.rand(1)
    assert equal_weights(weights(models[0]), weights(models[1]))
    assert not equal_weights(weights(models[0]), weights(models[2]))


# Log


def test_the_log_has_one_line_a_step(tmp_path):
    model = net()

    def loss(batch, step):
        return squared_error(model)(batch, step)[0], {"half": torch.tensor(0.5), "step_seen": float(step)}

    result = fit(tmp_path, model, spec(), loss=loss)
    rows = log_rows(tmp_path)
    assert [(row["stage"], row["step"]) for row in rows] == [("stage", n) for n in range(1, 11)]
    assert rows[4].keys() == {"stage", "step", "loss", "half", "step_seen", "grad_norm", "learning_rate"}
    assert (rows[4]["half"], rows[4]["step_seen"]) == (0.5, 4.0)
    assert result.steps == 10


def test_stages_share_one_log(tmp_path):
    for stage in ("first", "second"):
        fit(tmp_path, net(), spec(epochs=1), stage=stage)
    assert [row["stage"] for row in log_rows(tmp_path)] == ["first"] * 5 + ["second"] * 5


# Best state


def judged(verdicts, states, model):
    """An ``assess`` that hands out (eligible, rank) in turn and notes the weights it judged."""
    turns = iter(verdicts)

    def assess(step):
        states[step] = weights(model)
        eligible, rank = next(turns)
        return Assessment({"quality": rank}, eligible, (rank,))

    return assess


def test_the_best_eligible_state_is_loaded_at_the_end(tmp_path):
    model, states = net(), {}
    verdicts = [(True, 1.0), (False, 9.0), (True, 3.0), (True, 3.0), (True, 2.0)]
    result = fit(tmp_path, model, spec(), assess=judged(verdicts, states, model), assess_every=2)
    assert (result.best_step, result.best_rank) == (6, (3.0,))
    assert equal_weights(weights(model), states[6])
    assert not equal_weights(states[6], states[10])
    assert not model.training


def test_an_ineligible_state_is_never_the_best(tmp_path):
    model, states = net(), {}
    verdicts = [(False, float(n)) for n in range(5)]
    result = fit(tmp_path, model, spec(), assess=judged(verdicts, states, model), assess_every=2)
    assert result.best_step is None
    assert equal_weights(weights(model), states[10])
    assert result.figures == {"quality": 4.0}


def test_modules_outside_the_model_return_to_the_best_state_too(tmp_path):
    model, extra, states = net(), nn.Linear(1, 1), {}

    def loss(batch, step):
        return squared_error(model)(batch, step)[0] + extra.weight.sum(), {}

    fit(
        tmp_path,
        model,
        spec(),
        loss=loss,
        groups=[ParameterGroup([extra.weight], 0.1)],
        modules={"extra": extra},
        assess=judged([(True, 1.0), *[(True, 0.0)] * 4], states, extra),
        assess_every=2,
    )
    assert equal_weights(weights(extra), states[2])
    assert not equal_weights(states[2], states[10])


def test_the_last_step_is_assessed_even_without_assess_every(tmp_path):
    model, states = net(), {}
    result = fit(tmp_path, model, spec(), assess=judged([(True, 1.0)], states, model))
    assert list(states) == [10]
    assert result.best_step == 10
    assert [row for row in log_rows(tmp_path) if "quality" in row] == log_rows(tmp_path)[-1:]


def test_assessing_does_not_change_training(tmp_path):
    plain, assessed = net(dropout=0.5), net(dropout=0.5)

    def assess(step):
        assert not assessed.training
        return Assessment({"noise": float(torch.rand(3).sum())}, eligible=False)

    fit(tmp_path / "plain", plain, spec())
    fit(tmp_path / "assessed", assessed, spec(), assess=assess, assess_every=1)
    assert equal_weights(weights(plain), weights(assessed))


def test_task_loss_is_the_models_own():
    class Answer(nn.Module):
        def forward(self, x):
            return type("Output", (), {"loss": x.sum()})

    value, figures = task_loss(Answer())({"x": torch.ones(3)}, 0)
    assert (value.item(), figures) == (3.0, {})


@pytest.mark.parametrize(("precision", "expected"), [("auto", False), ("fp32", False), ("bf16", True)])
def test_precision_on_a_cpu(precision, expected):
    assert use_bf16(precision, torch.device("cpu")) is expected
