"""What a model that prunekit cut, saved and loaded costs over a stock one of the same shapes, built by hand.

    python benchmarks/loaded_overhead.py --out benchmarks/results/loaded-overhead.json
    python benchmarks/loaded_overhead.py --cases bert-narrow --rounds 100

The claim to support or refute: at most 2 % more time. Every pair has the same weights and gives the same
logits, which is checked before anything is timed. Both models of a pair load prunekit's cut: one by
transformers' Auto class from a folder, as users do; the other is transformers' own code at these widths:

- t5-nash: encoder of two thirds of the heads and neurons, decoder of 3 blocks. Stock: two stacks of their own
  configs, since one config cannot give the stacks different widths;
- t5-narrow: both stacks of two thirds of the heads and neurons, full depth. Stock: one config says it all;
- bert-narrow: two thirds of the heads and neurons. Stock: no config says it (fewer heads would be wider
  ones), so the projections of the stock modules are replaced by narrower ones.

In every layer the same heads are kept, because a stock T5 has one position bias for all layers; prunekit's
modules select theirs all the same. A ratio is the time of the loaded model over the stock one's.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import bench
import shapes
import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    BertForSequenceClassification,
    PreTrainedModel,
    T5ForConditionalGeneration,
)
from transformers.models.t5.modeling_t5 import T5Stack

from prunekit.measure.speed import random_inputs
from prunekit.models import quiet_loading
from prunekit.pruning.layers import select_layers
from prunekit.pruning.plan import PruningPlan
from prunekit.pruning.target import PrunableModel

CLAIM = 1.02
TOLERANCE = 1e-4  # of the largest logit, in float32
DECODER_BLOCKS = 3


def stock_t5_nash(heads: int, neurons: int, tiny: bool) -> PreTrainedModel:
    """A stock T5 whose encoder has a narrower config than its short decoder."""
    model = T5ForConditionalGeneration(shapes.t5_config(tiny, num_decoder_layers=DECODER_BLOCKS))
    config = copy.deepcopy(model.encoder.config)
    config.num_heads, config.d_ff = heads, neurons
    model.encoder = T5Stack(config)
    model.encoder.set_input_embeddings(model.shared)
    return model


def stock_t5_narrow(heads: int, neurons: int, tiny: bool) -> PreTrainedModel:
    """A stock T5 with fewer heads and neurons everywhere."""
    return T5ForConditionalGeneration(shapes.t5_config(tiny, num_heads=heads, d_ff=neurons))


def stock_bert(heads: int, neurons: int, tiny: bool) -> PreTrainedModel:
    """A stock BERT whose attentions were given fewer heads of the same size."""
    config = shapes.bert_config(tiny, intermediate_size=neurons)
    model = BertForSequenceClassification(config)
    for layer in model.bert.encoder.layer:
        attention: Any = layer.attention.self
        width = heads * attention.attention_head_size
        attention.num_attention_heads, attention.all_head_size = heads, width
        for name in ("query", "key", "value"):
            setattr(attention, name, nn.Linear(config.hidden_size, width))
        layer.attention.output.dense = nn.Linear(width, config.hidden_size)
    return model


CASES: dict[str, tuple[str, Any, Callable[[int, int, bool], PreTrainedModel]]] = {
    "t5-nash": ("t5-base", AutoModelForSeq2SeqLM, stock_t5_nash),
    "t5-narrow": ("t5-base", AutoModelForSeq2SeqLM, stock_t5_narrow),
    "bert-narrow": ("bert-base", AutoModelForSequenceClassification, stock_bert),
}


def two_thirds(target: PrunableModel, stacks: Sequence[str]) -> shapes.Keep:
    """Keep lists of two thirds of every sublayer's units, evenly spaced."""
    return {
        sub.units.name: shapes.spread(sub.units.size, 2 * sub.units.size // 3)
        for sub in target.structure.sublayers.values()
        if sub.stack in stacks
    }


def reloaded(target: PrunableModel, keep: shapes.Keep, auto: Any) -> PreTrainedModel:
    """The model cut, saved to a folder, and loaded from it."""
    with tempfile.TemporaryDirectory() as folder, quiet_loading():
        target.pruned(PruningPlan(keep=keep)).model.save_pretrained(Path(folder))
        loaded: PreTrainedModel = auto.from_pretrained(folder)
    return loaded.eval()


def stock_weights(loaded: PreTrainedModel) -> dict[str, Tensor]:
    """The loaded model's tensors as a stock model of these shapes holds them."""
    tensors = dict(loaded.state_dict())
    kept = {name: tensors.pop(name) for name in list(tensors) if name.endswith(".kept_heads")}
    for name, heads in kept.items():
        table = f"{name.removesuffix('kept_heads')}relative_attention_bias.weight"
        if table in tensors:
            tensors[table] = tensors[table].index_select(1, heads)
    return tensors


def pair(case: str, options: argparse.Namespace) -> dict[str, PreTrainedModel]:
    """The stock model and the loaded one.

    Raises:
        SystemExit: if their logits differ, so that their times could not be compared.
    """
    name, auto, build = CASES[case]
    target = shapes.make_target(name, tiny=options.smoke, seed=options.seed, device="cpu")
    keep = two_thirds(target, ["encoder"] if case == "t5-nash" else ["encoder", "decoder"])
    heads, neurons = len(keep["encoder.0.self_attn.heads"]), len(keep["encoder.0.ffn.neurons"])
    if case == "t5-nash":
        keep["decoder.blocks"] = select_layers(target.structure.stacks["decoder"].depth, DECODER_BLOCKS)
    loaded = reloaded(target, keep, auto)
    stock = build(heads, neurons, options.smoke).eval()
    stock.load_state_dict(stock_weights(loaded))
    ids = torch.randint(3, 40, (2, 6), generator=torch.Generator().manual_seed(options.seed))
    inputs = {"input_ids": ids} | ({"decoder_input_ids": ids} if name == "t5-base" else {})
    with torch.inference_mode():
        expected, found = stock(**inputs).logits, loaded(**inputs).logits
    apart = float((expected - found).abs().max() / expected.abs().max())
    if not apart <= TOLERANCE:
        raise SystemExit(
            f"{case}: the stock and the loaded model differ by {apart:.1e} of the largest logit."
        )
    return {"stock": stock.to(options.device), "prunekit": loaded.to(options.device)}


def verdict(low: float, high: float) -> str:
    """Whether the claim holds for an interval of the ratio."""
    if high <= CLAIM:
        return "holds"
    return "does not hold" if low > CLAIM else "the interval is too wide to tell"


def main(given: Sequence[str] | None = None) -> None:
    """Measure, and print ratios and whether the claim holds."""
    parser = bench.parser(__doc__)
    parser.add_argument("--cases", nargs="+", choices=[*CASES], default=[*CASES])
    bench.sizes(
        parser, rounds=(20, 2, 100), batch=(4, 2, 32), length=(128, 6), new_tokens=(16, 3), beams=(4, 2)
    )
    options = bench.parsed(parser, given)
    spec = bench.spec_of(
        options, num_beams=options.beams, new_tokens=options.new_tokens, input_tokens=options.length
    )
    results: dict[str, bench.Result] = {}
    rows = []
    for case in options.cases:
        models = pair(case, options)
        result = results[case] = bench.measured(models, random_inputs(models["stock"], spec, spec.seed), spec)
        stock, own = result["models"]["stock"], result["models"]["prunekit"]
        ratio = bench.time_ratio(own)
        control = bench.time_ratio(result["control"])
        rows.append(
            [
                case,
                type(models["prunekit"]).__name__,
                f"{stock['median_ms']:.1f}",
                bench.interval(*ratio, 3),
                bench.interval(*control, 3),
                verdict(*ratio[1:]),
            ]
        )
    header = ["shapes", "loaded as", "stock (ms)", "loaded over stock", "control", f"at most {CLAIM}"]
    bench.report("loaded_overhead", options, results, bench.table(header, rows), {"claim": CLAIM})


if __name__ == "__main__":
    main()
