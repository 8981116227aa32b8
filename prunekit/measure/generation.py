"""One timed ``generate``, and where its time goes: encoder, decoder, LM head, the rest."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import StoppingCriteriaList

from prunekit.errors import PrunekitError
from prunekit.measure.timing import Clock, Instruments, Sample, time_call

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from prunekit.recipe import SpeedSpec

# `generate` writes its own decoder input.
_TARGETS = ("labels", "decoder_input_ids", "decoder_attention_mask")


@dataclass
class _Trace:
    """Stamps of one ``generate`` call; called after each token, as a stopping criterion that never stops."""

    clock: Clock
    tokens: list[Any] = field(default_factory=list)
    modules: dict[str, list[Any]] = field(default_factory=dict)

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        self.tokens.append(self.clock.stamp())
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)

    def inside(self, name: str) -> float:
        """Milliseconds spent inside a module, all its calls together."""
        stamps = self.modules[name]
        pairs = zip(stamps[::2], stamps[1::2], strict=True)
        return sum(self.clock.elapsed_ms(entered, left) for entered, left in pairs)


def time_generate(
    model: PreTrainedModel,
    batch: Mapping[str, Tensor],
    spec: SpeedSpec,
    instruments: Instruments,
    *,
    parts: bool = True,
) -> Sample:
    """A ``generate`` forced to ``spec.new_tokens`` tokens, and two more calls that explain it.

    The headline call carries no stamp inside: a stamp at every module of every token would add to small
    models more than to large ones. A second forced call carries them (``traced``). Its parts add up to it:
    ``encoder, decoder, lm_head`` are the time between a module's entry and exit, ``rest`` is what is left
    (search, caches, set-up). A compiled model is one graph, so there ``decoder_and_lm_head`` is one part.
    ``first_token`` runs from the start of the traced call (encoder and set-up included), ``per_token`` is the
    time from first to last token over one less than their number. The third call, ``natural``, ends where the
    model ends it.

    Args:
        model: an encoder-decoder with a language head, prepared.
        batch: source tokens; targets are left out.
        spec: gives ``new_tokens``, and whether the model is compiled.
        instruments: clock and energy counter.
        parts: make the second and the third call.

    Raises:
        PrunekitError: if the forced call did not give ``new_tokens`` tokens.
    """
    inputs = generate_inputs(batch)
    sample, written = time_call(
        lambda: forced_generate(model, inputs, spec.new_tokens), model.device, instruments
    )
    _check_length(model, written.shape[1] - 1, spec)  # the decoder's start token is not a new one
    if not parts:
        return sample
    sample.times_ms |= _traced(model, inputs, spec, instruments.clock)
    natural = _Trace(instruments.clock)
    ended, _ = time_call(
        lambda: _generate(model, inputs, {"max_new_tokens": spec.new_tokens}, natural),
        model.device,
        Instruments(instruments.clock),
    )
    sample.times_ms["natural"] = ended.times_ms["call"]
    sample.natural_tokens = len(natural.tokens)
    return sample


def generate_inputs(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The batch without targets."""
    return {name: tensor for name, tensor in batch.items() if name not in _TARGETS}


def forced_generate(model: PreTrainedModel, inputs: Mapping[str, Tensor], new_tokens: int) -> Tensor:
    """Token ids, ``[B, 1 + new_tokens]``, of a call that may neither stop earlier nor go on."""
    return _generate(model, inputs, {"min_new_tokens": new_tokens, "max_new_tokens": new_tokens})


def _traced(
    model: PreTrainedModel, inputs: Mapping[str, Tensor], spec: SpeedSpec, clock: Clock
) -> dict[str, float]:
    trace = _Trace(clock)
    lengths = {"min_new_tokens": spec.new_tokens, "max_new_tokens": spec.new_tokens}
    with ExitStack() as hooks:
        for name, module in _modules(model, spec).items():
            hooks.enter_context(_stamped(module, clock, trace.modules.setdefault(name, [])))
        clock.settle()
        start = clock.stamp()
        _generate(model, inputs, lengths, trace)
        end = clock.stamp()
        clock.settle()
    _check_length(model, len(trace.tokens), spec)
    inside = {name: trace.inside(name) for name in trace.modules}
    whole = clock.elapsed_ms(start, end)
    times = {"traced": whole, **inside, "rest": whole - sum(inside.values())}
    times["first_token"] = clock.elapsed_ms(start, trace.tokens[0])
    if spec.new_tokens > 1:
        further = clock.elapsed_ms(trace.tokens[0], trace.tokens[-1])
        times["per_token"] = further / (spec.new_tokens - 1)
    return times


def _modules(model: PreTrainedModel, spec: SpeedSpec) -> dict[str, nn.Module]:
    if spec.compile:
        return {"encoder": model.get_encoder(), "decoder_and_lm_head": model}
    return {
        "encoder": model.get_encoder(),
        "decoder": model.get_decoder(),
        "lm_head": model.get_output_embeddings(),
    }


def _check_length(model: PreTrainedModel, tokens: int, spec: SpeedSpec) -> None:
    if tokens != spec.new_tokens:
        raise PrunekitError(
            f"{type(model).__name__}.generate ran for {tokens} tokens where {spec.new_tokens} were "
            "forced, so its time says nothing. Check that the model's outputs are finite in this dtype."
        )


def _generate(
    model: PreTrainedModel,
    inputs: Mapping[str, Tensor],
    lengths: Mapping[str, int],
    trace: _Trace | None = None,
) -> Tensor:
    config = copy.deepcopy(model.generation_config)
    for name, value in lengths.items():
        setattr(config, name, value)
    watched = {"stopping_criteria": StoppingCriteriaList([trace])} if trace else {}
    written: Tensor = model.generate(**inputs, generation_config=config, **watched)
    return written


@contextmanager
def _stamped(module: nn.Module, clock: Clock, stamps: list[Any]) -> Iterator[None]:
    """Note when the module is entered and left."""
    hooks = (
        module.register_forward_pre_hook(lambda *_: stamps.append(clock.stamp())),
        module.register_forward_hook(lambda *_: stamps.append(clock.stamp())),
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
