"""The residual stream of a stack on calibration batches, taken forward one block at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor, nn

from prunekit.pruning.units import Stack, Sublayer
from prunekit.scoring.frozen import to_model

if TYPE_CHECKING:
    from prunekit.pruning.target import PrunableModel


class Seen(NamedTuple):
    """What passed a sublayer.

    Args:
        inputs: of its output projection, ``[B, T, N * width]``.
        stream: residual and output together, before the norm of post-norm models, ``[B, T, d]``.
    """

    inputs: Tensor
    stream: Tensor


class Stream:
    """For each batch the hidden states that enter a block, and everything else that the block is called with.

    The model runs as it is when an object is made or run: dense, or under the masks of a ``with`` around it.
    Every block is called with its own recorded arguments, so that a block can run again without those before
    it. Run it under ``frozen`` and ``torch.no_grad``.

    Args:
        target: the model.
        stack: whose blocks to follow.
        batches: inputs of the model.

    Attributes:
        states: for each batch ``[B, T, d]``, at first those that enter block 0.
    """

    def __init__(self, target: PrunableModel, stack: Stack, batches: Sequence[Mapping[str, Tensor]]) -> None:
        self.model: nn.Module = target.model
        self.blocks: Any = target.model.get_submodule(stack.blocks)
        self.states: list[Tensor] = []
        self._calls: list[list[Callable[[nn.Module, Tensor], Any]]] = []
        # A cache would grow with every run of a block.
        options = {"use_cache": False} if "decoder" in target.structure.stacks else {}
        for batch in batches:
            entering: list[Tensor] = []
            calls: list[Callable[[nn.Module, Tensor], Any]] = []
            handles = [
                block.register_forward_pre_hook(_record(entering, calls), with_kwargs=True)
                for block in self.blocks
            ]
            try:
                target.model(**to_model(batch, target.model), **options)
            finally:
                for handle in handles:
                    handle.remove()
            self.states.append(entering[0])
            self._calls.append(calls)

    def run(
        self, block: int, batch: int, sublayers: Sequence[Sublayer] = ()
    ) -> tuple[Tensor, dict[str, Seen]]:
        """The hidden states that leave ``block`` of a batch, and what passed ``sublayers`` of it, by name."""
        module = self.blocks[block]
        with _watched(self.model, sublayers) as seen:
            output = self._calls[batch][block](module, self.states[batch])
        return (output[0] if isinstance(output, tuple) else output), seen


def _record(entering: list[Tensor], calls: list[Callable[[nn.Module, Tensor], Any]]) -> Any:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not entering:
            entering.append(args[0] if args else kwargs["hidden_states"])
        rest = {name: value for name, value in kwargs.items() if name != "hidden_states"}
        calls.append(lambda block, states: block(states, *args[1:], **rest))

    return hook


@contextmanager
def _watched(model: nn.Module, sublayers: Sequence[Sublayer]) -> Iterator[dict[str, Seen]]:
    seen: dict[str, Seen] = {}
    handles: list[Any] = []
    try:
        for sub in sublayers:
            handles += _watch(model, sub, seen)
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _watch(model: nn.Module, sub: Sublayer, seen: dict[str, Seen]) -> list[Any]:
    passed: dict[str, Tensor] = {}

    def at_norm(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        if sub.post_norm:
            seen[sub.name] = Seen(passed["inputs"], args[0])
        else:
            passed["residual"] = args[0]

    def at_output(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        if sub.post_norm:
            passed["inputs"] = args[0]
        else:
            seen[sub.name] = Seen(args[0], passed["residual"] + output)

    return [
        model.get_submodule(sub.norm).register_forward_pre_hook(at_norm),
        model.get_submodule(sub.output).register_forward_hook(at_output),
    ]


def valid_tokens(batch: Mapping[str, Tensor], stack: str) -> Tensor | None:
    """Which tokens of a stack are no padding, ``[B, T]``; none where the batch does not tell.

    A decoder's padding is known by ``decoder_attention_mask``, or by labels of -100; one that is given
    neither tokens nor labels of its own reads the encoder's.
    """
    mask, labels = batch.get("attention_mask"), batch.get("labels")
    if stack != "encoder":
        if "decoder_attention_mask" in batch:
            mask = batch["decoder_attention_mask"]
        elif labels is not None and labels.ndim == 2:
            return labels != -100
        elif "decoder_input_ids" in batch:
            return None
    return None if mask is None else mask != 0
