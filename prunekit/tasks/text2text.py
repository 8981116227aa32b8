"""Text-to-text tasks: pairs become token ids, answers come in batches of similar length and are scored."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, cast

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from prunekit.errors import DataError
from prunekit.progress import Progress
from prunekit.tasks.answering import Answered, answers_in_batches, check_vocabulary
from prunekit.tasks.base import Split
from prunekit.tasks.data.lazy import LazyExamples, LazyTexts, Made
from prunekit.tasks.scored import Asking, ScoredTask
from prunekit.tasks.truncation import Teller

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

IGNORED_LABEL = -100
CHUNK = 256


class TextPair(NamedTuple):
    """A source text and its references; the first reference is the one trained on."""

    source: str
    references: tuple[str, ...]


class TextExample(NamedTuple):
    """A tokenised pair: ids of source and first reference, each with its end token, and the texts."""

    input_ids: list[int]
    labels: list[int]
    references: tuple[str, ...]
    source: str


class Truncated(NamedTuple):
    """How many texts of a split were longer than allowed, and lost their ends."""

    sources: int
    targets: int


class Text2TextTask(ScoredTask[TextExample]):
    """Shared half of the tasks whose examples are text pairs; answers come from ``generate``.

    Works with every encoder-decoder that takes ``input_ids``, ``attention_mask`` and ``labels``.

    Args:
        tokenizer: encodes sources and targets alike, adds the end token, and has a padding token.
        max_source_length: tokens of the longest source, special tokens included; what is longer loses its
            end. None by default: sources stay whole.
        max_target_length: likewise for the targets that are trained on; references are scored whole.

    Attributes:
        truncated: how many sources and targets were cut off, by split, of the splits tokenised so far.
        length_penalty: power of the length by which a beam search divides; None is the model's own.
    """

    family: ClassVar[str] = "text2text"
    auto_class: ClassVar[str] = "AutoModelForSeq2SeqLM"
    max_new_tokens: int
    length_penalty: float | None = None

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_source_length: int | None = None,
        max_target_length: int | None = None,
    ) -> None:
        super().__init__()
        # Cutting off changes a tokenizer's own settings, which would then be saved beside the pruned model.
        self.tokenizer = copy.deepcopy(tokenizer)
        self.max_source_length, self.max_target_length = max_source_length, max_target_length
        self.truncated: dict[Split, Truncated] = {}
        self._teller = Teller()

    @abstractmethod
    def pairs(self, split: Split) -> Sequence[TextPair]:
        """Return the pairs of one of ``splits``, in an order in which any first N are a fair sample.

        Of ``LazyTexts`` examples are made when they are asked for.
        """

    def head_config(self) -> dict[str, Any]:
        """Return nothing: the head of an encoder-decoder writes whatever the tokenizer can."""
        return {}

    def load(self, split: Split) -> Sequence[TextExample]:
        """Return the tokenised pairs of a split."""
        return self._tokenize(split, self.pairs(split))

    def lengths(self, split: Split) -> Sequence[int]:
        """Return the source tokens of each example, end token included, in the order of ``examples``."""
        return _lengths(self.examples(split))

    def collate(self, examples: Sequence[TextExample]) -> dict[str, Tensor]:
        """Return a batch: ``input_ids`` and ``attention_mask`` ``[B, S]``, ``labels`` ``[B, T]``, all int64.

        S and T are the longest of the batch; ``labels`` are padded with -100, which the loss ignores.
        """
        examples = list(examples)  # once, where they are lazy
        labels = [torch.tensor(example.labels) for example in examples]
        return {**self._inputs(examples), "labels": pad_sequence(labels, True, IGNORED_LABEL)}

    def predict(
        self,
        model: PreTrainedModel,
        examples: Sequence[TextExample],
        *,
        batch_size: int,
        num_beams: int = 1,
        progress: Progress | None = None,
    ) -> list[str]:
        """Return the answer to each example, in the order given, as ``read`` takes it.

        The model generates in evaluation mode, without sampling, and is handed back in the mode it came in.

        Raises:
            DataError: if the model does not fit the task.
        """
        self.check_model(model)
        written = answers_in_batches(
            self.name,
            model,
            _lengths(examples),
            lambda chosen: self._generate(model, [examples[index] for index in chosen], num_beams),
            batch_size=batch_size,
            progress=progress,
        )
        return [self.read(text) for text in written]

    def read(self, text: str) -> str:
        """Return the answer that a model wrote, special tokens left out; by default the text as it is."""
        return text

    def answered(self, model: PreTrainedModel, examples: Sequence[TextExample], asking: Asking) -> Answered:
        """Return a model's answers, as ``predict`` gives them.

        Raises:
            DataError: if the model does not fit the task.
        """
        answers = self.predict(model, examples, **asking._asdict())
        rows = [(each.source, self.right(each), _length(each)) for each in examples]
        return Answered(
            inputs=[each[0] for each in rows],
            references=[each[1] for each in rows],
            lengths=[each[2] for each in rows],
            answers=answers,
        )

    def right(self, example: TextExample) -> Sequence[str]:
        """Return what answers to an example are scored against, by default all its references."""
        return example.references

    def _tokenize(self, split: Split, pairs: Sequence[TextPair]) -> Sequence[TextExample]:
        def tell(cut: tuple[int, ...], total: int) -> None:
            longest = {"sources": self.max_source_length, "targets": self.max_target_length}
            if self._teller.tell(self.name, split, cut, total, longest):
                self.truncated[split] = Truncated(*cut)

        if isinstance(pairs, LazyTexts):
            return LazyExamples(pairs, self._made, _length, tell)
        examples, cut = self._made(pairs)
        tell(cut, len(pairs))
        return examples

    def _made(self, pairs: Sequence[TextPair]) -> Made[TextExample]:
        """Examples, and how many sources and targets were cut off."""
        sources, cut_sources = self._ids([pair.source for pair in pairs], self.max_source_length)
        targets, cut_targets = self._ids([pair.references[0] for pair in pairs], self.max_target_length)
        found = [
            TextExample(source, target, pair.references, pair.source)
            for source, target, pair in zip(sources, targets, pairs, strict=True)
        ]
        return found, (cut_sources, cut_targets)

    def _ids(self, texts: Sequence[str], longest: int | None) -> tuple[list[list[int]], int]:
        """The texts' token ids, cut off at ``longest``, and how many were cut."""
        ids: list[list[int]] = []
        # One call for all keeps every encoding alive at once, and takes twice as long for 100k words.
        for start in range(0, len(texts), CHUNK):
            chunk = texts[start : start + CHUNK]
            ids += self.tokenizer(chunk, return_attention_mask=False, verbose=False)["input_ids"]
        long = [index for index, row in enumerate(ids) if longest is not None and len(row) > longest]
        for index in long:
            cut = self.tokenizer(texts[index], truncation=True, max_length=longest, verbose=False)
            ids[index] = cut["input_ids"]
        return ids, len(long)

    def _inputs(self, examples: Sequence[TextExample]) -> dict[str, Tensor]:
        ids = [torch.tensor(example.input_ids) for example in examples]
        return {
            "input_ids": pad_sequence(ids, True, self.tokenizer.pad_token_id),
            "attention_mask": pad_sequence([torch.ones_like(row) for row in ids], True),
        }

    @torch.inference_mode()
    def _generate(self, model: PreTrainedModel, examples: Sequence[TextExample], num_beams: int) -> list[str]:
        inputs = {name: tensor.to(model.device) for name, tensor in self._inputs(examples).items()}
        # Without beams it means nothing, and transformers warns of it.
        given = self.length_penalty is not None and num_beams > 1
        options = {"length_penalty": self.length_penalty} if given else {}
        answers = model.generate(
            **inputs,
            **options,
            max_new_tokens=self.max_new_tokens,
            num_beams=num_beams,
            do_sample=False,
            # The tokenizer's, as a model built from a bare config has its architecture's defaults.
            eos_token_id=self.tokenizer.eos_token_id,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        return cast("list[str]", self.tokenizer.batch_decode(answers, skip_special_tokens=True))

    def check_model(self, model: PreTrainedModel) -> None:
        """Refuse a model with too small a vocabulary or too few positions.

        Raises:
            DataError: if so.
        """
        check_vocabulary(self.name, self.tokenizer, model)
        positions = getattr(model.config, "max_position_embeddings", None)
        for key in ("max_source_length", "max_target_length"):
            allowed = getattr(self, key)
            if positions is not None and allowed is not None and allowed > positions:
                raise DataError(
                    f"Task {self.name}: task.{key} is {allowed}, but the model has {positions} positions. "
                    f"Set task.{key} to at most {positions}."
                )


def _length(example: TextExample) -> int:
    return len(example.input_ids)


def _lengths(examples: Sequence[TextExample]) -> Sequence[int]:
    return examples.lengths if isinstance(examples, LazyExamples) else [_length(each) for each in examples]
