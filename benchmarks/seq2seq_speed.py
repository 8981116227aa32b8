"""How much faster NASH's and CoFi's shapes of T5-base and BART-base generate than the dense ones.

    python benchmarks/seq2seq_speed.py --out benchmarks/results/seq2seq-speed.json
    python benchmarks/seq2seq_speed.py --models t5-base --batch 32 --new-tokens 64

The claim to support or refute: at a forced length, the speedup of an encoder-decoder follows the depth of its
decoder; narrowing every sublayer to the same number of parameters gives much less. Shapes, all cut from one
dense model of random weights through a plan:

- NASH-4, -3, -2: so many evenly spaced decoder blocks, and the encoder's heads and neurons cut evenly until
  30 % of its prunable parameters are gone;
- CoFi, narrow: all blocks stay; every sublayer of both stacks is cut evenly to NASH-2's parameters;
- CoFi, sublayers (T5 alone): the decoder keeps 6 self-attention, 7 cross-attention and 5 FFN sublayers,
  evenly spaced, as the automatic selection did on SAMSum in the NASH paper's Table 3; what is left of both
  stacks is cut evenly to NASH-2's parameters. Figure 6 of that paper has no numbers that could be read.

Beside them stands what the paper prints: for T5 the range over the four data sets of Table 1, for BART Table
6. Its times were taken otherwise (docs/measuring-speed.md).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import bench
import shapes

from prunekit.measure.speed import random_inputs
from prunekit.pruning.layers import select_layers
from prunekit.pruning.plan import PruningPlan
from prunekit.pruning.target import PrunableModel

ENCODER_SPARSITY = 0.3
DECODER_BLOCKS = (4, 3, 2)
SUBLAYERS = {"self_attn": 6, "cross_attn": 7, "ffn": 5}  # of 12
PUBLISHED = {
    "t5-base": {
        "NASH-4": "1.64 to 2.99",
        "NASH-3": "2.42 to 4.24",
        "NASH-2": "3.74 to 5.53",
        "CoFi, narrow": "1.12 to 1.53",
        "CoFi, sublayers": "1.12 to 1.53",
    },
    "bart-base": {"NASH-3": "2.1", "NASH-2": "3.2"},
}


def plans(target: PrunableModel, name: str) -> dict[str, shapes.Keep]:
    """Keep lists by the name of the shape; the dense model, which keeps all, first."""
    depth = target.structure.stacks["decoder"].depth
    encoder = ENCODER_SPARSITY * shapes.prunable(target, "encoder")
    found: dict[str, shapes.Keep] = {"dense": {}}
    for blocks in DECODER_BLOCKS:
        keep = {"decoder.blocks": select_layers(depth, blocks)}
        found[f"NASH-{blocks}"] = shapes.narrowed(target, keep, encoder, ["encoder"])
    aim = shapes.parameters(target, found[f"NASH-{DECODER_BLOCKS[-1]}"])
    starts: dict[str, shapes.Keep] = {"CoFi, narrow": {}}
    if name == "t5-base":
        starts["CoFi, sublayers"] = {
            f"decoder.{role}": shapes.spread(depth, count) for role, count in SUBLAYERS.items()
        }
    for label, keep in starts.items():
        removed = shapes.parameters(target, keep) - aim
        found[label] = shapes.narrowed(target, keep, removed, ["encoder", "decoder"])
    return found


def measure(name: str, options: argparse.Namespace) -> tuple[bench.Result, dict[str, Any]]:
    """Times of all shapes of one architecture, and the shapes in words."""
    target = shapes.make_target(name, tiny=options.smoke, seed=options.seed, device=options.device)
    models: dict[str, Any] = {}
    described: dict[str, Any] = {}
    for label, keep in plans(target, name).items():
        models[label] = target.pruned(PruningPlan(keep=keep)).model if keep else target.model
        described[label] = {group: len(kept) for group, kept in keep.items()}
    spec = bench.spec_of(
        options, num_beams=options.beams, new_tokens=options.new_tokens, input_tokens=options.length
    )
    return bench.measured(
        models, random_inputs(target.model, spec, options.seed), spec, parts=True
    ), described


def row(architecture: str, label: str, entry: bench.Result, reference: str) -> list[str]:
    """One line of the table."""
    parts = entry["parts"]
    return [
        f"{architecture}, {label}",
        f"{entry['parameters'] / 1e6:.1f}",
        f"{entry['median_ms']:.0f}",
        "1" if label == reference else bench.speedup(entry),
        f"{parts['encoder']['median_ms']:.0f}",
        f"{parts['per_token']['median_ms']:.1f}",
        PUBLISHED[architecture].get(label, ""),
    ]


def main(given: Sequence[str] | None = None) -> None:
    """Measure, and print the table."""
    parser = bench.parser(__doc__)
    parser.add_argument("--models", nargs="+", choices=[*PUBLISHED], default=[*PUBLISHED])
    bench.sizes(
        parser, rounds=(7, 2, 30), batch=(4, 2, 32), length=(128, 6), new_tokens=(24, 3), beams=(4, 2)
    )
    options = bench.parsed(parser, given)
    results, described, rows = {}, {}, []
    for name in options.models:
        result, described[name] = measure(name, options)
        results[name] = result
        rows += [row(name, label, entry, result["reference"]) for label, entry in result["models"].items()]
    header = ["shape", "parameters (M)", "call (ms)", "speedup", "encoder (ms)", "a token (ms)", "NASH paper"]
    bench.report("seq2seq_speed", options, results, bench.table(header, rows), {"kept": described})


if __name__ == "__main__":
    main()
