"""Batches and slow, independent scores that the tests of OPTIN share."""

from __future__ import annotations

import torch
from prunekit_optin.config import OptinConfig
from prunekit_optin.scorer import Scorer

from prunekit.progress import Progress
from prunekit.scoring.frozen import frozen
from prunekit.testing.tiny import tiny_inputs, tiny_model

IGNORED = -100


def padded_batch(model, *, seed=0, batch=3, length=7):
    """A batch with labels whose rows have different lengths, in the encoder and in the decoder."""
    inputs = tiny_inputs(model, seed=seed, batch=batch, length=length)
    if "attention_mask" in inputs:
        inputs["attention_mask"][1, 4:] = 0
    generator = torch.Generator().manual_seed(seed + 1)
    if inputs.pop("decoder_input_ids", None) is None:
        return {**inputs, "labels": torch.randint(0, 3, (batch,), generator=generator)}
    labels = torch.randint(3, model.config.vocab_size, (batch, 5), generator=generator)
    labels[0, 3:] = IGNORED
    labels[2, 4:] = IGNORED
    return {**inputs, "labels": labels}


def scorer_of(target, batches, *, seed=0, others=None, **config):
    """A scorer on these batches; the caller holds the model still."""
    heads = list(batches)
    neurons = heads if others is None else list(others)
    return Scorer(target, OptinConfig(**config), heads, neurons, seed=seed, progress=Progress(quiet=True))


def all_units(target, *kinds):
    """Every head and neuron, or those of these kinds."""
    return {
        sub.units.name: range(sub.units.size)
        for sub in target.structure.sublayers.values()
        if not kinds or sub.units.kind in kinds
    }


def exact_scores(target, batches, *, kinds=(), seed=0, others=None, **config):
    """Exact scores of every unit of a model that is held still for it."""
    with frozen(target.model):
        scorer = scorer_of(target, batches, seed=seed, others=others, scoring="exact", **config)
        return scorer.exact(all_units(target, *kinds))


class Rerun:
    """What a model gives with units removed by a plain hook: whole batches, whole model, no sharing.

    Args:
        target: the model.
        batch: with labels.
        features: ``ffn_output``, ``block_output`` or ``block_norm``.
    """

    def __init__(self, target, batch, features="ffn_output"):
        self.target, self.batch = target, batch
        self.paths = {}
        for stack in target.structure.stacks.values():
            for index in range(stack.depth):
                ffn = target.structure.sublayers[f"{stack.name}.{index}.ffn"]
                attention = target.structure.sublayers[f"{stack.name}.{index}.self_attn"]
                self.paths[stack.name, index] = {
                    "ffn_output": ffn.output,
                    "block_output": f"{stack.blocks}.{index}",
                    "block_norm": attention.norm,
                }[features]
        labels = batch["labels"]
        self.answers = labels != IGNORED
        self.tokens = {}
        if "attention_mask" in batch:
            self.tokens = {"encoder": batch["attention_mask"] != 0, "decoder": self.answers}
        self.dense = self.run()

    def run(self, removed=()):
        """Compared tensors by (stack, block), and logits; ``removed`` holds (sublayer, unit) pairs."""
        model, found, handles = self.target.model, {}, []
        for key, path in self.paths.items():
            handles.append(model.get_submodule(path).register_forward_hook(_store(found, key)))
        for sub, unit in removed:
            handles.append(model.get_submodule(sub.output).register_forward_pre_hook(_zero(sub, unit)))
        with torch.no_grad():
            logits = model(**self.batch).logits
        for handle in handles:
            handle.remove()
        return found, logits

    def terms(
        self, sub, unit, *, also=(), keys=None, pick=None, temperature=4.0, soften=True, aggregate="mean"
    ):
        """Distance and divergence of one removed unit; ``pick`` chooses rows of all tokens."""
        features, logits = self.run([(sub, unit), *also])
        dense, dense_logits = self.dense
        distance = torch.zeros((), dtype=torch.float64)
        for key in self.behind(sub) if keys is None else keys:
            pair = [self._rows(each, key) for each in (dense[key], features[key])]
            rows = slice(None) if pick is None else pick(len(pair[0]))
            grams = [rows_ @ rows_.T for rows_ in (each[rows] for each in pair)]
            squares = (grams[0] - grams[1]).square()
            distance += squares.mean() if aggregate == "mean" else squares.sum()
        answers = self.answers if logits.ndim == 3 else slice(None)
        divisor = temperature if soften else 1.0
        log_p, log_q = (
            torch.log_softmax(each[answers].double() / divisor, -1) for each in (dense_logits, logits)
        )
        divergence = torch.nn.functional.kl_div(log_q, log_p, log_target=True, reduction="sum")
        return distance.item(), temperature**2 * divergence.clamp_min(0).item()

    def behind(self, sub):
        """The compared tensors of later blocks, or the last block's own."""
        keys = list(self.paths)
        own = keys.index((sub.stack, sub.block))
        return keys[own + 1 :] or keys[-1:]

    def _rows(self, tensor, key):
        tokens = self.tokens.get(key[0], torch.ones(tensor.shape[:2], dtype=torch.bool))
        return torch.nn.functional.normalize(tensor[tokens].double(), dim=-1)

    def scores(self, *, kl_weight=0.1, **options):
        """The paper's score of every unit."""
        found = {}
        for sub in self.target.structure.sublayers.values():
            terms = [self.terms(sub, unit, **options) for unit in range(sub.units.size)]
            found[sub.units.name] = torch.tensor(
                [distance + kl_weight * divergence for distance, divergence in terms], dtype=torch.float64
            )
        return found


def double(name, prunable, *, seed=0):
    """The tiny model of that name in float64, with its adapter."""
    return prunable(tiny_model(name, seed=seed, dtype=torch.float64))


def _store(found, key):
    def hook(module, arguments, output):
        found[key] = output[0] if isinstance(output, tuple) else output

    return hook


def _zero(sub, unit):
    def hook(module, arguments):
        inputs = arguments[0].clone()
        inputs[..., unit * sub.units.width : (unit + 1) * sub.units.width] = 0
        return (inputs,)

    return hook
