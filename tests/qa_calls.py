"""Questions, models and tasks that the tests of question answering share."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from own_calls import WORDS, word_tokenizer, write_lines
from torch import nn
from transformers import BertConfig, BertForQuestionAnswering

from prunekit.tasks.own.question_answering import QuestionAnswering, QuestionAnsweringConfig

ID = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
COLUMNS = {
    "question": "question",
    "context": "context",
    "answers": "answers.text",
    "answer_start": "answers.answer_start",
}


def row(context, *answers, question="of", starts=None):
    """A row as SQuAD has them; each answer begins where it first occurs."""
    places = [context.find(answer) for answer in answers] if starts is None else starts
    return {
        "question": question,
        "context": context,
        "answers": {"text": list(answers), "answer_start": places},
    }


def task_of(folder, rows, *, tokenizer=None, **keys):
    """The task with these rows as its test split, in windows of 8 tokens that share 2."""
    path = write_lines(folder / "test.jsonl", rows)
    settings = {"data": {"test": path}, **COLUMNS, "max_length": 8, "stride": 2, **keys}
    settings = {key: value for key, value in settings.items() if value is not None}
    return QuestionAnswering(QuestionAnsweringConfig(**settings), tokenizer or word_tokenizer())


class Reader(nn.Module):
    """Marks answers by a table: what each word scores as a start, and as an end; 0 where nothing is said."""

    def __init__(self, starts, ends):
        super().__init__()
        self.starts, self.ends = (
            torch.tensor([float(table.get(word, 0)) for word in ID]) for table in (starts, ends)
        )
        self.config = SimpleNamespace(vocab_size=40)
        self.device = torch.device("cpu")

    def forward(self, input_ids, attention_mask, token_type_ids, start_positions=None, end_positions=None):
        return SimpleNamespace(start_logits=self.starts[input_ids], end_logits=self.ends[input_ids])


def tiny_reader(**config):
    """A BERT of one block and 32 positions that marks answers."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 20}
    torch.manual_seed(0)
    return BertForQuestionAnswering(
        BertConfig(vocab_size=40, max_position_embeddings=32, **sizes, **config)
    ).eval()
