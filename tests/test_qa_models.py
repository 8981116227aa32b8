"""Models that mark answers in texts: pruned, scored, distilled and saved as any other."""

import json

import pytest
import torch
from core_calls import irregular_plan, off, same_tensors
from oneshot_calls import unit_groups
from optin_calls import scorer_of
from own_calls import write_lines
from prunekit_cofi.config import CofiConfig
from prunekit_cofi.loss import CofiLoss, layer_transforms
from prunekit_fisher.gradients import fisher_scores
from prunekit_nash.config import NashConfig
from prunekit_nash.loss import StudentLoss
from qa_calls import row, task_of, tiny_reader
from torch.nn.functional import kl_div, log_softmax
from transformers import (
    AutoModelForQuestionAnswering,
    BartForQuestionAnswering,
    BertForQuestionAnswering,
    BertModel,
    T5ForQuestionAnswering,
)

from prunekit.errors import UnsupportedModelError, VerificationError
from prunekit.outputs import predictions
from prunekit.pruning.auto import register
from prunekit.pruning.plan import PruningPlan
from prunekit.pruning.verify import reload_difference, verify
from prunekit.recipe import RecoverSpec, TrainSpec
from prunekit.scoring.frozen import frozen
from prunekit.scoring.replay import record, run
from prunekit.testing.tiny import tiny_inputs, tiny_model
from prunekit.training.loop import Trainer
from prunekit.training.recover import recover

READERS = {"bert": BertForQuestionAnswering, "bart": BartForQuestionAnswering, "t5": T5ForQuestionAnswering}


def reader(name="bert", *, seed=0, dtype=torch.float32):
    return tiny_model(name, seed=seed, model_class=READERS[name], dtype=dtype)


def batch_of(model):
    """Three questions of different lengths, with answers."""
    inputs = tiny_inputs(model, batch=3)
    inputs.pop("decoder_input_ids", None)
    inputs["attention_mask"][1, 4:] = 0
    inputs["start_positions"], inputs["end_positions"] = torch.tensor([1, 2, 3]), torch.tensor([2, 3, 6])
    return inputs


def divergences(changed, dense, batch, temperature):
    """KL(dense || changed) of starts and ends, question by question over its own tokens, ``[3, 2]``."""
    found = torch.zeros(3, 2, dtype=torch.float64)
    for question, tokens in enumerate(batch["attention_mask"].sum(1).tolist()):
        for place, name in enumerate(("start_logits", "end_logits")):
            ours, theirs = (
                log_softmax(output[name][question, :tokens].detach().double() / temperature, dim=-1)
                for output in (changed, dense)
            )
            found[question, place] = kl_div(ours, theirs, reduction="sum", log_target=True)
    return found


# What they predict


def test_a_reader_predicts_two_distributions_over_the_tokens_that_are_not_padding():
    model = reader()
    batch = batch_of(model)
    output = model(**batch)
    both = predictions(output, batch)
    assert both.shape == (3, 2, 7)
    shares = both.softmax(-1)
    assert (shares[:, 0][batch["attention_mask"] == 0] == 0).all()
    assert torch.allclose(shares[1, 1, :4], output.end_logits[1, :4].softmax(-1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_predictions_in_half_precision_stay_finite(dtype):
    batch = batch_of(reader())
    output = reader().to(dtype)(**batch)
    both = predictions(output, batch)
    assert both.dtype == torch.float32
    assert both.isfinite().all()


def test_other_heads_predict_their_logits_and_none_predicts_nothing():
    classifier, bare = tiny_model("bert"), tiny_model("bert", model_class=BertModel)
    inputs = tiny_inputs(bare)
    output = classifier(**inputs)
    assert predictions(output, inputs) is output.logits
    assert predictions(bare(**inputs), inputs) is None


# Pruning


@pytest.mark.parametrize("name", READERS)
def test_the_certificate_compares_starts_and_ends(name, prunable):
    target = prunable(reader(name))
    with torch.no_grad():
        for parameter in target.model.parameters():
            parameter.mul_(0.5 if parameter.ndim > 1 else 1)
    plan = irregular_plan(target)
    pruned = target.pruned(plan)
    assert verify(target, pruned, plan, batch_of(target.model))["masked_vs_pruned_max_abs"] < 1e-9
    with torch.no_grad():
        pruned.model.qa_outputs.bias[1] += 1  # of the ends
    with pytest.raises(VerificationError, match="the pruned model is not the masked model"):
        verify(target, pruned, plan, batch_of(target.model))


def test_a_pruned_reader_is_saved_and_loaded_by_its_auto_class(prunable, tmp_path):
    target = prunable(reader())
    pruned = target.pruned(irregular_plan(target)).model
    register()
    pruned.save_pretrained(tmp_path)
    reloaded = AutoModelForQuestionAnswering.from_pretrained(tmp_path)
    assert type(reloaded) is type(pruned)
    assert same_tensors(reloaded, pruned)
    assert reload_difference(pruned, reloaded, batch_of(pruned)) == 0


# Scoring


@pytest.mark.parametrize("name", ["bert", "bart"])
def test_replay_without_a_unit_equals_the_masked_model(name, prunable):
    target = prunable(reader(name, dtype=torch.float64))
    inputs = {key: tensor for key, tensor in batch_of(target.model).items() if "positions" not in key}
    for sub in target.structure.sublayers.values():
        with torch.inference_mode():
            found = run(target, record(target, inputs, [sub])[sub.name], torch.tensor([1, 2]), [])
        for place, unit in enumerate((1, 2)):
            with target.masked(off(target.groups, f"{sub.units.name}:{unit}")), torch.no_grad():
                expected = predictions(target.model(**inputs), inputs)
            assert torch.allclose(found.logits[place], expected, rtol=1e-9, atol=1e-9), sub.name


def test_replay_of_a_model_without_a_head_is_refused(prunable):
    target = prunable(tiny_model("bert", model_class=BertModel))
    sub = target.structure.sublayers["encoder.0.ffn"]
    with pytest.raises(UnsupportedModelError, match="BertModel gives no logits to compare"):
        record(target, tiny_inputs(target.model), [sub])


def test_optins_divergence_is_that_of_starts_and_ends_over_real_tokens(prunable):
    target = prunable(reader(dtype=torch.float64))
    batch = batch_of(target.model)
    group, unit = "encoder.1.ffn.neurons", 3
    with frozen(target.model):
        scorers = [scorer_of(target, [batch], scoring="exact", kl_weight=weight) for weight in (1, 0)]
        scores = [each.exact({group: [unit]})[group] for each in scorers]
    with torch.no_grad():
        dense = target.model(**batch)
        with target.masked(off(target.groups, f"{group}:{unit}")):
            changed = target.model(**batch)
    expected = 16 * divergences(changed, dense, batch, temperature=4).sum()
    assert float(scores[0] - scores[1]) == pytest.approx(float(expected), rel=1e-7)


def test_optins_probes_estimate_the_exact_scores(prunable):
    target = prunable(reader(dtype=torch.float64))
    with torch.no_grad():
        for parameter in target.model.parameters():
            parameter.mul_(0.3 if parameter.ndim > 1 else 1)
    group = "encoder.2.self_attn.heads"
    with frozen(target.model):
        scorer = scorer_of(target, [batch_of(target.model)], scoring="gauss-newton", probes=256)
        probed, exact = scorer.probed([group]).values[group], scorer.exact({group: range(4)})[group]
    assert probed.isfinite().all()
    assert probed.argmax() == exact.argmax()


def test_fishers_gradients_are_those_of_the_loss_of_starts_and_ends(prunable):
    target = prunable(reader(dtype=torch.float64))
    batch = batch_of(target.model)
    scores = fisher_scores(target, unit_groups(target), [batch])
    losses = []
    for value in (1 + 1e-5, 1 - 1e-5):
        mask = torch.ones(4, dtype=torch.float64)
        mask[1] = value
        with torch.no_grad(), target.masked({"encoder.0.self_attn.heads": mask}):
            shares = predictions(target.model(**batch), {}).log_softmax(-1)
        places = torch.stack([batch["start_positions"], batch["end_positions"]], dim=1)
        losses.append(-float(shares.gather(2, places[..., None]).mean()))
    slope = (losses[0] - losses[1]) / 2e-5
    found = scores.gradients["encoder.0.self_attn.heads"]
    assert float(found[0, 1]) == pytest.approx(slope, rel=1e-5)


# Distillation


def shaken(target):
    """A copy with other weights."""
    copy = target.copy()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in copy.model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return copy


@pytest.mark.parametrize("name", READERS)
def test_cofi_averages_the_divergences_of_starts_and_ends(name, prunable):
    teacher = prunable(reader(name))
    student = shaken(teacher)
    config = CofiConfig(prediction_weight=0.5, layer_weight=0.5, temperature=2.0, label_weight=1.0)
    loss = CofiLoss(config, student, teacher, layer_transforms(student))
    batch = batch_of(student.model)
    with torch.no_grad():
        total, terms = loss(batch, {})
    ours, theirs = student.model(**batch), teacher.model(**batch)
    expected = 4 * divergences(ours, theirs, batch, temperature=2).mean()
    assert float(terms["prediction"]) == pytest.approx(float(expected), rel=1e-3)
    assert float(terms["label"]) == pytest.approx(float(ours.loss.detach()), rel=1e-5)
    layers = sum(float(term) for key, term in terms.items() if key.endswith("_layer"))
    assert float(total) == pytest.approx(
        0.5 * float(expected) + float(ours.loss.detach()) + 0.5 * layers, rel=1e-4
    )


def test_padding_changes_no_distilled_term(prunable):
    teacher = prunable(reader())
    loss = CofiLoss(CofiConfig(), student := shaken(teacher), teacher, layer_transforms(student))
    batch = batch_of(student.model)
    padded = {
        name: torch.cat([tensor, torch.zeros(3, 4, dtype=torch.long)], 1) if tensor.ndim == 2 else tensor
        for name, tensor in batch.items()
    }
    with torch.no_grad():
        plain, longer = (loss(each, {})[1] for each in (batch, padded))
    assert {name: float(term) for name, term in longer.items()} == pytest.approx(
        {name: float(term) for name, term in plain.items()}, rel=1e-4
    )


@pytest.mark.parametrize("name", ["bart", "t5"])
def test_nash_distils_encoder_decoders_that_mark_answers(name, prunable):
    teacher = prunable(reader(name))
    config = NashConfig(
        temperature=1.0, kl_direction="forward", label_weight=1.0, decoder_hidden_weight=0.5, decoder_layers=3
    )
    student = shaken(teacher)
    batch = batch_of(student.model)
    with torch.no_grad():
        _, terms = StudentLoss(config, student, teacher, (0, 1, 2))(batch, {})
    ours, theirs = student.model(**batch), teacher.model(**batch)
    expected = divergences(ours, theirs, batch, temperature=1).mean()
    assert float(terms["prediction"]) == pytest.approx(float(expected), rel=1e-3)
    assert float(terms["label"]) == pytest.approx(float(ours.loss.detach()), rel=1e-5)
    assert float(terms["decoder_hidden"]) > 0


def test_recovery_learns_from_the_dense_models_starts_and_ends(prunable, tmp_path):
    path = write_lines(tmp_path / "train.jsonl", [row("a b c d", "b c"), row("e f g h", "f")] * 8)
    task = task_of(
        tmp_path, [row("a b", "b")], data={"train": path, "validation": str(tmp_path / "test.jsonl")}
    )
    dense = prunable(tiny_reader(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0))
    pruned = dense.pruned(PruningPlan(keep={"encoder.0.ffn.neurons": (0, 3)})).model
    batch = task.collate(task.examples("train"))
    with torch.no_grad():
        ours, theirs = (predictions(model(**batch), batch) / 2 for model in (pruned, dense.model))
    expected = kl_div(ours.log_softmax(-1), theirs.log_softmax(-1), reduction="none", log_target=True)
    spec = RecoverSpec(max_steps=1, batch_size=16, distill={"logits": 1.0, "temperature": 2.0})
    recover(pruned, dense.model, task, spec, Trainer(tmp_path / "run", TrainSpec()))
    (line,) = (tmp_path / "run" / "train.jsonl").read_text().splitlines()
    assert json.loads(line)["distill"] == pytest.approx(4 * float(expected.sum(-1).mean()), rel=1e-3)
