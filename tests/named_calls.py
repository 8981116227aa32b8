"""Named tasks on data of a few words, for several test files."""

from __future__ import annotations

import datasets
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from prunekit.tasks.named import named_tasks

TEXT = datasets.Value("string")
TASKS = {task.name: task for task in named_tasks()}
WORDS = """a b c d e f g summarize: question: context: cola sentence: stsb sentence1: sentence2: MNLI mnli
    premise: hypothesis: entailment neutral contradiction acceptable unacceptable not_acceptable
    1.8 5.0 0.6"""


def tokenizer(*, bert=False):
    """One token a word; ends with </s>, or has [CLS] and [SEP] about the texts."""
    marks = ["[PAD]", "</s>", "[UNK]", "[CLS]", "[SEP]", *WORDS.split()]
    made = Tokenizer(models.WordLevel({token: i for i, token in enumerate(marks)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "eos_token": "</s>"}
    if bert:
        made.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]",
            pair="[CLS] $A [SEP] $B:1 [SEP]:1",
            special_tokens=[("[CLS]", 3), ("[SEP]", 4)],
        )
        special |= {"cls_token": "[CLS]", "sep_token": "[SEP]"}
    else:
        made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=made, **special)


def made(name, data, processor=None, **keys):
    """The task, with its data replaced."""
    task = TASKS[name]
    return task(task.Config.model_validate({"data": data, **keys}), processor or tokenizer())
