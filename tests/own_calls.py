"""Data files, tokenizers and tasks that the tests of one's own data share."""

from __future__ import annotations

import csv
import json
from types import SimpleNamespace

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from prunekit.tasks.own.classification import TextClassification, TextClassificationConfig
from prunekit.tasks.own.text2text import Text2Text, Text2TextConfig

WORDS = (*"abcdefgh", "good", "bad", "fair", "sum:", "of")
REVIEWS = [("a good b", "good"), ("c bad d e f", "bad"), ("bad a", "bad"), ("good good", "good")]


def write_csv(path, rows, header=("text", "label"), delimiter=","):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows([header, *rows])
    return str(path)


def write_lines(path, rows):
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


def word_tokenizer(*, bert=True):
    """One token a word; as BERT's with [CLS] and [SEP] (2 and 3), or as T5's with an end token (1)."""
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"] if bert else ["[PAD]", "</s>", "[UNK]"]
    vocabulary = {token: number for number, token in enumerate([*marks, *WORDS])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]"}
    if bert:
        made.post_processor = processors.TemplateProcessing(
            single="[CLS]:0 $A:0 [SEP]:0",
            pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
            special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
        )
        special |= {"cls_token": "[CLS]", "sep_token": "[SEP]"}
    else:
        made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
        special |= {"eos_token": "</s>"}
    names = ["input_ids", "token_type_ids", "attention_mask"] if bert else ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=made, model_input_names=names, **special)


def classification(data, tokenizer=None, **keys):
    """The task on these files."""
    config = TextClassificationConfig(**{"data": data, "text": "text", "label": "label", **keys})
    return TextClassification(config, tokenizer or word_tokenizer())


def text2text(data, **keys):
    """The task on these files, scored by accuracy."""
    settings = {"source": "text", "target": "label", "metrics": ["accuracy"]}
    return Text2Text(Text2TextConfig(**{"data": data, **settings, **keys}), word_tokenizer(bert=False))


def warnings_in(caplog):
    """The logged warnings."""
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


class FirstWord(nn.Module):
    """A classifier whose logits a table gives for the word behind [CLS]; ``names`` are its id2label."""

    def __init__(self, table, names):
        super().__init__()
        self.table = nn.Parameter(torch.tensor(table))
        names = dict(enumerate(names))
        self.config = SimpleNamespace(num_labels=len(names), vocab_size=40, id2label=names)
        self.device = torch.device("cpu")

    def forward(self, input_ids, attention_mask, token_type_ids=None):
        return SimpleNamespace(logits=self.table[input_ids[:, 1]])


def tiny_bert(names=None, **config):
    """A BERT of one block and 32 positions; ``names`` are its id2label."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 20}
    if names:
        config["id2label"] = dict(enumerate(names))
        config["label2id"] = {name: index for index, name in enumerate(names)}
    torch.manual_seed(0)
    return BertForSequenceClassification(
        BertConfig(vocab_size=40, max_position_embeddings=32, **sizes, **config)
    )
