"""Runs of a model without single units that start where the units are: what lies before is not run again.

One dense pass records what enters and leaves a sublayer. A unit's contribution to its sublayer is linear in
the output projection, so the sublayer without it is the recorded output minus the contribution. From there
the model's own code goes on: for M variants stacked on the batch axis, with every module before that point
made to hand back what was recorded. Nothing here depends on the architecture beyond its unit table.

Shapes: M variants, B examples, T tokens, d model width, N units of w entries each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from prunekit.errors import PlanError, UnsupportedModelError
from prunekit.outputs import predictions
from prunekit.pruning.units import Stack, Sublayer

if TYPE_CHECKING:
    from prunekit.pruning.target import PrunableModel

LAYOUT_TOLERANCE = 1e-3
"""Relative; a block whose output is not what its table says is off by far more, whatever the rounding."""


@dataclass(frozen=True)
class Tap:
    """A module whose output is wanted.

    Args:
        path: the module; its output, or the first entry of it, is ``[M * B, T, d]``.
        tokens: positions among the ``B * T`` of one variant that are wanted, ``[K]``; none for all.
    """

    path: str
    tokens: Tensor | None = None


@dataclass(frozen=True)
class Outcome:
    """What a run gave.

    Args:
        logits: ``[M, B, ...]``.
        taps: for each tapped module ``[M, K, d]``.
    """

    logits: Tensor
    taps: Mapping[str, Tensor]


@dataclass(frozen=True)
class Prefix:
    """A sublayer of the dense model on one batch, and all that was computed before it.

    Args:
        sublayer: whose units are to be removed.
        inputs: of the model.
        shape: (B, T, d) of the sublayer's stack.
        entering: what the output projection reads, ``[B * T, N * w]``.
        projected: what it gives, ``[B * T, d]``.
        outward: for feed-forward sublayers, what the block's end reads (post-norm) or gives (pre-norm), from
            which contributions are subtracted, ``[B * T, d]``.
        held: for blocks before the sublayer, and its own where nothing else of it runs, what they gave.
    """

    sublayer: Sublayer
    inputs: Mapping[str, Tensor]
    shape: tuple[int, int, int]
    entering: Tensor
    projected: Tensor
    outward: Tensor | None
    held: Mapping[str, Any]
    _repeated: dict[int, tuple[dict[str, Any], dict[str, Tensor]]] = field(default_factory=dict, repr=False)

    def repeated(self, variants: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """``held`` and ``inputs`` stacked ``variants`` times; the last answer is kept for the next chunk."""
        if variants not in self._repeated:
            self._repeated.clear()
            stacked: dict[int, Any] = {}
            for value in self.held.values():
                stacked.setdefault(id(value), _stack_output(value, variants))
            held = {path: stacked[id(value)] for path, value in self.held.items()}
            inputs = {name: _stack(tensor, variants) for name, tensor in self.inputs.items()}
            self._repeated[variants] = held, inputs
        return self._repeated[variants]


def run_dense(target: PrunableModel, inputs: Mapping[str, Tensor], taps: Sequence[Tap]) -> Outcome:
    """The model as it is, as a single variant."""
    with _watching(target.model, taps, 1) as found:
        logits = _logits(target, inputs)
    return Outcome(logits.unsqueeze(0), found)


def record(
    target: PrunableModel, inputs: Mapping[str, Tensor], sublayers: Sequence[Sublayer]
) -> dict[str, Prefix]:
    """What ``run`` needs for units of these sublayers, by sublayer name; one dense pass.

    Raises:
        UnsupportedModelError: if a block does not end with its feed-forward sublayer.
    """
    stacks = target.structure.stacks
    wanted: set[str] = set()
    for sub in sublayers:
        wanted |= {sub.output, sub.norm, _block(stacks[sub.stack], sub.block)}
        wanted |= set(_sources(sub, stacks).values())
    read, given = _recorded(target, inputs, wanted)
    prefixes = {}
    for sub in sublayers:
        projected: Tensor = given[sub.output]
        batch, tokens, width = projected.shape
        outward = None
        if sub.role == "ffn":
            outward = _outward(
                target.model, sub, _first(given[_block(stacks[sub.stack], sub.block)]), read, given
            )
        prefixes[sub.name] = Prefix(
            sub,
            inputs,
            (batch, tokens, width),
            read[sub.output].flatten(0, 1),
            projected.flatten(0, 1),
            outward,
            _held(sub, stacks, given),
        )
    return prefixes


def run(target: PrunableModel, prefix: Prefix, units: Tensor, taps: Sequence[Tap]) -> Outcome:
    """The model without each of these units in turn, from their sublayer onwards.

    Args:
        target: the model that was recorded.
        prefix: what was recorded.
        units: indices in the sublayer's group, ``[M]``; one variant each.
        taps: modules that lie behind the units, or the sublayer's own output projection or block.
    """
    sub, (batch, tokens, width) = prefix.sublayer, prefix.shape
    model, variants = target.model, len(units)
    output: Any = model.get_submodule(sub.output)
    size = sub.units.width
    entering = prefix.entering.view(batch * tokens, -1, size)[:, units].transpose(0, 1)  # [M, B * T, w]
    weight = output.weight.view(width, -1, size)[:, units].permute(1, 2, 0)  # [M, w, d]

    def without(base: Tensor) -> Tensor:
        """``base`` minus each unit's contribution, ``[M * B, T, d]``."""
        left = torch.baddbmm(base.expand(variants, -1, -1), entering, weight, alpha=-1)
        return left.view(variants * batch, tokens, width)

    held, inputs = prefix.repeated(variants)
    known = {}
    if prefix.outward is None:
        held = {**held, sub.output: without(prefix.projected)}
    else:
        changed = without(prefix.outward)
        if sub.post_norm:
            changed = model.get_submodule(sub.norm)(changed)
        own = target.structure.stacks[sub.stack].blocks + "."
        held = {p: _with_first(v, changed) if p.startswith(own) else v for p, v in held.items()}
        # The projection itself does not run, so its tap is filled in here.
        for tap in taps:
            if tap.path == sub.output:
                known[tap.path] = _chosen(without(prefix.projected), tap, variants)
    with (
        _handing_back(model, held),
        _watching(model, [tap for tap in taps if tap.path not in known], variants) as found,
    ):
        logits = _logits(target, inputs)
    return Outcome(logits.view(variants, batch, *logits.shape[1:]), {**found, **known})


def idle_units(target: PrunableModel, prefix: Prefix) -> Tensor:
    """Which units contribute exactly nothing on this batch: removing them changes nothing, ``[N]``."""
    sub = prefix.sublayer
    output: Any = target.model.get_submodule(sub.output)
    size = sub.units.width
    reads = (prefix.entering != 0).any(0).view(-1, size)  # [N, w]
    writes = (output.weight != 0).any(0).view(-1, size)
    idle: Tensor = ~(reads & writes).any(1)
    return idle


def _sources(sub: Sublayer, stacks: Mapping[str, Stack]) -> dict[str, str]:
    """Blocks that are not run again, each with the block whose output it hands back instead.

    Only the last one's output is read by anything, so all of a stack hand back the same.
    """
    own = stacks[sub.stack]
    found: dict[str, str] = {}
    for name, stack in stacks.items():
        if name == sub.stack:
            break
        last = _block(stack, stack.depth - 1)
        found |= {_block(stack, index): last for index in range(stack.depth)}
    # A feed-forward sublayer ends its block, so nothing of the block is left to run.
    end = sub.block + 1 if sub.role == "ffn" else sub.block
    return found | {_block(own, index): _block(own, end - 1) for index in range(end)}


def _held(sub: Sublayer, stacks: Mapping[str, Stack], given: Mapping[str, Any]) -> dict[str, Any]:
    """The blocks that are not run again, and what they hand back."""
    held = {path: given[source] for path, source in _sources(sub, stacks).items()}
    if sub.role == "ffn":
        # Each run puts a changed output there, so only what comes with it has to be kept.
        own = stacks[sub.stack].blocks + "."
        output = next(value for path, value in held.items() if path.startswith(own))
        light = _with_first(output, _first(output).new_empty(_first(output).shape[0], 0))
        held = {path: light if path.startswith(own) else value for path, value in held.items()}
    return held


def _block(stack: Stack, index: int) -> str:
    return f"{stack.blocks}.{index}"


def _recorded(
    target: PrunableModel, inputs: Mapping[str, Tensor], paths: set[str]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """First argument and output of each of these modules in one run."""
    read: dict[str, Tensor] = {}
    given: dict[str, Any] = {}

    def keep(path: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            # Some models pass a block's input by name; nothing here needs a block's input.
            if args:
                read[path] = args[0]
            given[path] = output

        return hook

    handles = [target.model.get_submodule(path).register_forward_hook(keep(path)) for path in sorted(paths)]
    try:
        _logits(target, inputs)
    finally:
        for handle in handles:
            handle.remove()
    return read, given


def _outward(
    model: nn.Module,
    sub: Sublayer,
    block_output: Any,
    read: Mapping[str, Tensor],
    given: Mapping[str, Any],
) -> Tensor:
    """What a feed-forward contribution is subtracted from, ``[B * T, d]``, after a check that it may be."""
    before, block_output = read[sub.norm], _first(block_output)
    expected = given[sub.norm] if sub.post_norm else before + given[sub.output]
    scale = float(block_output.abs().max())
    # What is not finite says nothing of the layout; scores will not be finite either, and are then refused.
    if float((expected - block_output).abs().max()) > LAYOUT_TOLERANCE * scale:
        ending = "its normalisation" if sub.post_norm else "the residual addition"
        raise UnsupportedModelError(
            f"{sub.name} of {type(model).__name__} is not the last thing in its block: the block's output is "
            f"not that of {ending} after {sub.output}. Scoring without running the block again needs a block "
            "that ends with its feed-forward sublayer; check the adapter's table."
        )
    return (before if sub.post_norm else block_output).flatten(0, 1)


@contextmanager
def _handing_back(model: nn.Module, outputs: Mapping[str, Any]) -> Iterator[None]:
    """Let modules give recorded outputs instead of computing, inside the context."""
    changed: list[Any] = []
    try:
        for path, value in outputs.items():
            module: Any = model.get_submodule(path)
            if "forward" in vars(module):
                raise PlanError(
                    f"{path} already runs with a replaced forward. Leave the masks' context first."
                )
            module.forward = lambda *args, _value=value, **kwargs: _value
            changed.append(module)
        yield
    finally:
        for module in changed:
            del module.forward


@contextmanager
def _watching(model: nn.Module, taps: Sequence[Tap], variants: int) -> Iterator[dict[str, Tensor]]:
    """Fill the dictionary with what the tapped modules give, inside the context."""
    found: dict[str, Tensor] = {}

    def keep(tap: Tap) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            found[tap.path] = _chosen(_first(output), tap, variants)

        return hook

    handles = [model.get_submodule(tap.path).register_forward_hook(keep(tap)) for tap in taps]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _chosen(output: Tensor, tap: Tap, variants: int) -> Tensor:
    tokens = output.reshape(variants, -1, output.shape[-1])  # [M, B * T, d]
    return tokens if tap.tokens is None else tokens[:, tap.tokens]


def _logits(target: PrunableModel, inputs: Mapping[str, Tensor]) -> Tensor:
    # A cache would be filled by modules that hand back what they gave before, and nothing reads it.
    cache = {"use_cache": False} if "decoder" in target.structure.stacks else {}
    logits = predictions(target.model(**inputs, **cache), inputs)
    if logits is None:
        raise UnsupportedModelError(
            f"{type(target.model).__name__} gives no logits to compare. Load the model with its task's head."
        )
    return logits


def _first(output: Any) -> Any:
    return output[0] if isinstance(output, tuple) else output


def _with_first(output: Any, tensor: Tensor) -> Any:
    return (tensor, *output[1:]) if isinstance(output, tuple) else tensor


def _stack(tensor: Tensor, variants: int) -> Tensor:
    return tensor.repeat(variants, *(1,) * (tensor.ndim - 1))


def _stack_output(output: Any, variants: int) -> Any:
    """A block's output, ``variants`` times on the batch axis."""
    if not isinstance(output, tuple):
        return _stack(output, variants)
    batch = output[0].shape[0]

    def rest(value: Any) -> Any:
        # T5 hands its position biases on, [1, H, T, T]: the same for every example.
        is_batched = isinstance(value, Tensor) and value.ndim > 0 and value.shape[0] == batch > 1
        return _stack(value, variants) if is_batched else value

    return (_stack(output[0], variants), *map(rest, output[1:]))
