"""A measurement whose times follow from a model's shape, so that every verdict can be worked by hand."""

from __future__ import annotations

from types import SimpleNamespace

from torch import nn

from prunekit.measure.failures import describe
from prunekit.measure.statistics import compare, noise, summary
from prunekit.recipe import SpeedSpec

ROUNDS = 4


def small_spec(**changes):
    """A measurement that takes no time to speak of."""
    return SpeedSpec(**{"batch_size": 2, "num_beams": 2, "new_tokens": 3, "rounds": 2, "warmup": 0} | changes)


def split_by_depth(model, spec, batch):
    """1 ms an encoder block, 10 ms a decoder block, 4 ms of head, 5 ms a beam."""
    found = shape(model)
    parts = ("encoder", "decoder", "lm_head", "rest")
    return dict(zip(parts, (found.encoder, 10 * found.decoder, 4, 5 * spec.num_beams), strict=True))


def shape(model):
    """Blocks of each stack and neurons and heads of both together, read off a tiny T5's, BART's or BERT's."""
    found = SimpleNamespace(encoder=0, decoder=0, neurons=0, heads=0)
    for name, module in model.named_modules():
        last = name.rpartition(".")[2]
        is_stack = last in ("block", "layers", "layer") and isinstance(module, nn.ModuleList)
        if is_stack and type(module[0]).__name__.endswith(("Block", "Layer")):
            setattr(found, "decoder" if "decoder" in name else "encoder", len(module))
        if last in ("wi", "wi_0", "fc1") or name.endswith("intermediate.dense"):
            found.neurons += module.out_features
        if last in ("o", "out_proj"):
            found.heads += module.in_features // 4
    return found


def fake_measure(cost, *, seen=None, split=None):
    """Stands in for ``measure_speed``: ``cost(model, spec, batch)`` gives ms, the same in every round.

    A cost that raises is an error of its row, and of the whole where it is the reference's. ``split`` gives
    the ms of each part likewise.
    """

    def entry(model, spec, batch, parts):
        samples = [float(cost(model, spec, batch))] * ROUNDS
        found = {**summary(samples), "parameters": model.num_parameters(), "macs": None}
        if parts and split:
            found["parts"] = {p: summary([ms] * ROUNDS) for p, ms in split(model, spec, batch).items()}
        return found

    def measure(models, inputs, spec, *, parts=True, progress=None, label=""):
        batch, entries = len(next(iter(inputs.values()))), {}
        for name, given in models.items():
            try:
                entries[name] = entry(
                    getattr(given, "model", given), getattr(given, "spec", None) or spec, batch, parts
                )
            except RuntimeError as error:
                if not entries:
                    raise
                entries[name] = {"error": describe(error)}
        reference, *others = (found for found in entries.values() if "error" not in found)
        times = reference["samples_ms"]
        for other in others:
            other.update(compare(times, times, other["samples_ms"], 0))
        control = {**summary(times), **compare(times, times, times, 0)}
        if seen is not None:
            seen.append((list(models), batch))
        return {
            "mode": "generate",
            "device": "cpu",
            "batch_size": batch,
            "rounds": spec.rounds,
            "control": control,
            "noise": noise(control),
            "models": entries,
        }

    return measure


def row(name, kind, speedup, low, high, verdict, **more):
    """One experiment's row."""
    gain = {"speedup": speedup, "speedup_low": low, "speedup_high": high, "verdict": verdict}
    return {"name": name, "kind": kind, "factor": name, "change": "", "how": [], "left": 0.5, **gain, **more}
