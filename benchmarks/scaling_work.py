"""Models of any number of layers, heads and neurons, and what prunekit does with them, a call each.

Not a benchmark itself. Models are encoder-decoders of T5's architecture with random weights, because there
the number of heads is free of the model's width; data are random letters, all of one length, so that nothing
is padded. A call gives the seconds that it took, without what it only needs to begin.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from mask_overhead import Masked
from prunekit_fisher.gradients import fisher_scores
from prunekit_optin.config import OptinConfig
from prunekit_optin.scorer import Scorer
from torch.utils.flop_counter import FlopCounterMode
from transformers import T5Config, T5ForConditionalGeneration

from prunekit.plugins import get_registry
from prunekit.progress import Progress
from prunekit.pruning.target import PrunableModel, find_adapter
from prunekit.recipe import TrainSpec
from prunekit.resources import LiveBytes
from prunekit.scoring.frozen import frozen
from prunekit.tasks.base import Split
from prunekit.tasks.metrics import PER
from prunekit.tasks.text2text import Text2TextTask, TextPair
from prunekit.testing.tasks import LETTERS, NoKeys, letter_tokenizer
from prunekit.training.loop import ParameterGroup, Trainer

STEPS = 3  # of a training whose steps are timed; the first one, which makes the optimiser's state, is not
Call = Callable[["Work"], float]


@dataclass(frozen=True)
class Shape:
    """What costs depend on.

    Args:
        layers: blocks of the encoder, and as many of the decoder.
        heads: of every attention.
        neurons: of every feed-forward sublayer.
        batch: examples of a step, or of a batch that is scored or answered.
        examples: of an epoch, to score on, or to answer.
        tiny: whether everything else is tiny.
    """

    layers: int
    heads: int
    neurons: int
    batch: int
    examples: int
    tiny: bool = False

    @property
    def tokens(self) -> tuple[int, int]:
        """Length of every source and of every target."""
        return (6, 4) if self.tiny else (32, 16)


class Letters(Text2TextTask):
    """Random letters, in every split the same number.

    Args:
        examples: of each split.
        tokens: of every source and of every target, end token included.
        seed: decides the letters.
    """

    name: ClassVar[str] = "letters"
    summary: ClassVar[str] = "random letters, to be answered by others"
    Config = NoKeys
    splits = ("train", "calibration", "test")
    metrics = (PER,)
    primary_metric = PER.name
    higher_is_better = PER.higher_is_better

    def __init__(self, examples: int, tokens: tuple[int, int], seed: int) -> None:
        super().__init__(letter_tokenizer())
        self.size, self.tokens, self.seed = examples, tokens, seed
        self.max_new_tokens = tokens[1]

    def pairs(self, split: Split) -> list[TextPair]:
        """Return the pairs of a split."""
        generator = torch.Generator().manual_seed(self.seed)

        def text(tokens: int) -> str:
            drawn = torch.randint(len(LETTERS), (tokens - 1,), generator=generator)
            return " ".join(LETTERS[index] for index in drawn)

        source, target = self.tokens
        return [TextPair(text(source), (text(target),)) for _ in range(self.size)]


class Work:
    """A model of some shape, and data for it.

    Args:
        shape: of both.
        seed: of weights, data and masks.

    Attributes:
        batches: calibration examples, collated.
        weight_bytes: of the model.
    """

    def __init__(self, shape: Shape, seed: int) -> None:
        self.shape, self.seed = shape, seed
        size = {"d_model": 16, "d_kv": 4, "vocab_size": 40} if shape.tiny else {"d_model": 256, "d_kv": 32}
        torch.manual_seed(seed)
        config = T5Config(
            num_layers=shape.layers,
            num_heads=shape.heads,
            d_ff=shape.neurons,
            decoder_start_token_id=0,
            **{"vocab_size": 1000, **size},
        )
        model = T5ForConditionalGeneration(config).eval()
        self.task = Letters(shape.examples, shape.tokens, seed)
        with torch.no_grad():
            # No model here writes an end token: answers are of one length.
            model.get_input_embeddings().weight[self.task.tokenizer.eos_token_id].zero_()
        self.target = PrunableModel(model, find_adapter(model, get_registry().adapters))
        examples = self.task.examples("calibration")
        starts = range(0, len(examples), shape.batch)
        self.batches = [self.task.collate(examples[at : at + shape.batch]) for at in starts]
        self.weight_bytes = sum(p.numel() * p.element_size() for p in model.parameters())


class _Enough(Exception):
    """The updates that were to be timed are done; nothing of them is to be saved."""


def _updates(work: Work, max_steps: int | None) -> list[float]:
    """When training under masks began, and when each of its updates was done, in seconds."""
    masked = Masked(work.target, ("head", "neuron"))
    spec = TrainSpec(batch_size=work.shape.batch, max_steps=max_steps, learning_rate=1e-5, precision="fp32")
    last = max_steps or -(-work.shape.examples // work.shape.batch)
    stamps = [time.perf_counter()]

    def after_step(step: int) -> None:
        stamps.append(time.perf_counter())
        masked.masks.clamp_()
        if step == last:
            raise _Enough

    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(Path(folder), spec, seed=work.seed)
        try:
            trainer.fit(
                "scaling",
                work.target.model,
                work.task,
                spec,
                lambda batch, step: (masked.loss(batch), {}),
                groups=[
                    ParameterGroup(list(masked.masks.parameters()), 0.01),
                    ParameterGroup(list(masked.lagrangian.parameters()), 0.01, maximize=True),
                ],
                modules={"masks": masked.masks, "lagrangian": masked.lagrangian},
                after_step=after_step,
            )
        except _Enough:
            work.target.model.zero_grad(set_to_none=True)
    return stamps


def training_step(work: Work) -> float:
    """A step of training under masks of all heads and neurons: data, loss, gradients, update."""
    stamps = _updates(work, STEPS)
    return (stamps[-1] - stamps[1]) / (STEPS - 1)


def training_epoch(work: Work) -> float:
    """All steps of an epoch, from the first example on."""
    stamps = _updates(work, None)
    return stamps[-1] - stamps[0]


def fisher(work: Work) -> float:
    """Fisher scores of all heads and neurons."""
    groups = [sub.units.name for sub in work.target.structure.sublayers.values()]
    started = time.perf_counter()
    fisher_scores(work.target, groups, work.batches)
    return time.perf_counter() - started


def optin(work: Work) -> float:
    """OPTIN's exact scores of all heads, as ``scoring: auto`` takes them."""
    groups = {sub.units.name: sub.units for sub in work.target.structure.sublayers.values()}
    units = {name: range(group.size) for name, group in groups.items() if group.kind == "head"}
    started = time.perf_counter()
    with frozen(work.target.model):
        quiet = Progress(quiet=True)
        scorer = Scorer(
            work.target, OptinConfig(), work.batches, work.batches, seed=work.seed, progress=quiet
        )
        scorer.exact(units)
    return time.perf_counter() - started


def evaluation(work: Work) -> float:
    """Greedy answers to all examples, and their scores."""
    started = time.perf_counter()
    work.task.evaluate(work.target.model, "test", batch_size=work.shape.batch)
    return time.perf_counter() - started


def tensor_bytes(call: Call, work: Work) -> int:
    """Bytes of weights, and of the tensors beside them that a call holds at most."""
    with LiveBytes() as live:
        call(work)
    return live.peak + work.weight_bytes


def counted_macs(call: Call, work: Work) -> int:
    """Multiply-adds of all that a call computes, backward passes included."""
    model = work.target.model
    kernel = model.config._attn_implementation
    model.set_attn_implementation("eager")  # torch's counter does not see the fused kernel of CPUs
    with FlopCounterMode(display=False) as counter:
        call(work)
    model.set_attn_implementation(kernel)
    return int(counter.get_total_flops()) // 2
