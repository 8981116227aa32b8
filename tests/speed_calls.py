"""Tiny models, and models that spend the time of a fake clock."""

import torch
from torch import nn
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForSequenceClassification,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTForImageClassification,
)

from prunekit.measure.speed import measure_speed, random_inputs
from prunekit.recipe import SpeedSpec

SMALL = {"vocab_size": 50, "max_position_embeddings": 24}
LAYERS = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
STACK = {"layers": 2, "attention_heads": 2, "ffn_dim": 32}
STACKS = {f"{stack}_{name}": size for stack in ("encoder", "decoder") for name, size in STACK.items()}
BERT = BertConfig(**SMALL, **LAYERS)
VIT = ViTConfig(**LAYERS, image_size=16, patch_size=8)
BART = BartConfig(**SMALL, **STACKS, d_model=16)
T5 = T5Config(vocab_size=50, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, decoder_start_token_id=0)
TINY = {
    "t5": (T5ForConditionalGeneration, T5),
    "bart": (BartForConditionalGeneration, BART),
    "bert": (BertForSequenceClassification, BERT),
    "vit": (ViTForImageClassification, VIT),
}


def tiny(name):
    model_class, config = TINY[name]
    torch.manual_seed(0)
    return model_class(config)


def small_spec(**changes):
    return SpeedSpec(**{"batch_size": 2, "num_beams": 1, "new_tokens": 4, "rounds": 2, "warmup": 1} | changes)


class FakeClock:
    """A clock that moves only when told to; remembers who moved it."""

    def __init__(self):
        self.seconds = 0.0
        self.log = []

    def __call__(self):
        return self.seconds

    def __deepcopy__(self, memo):
        return self  # time passes for all alike

    def spend(self, milliseconds, who=None):
        self.seconds += milliseconds / 1000.0
        if who:
            self.log.append(who)


def counting(model):
    """MACs are counted with eager attention, in a call that is not timed."""
    return model.config._attn_implementation == "eager"


class TimedBert(BertForSequenceClassification):
    """Its forward takes the next of the given costs."""

    def forward(self, **inputs):
        self.received = inputs
        if not counting(self):
            self.clock.spend(next(self.costs), self.name)


def timed_bert(clock, name, costs, model_class=TimedBert):
    model = model_class(BERT)
    model.clock, model.name, model.costs = clock, name, iter(costs)
    return model


class TimedT5(T5ForConditionalGeneration):
    """Generates in fake time: set-up 1 ms, encoder 4 ms, a token 2 ms, tidying 0.5 ms; ends after 3."""

    def generate(self, generation_config, stopping_criteria=(), **inputs):
        ids, tokens = inputs["input_ids"], generation_config.min_new_tokens or 3
        if not counting(self):
            self.calls.append((generation_config, inputs, len(stopping_criteria)))
            self.clock.spend(1.0)
            self.encoder(input_ids=ids)
            for _ in range(tokens):
                self.lm_head(self.decoder(torch.zeros(1, 16)))
                self.clock.spend(0.25)
                for criterion in stopping_criteria:
                    criterion(ids, None)
            self.clock.spend(0.5)
        return torch.zeros(len(ids), 1 + tokens)


def timed_t5(clock, model_class=TimedT5):
    model = model_class(T5)
    model.clock, model.calls = clock, []
    model.decoder = nn.Identity()
    for module, cost in ((model.encoder, 4.0), (model.decoder, 1.5), (model.lm_head, 0.25)):
        module.register_forward_hook(lambda *_, cost=cost: clock.spend(cost))
    return model


def measure_bert(costs, **changes):
    clock, spec = FakeClock(), small_spec(**changes)
    models = {name: timed_bert(clock, name, of_model) for name, of_model in costs.items()}
    inputs = random_inputs(models["dense"], spec, seed=0)
    return measure_speed(models, inputs, spec, clock=clock), clock
