"""What one layer of T5-base takes against its heads, its FFN width and the length, and what its parts take.

    python benchmarks/layer_time.py --out benchmarks/results/layer-time.json
    python benchmarks/layer_time.py --stacks decoder --lengths 1 --batch 128

The claims to support or refute are those of the NASH paper's Figures 3 and 4: at length 1, which is what a
decoder works at, neither heads nor FFN width change the time of a layer, and they do the more the longer the
input is; layer norms and dropout take 20 to 25 % of a layer.

A contestant is a chain of transformers' own T5 blocks, each with weights of its own as in a model (a layer
that is run twice would find its weights in the cache), and times are divided by their number. What a stack
does once for all its layers is left out: masks, the position bias. A decoder layer finds the keys and values
of ``--source`` source tokens in a cache, as ``generate`` does after its first step, and puts its own into an
empty one. A part is a chain of the layer's own modules by themselves: attention without
its norm, the FFN's two matrices, the norms. The rest is what they leave of the whole layer: residual
additions, calls, the cache, and what parts alone gain or lose. Dropout does nothing at inference.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import bench
import shapes
import torch
from torch import Tensor, nn
from transformers import DynamicCache, EncoderDecoderCache, T5Config
from transformers.models.t5.modeling_t5 import T5Block, T5PreTrainedModel

PARTS = ("attention", "FFN", "norms")
TWELFTHS = (9, 6, 3, 1)  # of the heads, and of the FFN width


class Chain(T5PreTrainedModel):
    """Blocks one after the other, without what a stack has around them.

    Args:
        config: of all blocks.
        depth: how many.
        source: tokens that a decoder attends to.
    """

    def __init__(self, config: T5Config, depth: int, source: int) -> None:
        super().__init__(config)
        self.blocks = nn.ModuleList(
            T5Block(config, has_relative_attention_bias=index == 0, layer_idx=index) for index in range(depth)
        )
        self.source = source
        self.post_init()
        self._made: dict[Any, Any] = {}

    def forward(self, hidden_states: Tensor) -> Tensor:
        """The states ``[B, T, D]`` behind the last block."""
        bias, cross_bias, source, cache = self._surroundings(hidden_states)
        for block in self.blocks:
            hidden_states = self._step(block, hidden_states, bias, cross_bias, source, cache)
        return hidden_states

    def _step(
        self, block: Any, states: Tensor, bias: Any, cross_bias: Any, source: Any, cache: Any
    ) -> Tensor:
        result: Tensor = block(states, None, bias, source, None, cross_bias, past_key_values=cache)[0]
        return result

    def _surroundings(self, states: Tensor) -> tuple[Any, Any, Any, Any]:
        """Position biases, source states and a fresh cache; made once a shape and number format."""
        key = (states.shape, states.dtype)
        if key not in self._made:
            self._made = {key: self._make(states)}
        bias, cross_bias, source, cross_cache = self._made[key]
        cache = EncoderDecoderCache(DynamicCache(), cross_cache) if cross_cache is not None else None
        return bias, cross_bias, source, cache

    def _make(self, states: Tensor) -> tuple[Any, Any, Any, Any]:
        batch, length, width = states.shape
        first: Any = self.blocks[0]
        bias = first.layer[0].SelfAttention.compute_bias(length, length, device=states.device)
        if not self.config.is_decoder:
            return bias, None, None, None
        heads, size = self.config.num_heads, self.config.d_kv
        source = states.new_zeros(batch, self.source, width)
        keys = states.new_zeros(batch, heads, self.source, size)  # [B, H, S, K]
        cross_cache = DynamicCache([(keys.clone(), keys.clone()) for _ in self.blocks])
        return bias, states.new_zeros(1, heads, length, self.source), source, cross_cache


class Part(Chain):
    """One kind of module of every block, one after the other.

    Args:
        config: as in ``Chain``.
        depth: as in ``Chain``.
        source: as in ``Chain``.
        part: which, of ``PARTS``.
    """

    def __init__(self, config: T5Config, depth: int, source: int, part: str) -> None:
        super().__init__(config, depth, source)
        self.part = part

    def _step(
        self, block: Any, states: Tensor, bias: Any, cross_bias: Any, source: Any, cache: Any
    ) -> Tensor:
        if self.part == "FFN":
            states = block.layer[-1].DenseReluDense(states)
        elif self.part == "norms":
            for sublayer in block.layer:
                states = sublayer.layer_norm(states)
        else:
            states = block.layer[0].SelfAttention(states, position_bias=bias, past_key_values=cache)[0]
            if source is not None:
                attend = block.layer[1].EncDecAttention
                states = attend(
                    states, key_value_states=source, position_bias=cross_bias, past_key_values=cache
                )[0]
        return states


def chains(stack: str, options: argparse.Namespace) -> dict[str, Chain]:
    """Contestants by name: the full layer, narrower ones, and the full one's parts."""
    torch.manual_seed(options.seed)

    def config(**changes: int) -> T5Config:
        return shapes.t5_config(options.smoke, is_decoder=stack == "decoder", **changes)

    heads, width = config().num_heads, config().d_ff
    size = (options.layers, options.source)
    found: dict[str, Chain] = {f"heads {heads}, FFN {width}": Chain(config(), *size)}
    for twelfths in TWELFTHS:
        narrow = max(1, twelfths * heads // 12)
        found[f"heads {narrow}"] = Chain(config(num_heads=narrow), *size)
    for twelfths in TWELFTHS:
        narrow = twelfths * width // 12
        found[f"FFN {narrow}"] = Chain(config(d_ff=narrow), *size)
    for part in PARTS:
        found[f"{part} alone"] = Part(config(), *size, part)
    return {name: chain.eval().to(options.device) for name, chain in found.items()}


def rows_of(stack: str, found: Mapping[int, bench.Result], layers: int, seed: int) -> list[list[str]]:
    """Lines of the table for one stack: the full layer in ms, all else as a share of it."""
    first = next(iter(found.values()))
    rows = []
    for name in first["models"]:
        cells = []
        for result in found.values():
            entry = result["models"][name]
            if name == result["reference"]:
                cells.append(f"{entry['median_ms'] / layers:.3f} ms")
            else:
                cells.append(bench.interval(*bench.time_ratio(entry)))
        rows.append([f"{stack}, {name}", *cells])
    rest = []
    for result in found.values():
        times = {name: entry["samples_ms"] for name, entry in result["models"].items()}
        parts = [times[f"{part} alone"] for part in PARTS]
        rest.append(bench.interval(*bench.rest_of(times[result["reference"]], parts, seed)))
    rows.append([f"{stack}, the rest", *rest])
    control = [bench.interval(*bench.time_ratio(result["control"])) for result in found.values()]
    return [*rows, [f"{stack}, the full layer again (control)", *control]]


def main(given: Sequence[str] | None = None) -> None:
    """Measure, and print the table."""
    parser = bench.parser(__doc__)
    parser.add_argument("--stacks", nargs="+", choices=["encoder", "decoder"], default=["encoder", "decoder"])
    parser.add_argument("--lengths", nargs="+", type=int, help="[default: 1 32 128 512; smoke: 1 4]")
    bench.sizes(parser, rounds=(9, 2, 50), batch=(1, 2, 32), layers=(4, 2), source=(128, 6))
    options = bench.parsed(parser, given)
    options.lengths = options.lengths or ([1, 4] if options.smoke else [1, 32, 128, 512])
    results: dict[str, bench.Result] = {}
    rows = []
    for stack in options.stacks:
        models = chains(stack, options)
        width = next(iter(models.values())).config.d_model
        found = {}
        for length in options.lengths:
            generator = torch.Generator().manual_seed(options.seed)
            states = torch.randn(options.batch, length, width, generator=generator)
            found[length] = bench.measured(models, {"hidden_states": states}, bench.spec_of(options))
        results |= {f"{stack}, length {length}": result for length, result in found.items()}
        rows += rows_of(stack, found, options.layers, options.seed)
    header = ["layer", *(f"length {length}" for length in options.lengths)]
    bench.report("layer_time", options, results, bench.table(header, rows), {"layers": options.layers})


if __name__ == "__main__":
    main()
