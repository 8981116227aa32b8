"""The models of one measurement: each prepared for its own settings, counted, checked, ready to be timed."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from prunekit.errors import PrunekitError
from prunekit.flops import call_macs
from prunekit.measure.accelerate import accelerated, check_output, is_accelerated
from prunekit.measure.failures import ROW_FAILURES, describe, free_memory
from prunekit.measure.generation import forced_generate, generate_inputs, time_generate
from prunekit.measure.inputs import check_positions
from prunekit.measure.prepare import DTYPES, generates, prepared
from prunekit.measure.timing import Instruments, Sample, forward_inputs, time_forward

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from prunekit.recipe import SpeedSpec

OWN_KEYS = ("dtype", "attention", "num_beams", "length_penalty", "new_tokens", "static_cache", "compile")
"""What a contestant may have settings of its own for; batch, rounds, threads and seed are of all."""


@dataclass(frozen=True)
class Contestant:
    """A model with settings of its own, to be timed beside others: in bf16, compiled, with fewer beams.

    One model may take part several times; its weights are shared until a number format makes them others.
    Of ``spec`` count `OWN_KEYS`; without it the settings of the measurement hold.
    """

    model: PreTrainedModel
    spec: SpeedSpec | None = None


@dataclass
class Entry:
    """A contestant that takes part, and what has been found out about it so far."""

    name: str
    model: PreTrainedModel
    spec: SpeedSpec
    own: dict[str, Any]
    batch: dict[str, Tensor] = field(default_factory=dict)
    macs: int | None = None
    output_check: dict[str, Any] | None = None
    error: str | None = None
    samples: list[Sample] = field(default_factory=list)

    @property
    def mode(self) -> Literal["generate", "forward"]:
        """What is timed."""
        return "generate" if generates(self.model) else "forward"

    def prepare(self, inputs: Mapping[str, Tensor], restored: ExitStack) -> None:
        """Make the model ready, count its MACs and check its output; ``restored`` undoes it all later.

        Raises:
            PrunekitError: if it cannot take these sizes or settings on this device.
        """
        self._check_settings(inputs)
        with ExitStack() as own:
            own.enter_context(prepared(self.model, self.spec))
            self.batch = _placed(inputs, self.model.device, DTYPES[self.spec.dtype])
            self.macs = self._count()
            if is_accelerated(self.spec):
                with torch.inference_mode():
                    plain = self.call()
                    own.enter_context(accelerated(self.model, self.spec))
                    self.output_check = check_output(plain, self.call, self.spec)
            restored.enter_context(own.pop_all())

    def call(self) -> Any:
        """The call that is timed."""
        if self.mode == "generate":
            return forced_generate(self.model, generate_inputs(self.batch), self.spec.new_tokens)
        return self.model(**forward_inputs(self.batch))

    def sample(self, instruments: Instruments, *, parts: bool) -> Sample:
        """One turn of one round."""
        if self.mode == "generate":
            return time_generate(self.model, self.batch, self.spec, instruments, parts=parts)
        return time_forward(self.model, self.batch, instruments)

    def _check_settings(self, inputs: Mapping[str, Tensor]) -> None:
        if "input_ids" in inputs:
            check_positions("speed.input_tokens", inputs["input_ids"].shape[1], self.model)
        if self.mode == "generate":
            check_positions("speed.new_tokens", self.spec.new_tokens, self.model)
        elif self.spec.static_cache:
            raise PrunekitError(
                f"speed.static_cache: {type(self.model).__name__} is timed by forward, which keeps no cache. "
                "Leave it out."
            )
        device = self.model.device
        if self.spec.dtype == "bf16" and device.type == "cuda" and not _has_bf16():
            raise PrunekitError("speed.dtype = bf16, which this GPU only emulates. Ask for fp16 or fp32.")

    def _count(self) -> int | None:
        # Counting needs eager attention, which may not fit or not exist where the timed call does.
        try:
            return call_macs(self.model, self.call)
        except ROW_FAILURES:
            pass
        free_memory()
        return None


def make_entries(models: Mapping[str, PreTrainedModel | Contestant], base: SpeedSpec) -> list[Entry]:
    """An entry for each contestant; one that shares its model but not its settings gets a twin of it."""
    taken: list[tuple[PreTrainedModel, SpeedSpec, PreTrainedModel]] = []
    entries = []
    for name, given in models.items():
        contestant = given if isinstance(given, Contestant) else Contestant(given)
        wanted = contestant.spec or base
        own = {key: getattr(wanted, key) for key in OWN_KEYS if getattr(wanted, key) != getattr(base, key)}
        spec = base.model_copy(update=own)
        model = contestant.model
        same_model = [(settings, used) for original, settings, used in taken if original is model]
        if same_model:
            ready = [used for settings, used in same_model if settings == spec]
            model = ready[0] if ready else _twin(model)
        taken.append((contestant.model, spec, model))
        entries.append(Entry(name, model, spec, own))
    return entries


def try_to_prepare(entry: Entry, inputs: Mapping[str, Tensor], restored: ExitStack) -> None:
    """`Entry.prepare`; what goes wrong is kept as the entry's ``error``."""
    try:
        entry.prepare(inputs, restored)
    except ROW_FAILURES as error:
        entry.error = describe(error)
    if entry.error:
        free_memory()


def _twin(model: PreTrainedModel) -> PreTrainedModel:
    """A copy that shares the tensors: casting it gives it tensors of its own and leaves the model's alone."""
    shared: dict[int, Any] = {
        id(parameter): nn.Parameter(parameter.data, requires_grad=parameter.requires_grad)
        for parameter in model.parameters()
    }
    shared |= {id(buffer): buffer for buffer in model.buffers()}
    return copy.deepcopy(model, shared)


def _has_bf16() -> bool:
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def _placed(inputs: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    return {
        name: tensor.to(device, dtype if tensor.is_floating_point() else tensor.dtype)
        for name, tensor in inputs.items()
    }
