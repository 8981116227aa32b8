"""Classification tasks whose examples are texts, or pairs of texts."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from prunekit.errors import DataError
from prunekit.tasks.answering import check_vocabulary
from prunekit.tasks.base import Split
from prunekit.tasks.classification import ClassificationTask
from prunekit.tasks.data.lazy import LazyExamples, LazyTexts, Made
from prunekit.tasks.truncation import Teller

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CHUNK = 1024


class LabelledText(NamedTuple):
    """A text, or two that belong together, and the label.

    Attributes:
        text: the text, or the first of the two.
        label: an index into the task's ``labels``, or the number itself in a regression.
        pair: the second text; either all of a task's examples have one, or none has.
    """

    text: str
    label: float
    pair: str | None = None


class TokenizedText(NamedTuple):
    """A tokenised text, or pair of texts.

    Attributes:
        features: a list of equal length for each of the model's inputs, attention mask left out.
        label: as that of ``LabelledText``.
        source: the text; of a pair both, an empty line between them.
    """

    features: dict[str, list[int]]
    label: float
    source: str


class TextClassificationTask(ClassificationTask[TokenizedText]):
    """Classification of texts, or of pairs of them, cut off at a number of tokens.

    Args:
        tokenizer: encodes the texts; has a padding token. The model gets ``input_ids``, ``attention_mask``
            and, where the tokenizer makes them, ``token_type_ids``.
        max_length: tokens of the longest input, special tokens included; what is longer loses its end, the
            longer text of a pair first.

    Attributes:
        truncated: how many texts were cut off, by split, of the splits tokenised so far.
    """

    auto_class: ClassVar[str] = "AutoModelForSequenceClassification"

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, max_length: int) -> None:
        super().__init__()
        # Cutting off changes a tokenizer's own settings, which would then be saved beside the pruned model.
        self.tokenizer = copy.deepcopy(tokenizer)
        self.max_length = max_length
        self.truncated: dict[Split, int] = {}
        self._teller = Teller()

    @abstractmethod
    def texts(self, split: Split) -> Sequence[LabelledText]:
        """Return the texts of one of ``splits``, in an order in which any first N are a fair sample.

        Of ``LazyTexts`` examples are made when they are asked for.
        """

    def load(self, split: Split) -> Sequence[TokenizedText]:
        """Return the tokenised texts of a split."""

        def tell(cut: tuple[int, ...], total: int) -> None:
            if self._teller.tell(self.name, split, cut, total, {"texts": self.max_length}):
                (self.truncated[split],) = cut

        texts = self.texts(split)
        if isinstance(texts, LazyTexts):
            return LazyExamples(texts, self._made, self.length, tell)
        found: list[TokenizedText] = []
        long = 0
        # One call for all would keep every encoding alive at once.
        for start in range(0, len(texts), CHUNK):
            examples, cut = self._made(texts[start : start + CHUNK])
            found += examples
            long += sum(cut)
        tell((long,), len(texts))
        return found

    def lengths(self, split: Split) -> Sequence[int]:
        """Return the tokens of each text, in the order of ``examples``."""
        examples = self.examples(split)
        return examples.lengths if isinstance(examples, LazyExamples) else super().lengths(split)

    def _made(self, texts: Sequence[LabelledText]) -> Made[TokenizedText]:
        """Examples, and how many texts were cut off."""
        whole = self._encoded(texts)
        long = [index for index, ids in enumerate(whole["input_ids"]) if len(ids) > self.max_length]
        if long:
            cut = self._encoded([texts[index] for index in long], truncation=True, max_length=self.max_length)
            for name, rows in cut.items():
                for index, row in zip(long, rows, strict=True):
                    whole[name][index] = row
        found = [
            TokenizedText({name: rows[index] for name, rows in whole.items()}, each.label, _shown(each))
            for index, each in enumerate(texts)
        ]
        return found, (len(long),)

    def collate(self, examples: Sequence[TokenizedText]) -> dict[str, Tensor]:
        """Return a batch: ``inputs`` of these examples, and their ``labels``, ``[B]``."""
        return super().collate(list(examples))  # once, where they are lazy

    def _encoded(self, texts: Sequence[LabelledText], **options: Any) -> dict[str, list[list[int]]]:
        pairs = [each.pair for each in texts if each.pair is not None]
        encoded = self.tokenizer(
            [each.text for each in texts],
            pairs or None,
            return_attention_mask=False,
            verbose=False,  # what is too long is cut and told
            **options,
        )
        return dict(encoded)

    def shown(self, index: int, example: TokenizedText) -> str:
        """Return the text; of a pair both, an empty line between them."""
        return example.source

    def length(self, example: TokenizedText) -> int:
        """Return the tokens of the text, special tokens included."""
        return len(example.features["input_ids"])

    def inputs(self, examples: Sequence[TokenizedText]) -> dict[str, Tensor]:
        """Return ``attention_mask`` and what the tokenizer makes, int64 ``[B, S]``; S is the longest's."""
        padding = {
            "input_ids": self.tokenizer.pad_token_id,
            "token_type_ids": self.tokenizer.pad_token_type_id,
        }
        batch = {
            name: pad_sequence([torch.tensor(each.features[name]) for each in examples], True, padding[name])
            for name in examples[0].features
        }
        masks = [torch.ones(self.length(example), dtype=torch.long) for example in examples]
        return {**batch, "attention_mask": pad_sequence(masks, True)}

    def check_model(self, model: PreTrainedModel) -> None:
        """Refuse a model with other labels, too small a vocabulary or too few positions.

        Raises:
            DataError: if so.
        """
        super().check_model(model)
        check_vocabulary(self.name, self.tokenizer, model)
        positions = getattr(model.config, "max_position_embeddings", None)
        if positions is not None and self.max_length > positions:
            raise DataError(
                f"Task {self.name}: texts may have {self.max_length} tokens, but the model only {positions} "
                f"positions. Set task.max_length to at most {positions}."
            )


def _shown(text: LabelledText) -> str:
    return text.text if text.pair is None else f"{text.text}\n\n{text.pair}"
