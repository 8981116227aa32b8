"""Task ``g2p``: the phones of an English word, on the CMUdict data that ships with prunekit."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from prunekit.embedded.g2p import LETTERS, PHONES, SPLITS, TOKENIZER_FOLDER, load_split, read_entries
from prunekit.errors import DataError
from prunekit.tasks.base import Metric, Split
from prunekit.tasks.metrics import PER, WER
from prunekit.tasks.text2text import Text2TextTask, TextPair

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class G2PConfig(BaseModel):
    """Recipe keys of the task."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    train_examples: int | None = Field(
        default=None, ge=1, description="train on the first so many words in hash order; all by default"
    )


class G2P(Text2TextTask):
    """Words to phones: ``hello`` to ``HH AH L OW``; every listed pronunciation is a reference.

    Raises:
        DataError: if the tokenizer does not give each letter and each phone one token of its own.
    """

    name: ClassVar[str] = "g2p"
    summary: ClassVar[str] = "English words to phones (CMUdict, 117k words, embedded)"
    Config: ClassVar[type[BaseModel]] = G2PConfig
    splits: ClassVar[tuple[Split, ...]] = SPLITS
    metrics: ClassVar[tuple[Metric, ...]] = (PER, WER)
    primary_metric = PER.name
    higher_is_better = PER.higher_is_better

    def __init__(self, config: G2PConfig, processor: PreTrainedTokenizerBase) -> None:
        super().__init__(processor)
        self.config = config
        self._check_tokenizer()
        longest = max(len(phones.split()) for entry in read_entries() for phones in entry.pronunciations)
        self.max_new_tokens = longest + 1  # the end token

    def pairs(self, split: Split) -> list[TextPair]:
        """Return the words of a split with their pronunciations, in hash order.

        Raises:
            DataError: if ``train_examples`` is more than there are.
        """
        entries = load_split(split)
        if split == "train" and self.config.train_examples is not None:
            if self.config.train_examples > len(entries):
                raise DataError(
                    f"task.train_examples = {self.config.train_examples}, but g2p has {len(entries)} "
                    "training words; ask for at most that many, or leave the key out to train on all."
                )
            entries = entries[: self.config.train_examples]
        return [TextPair(entry.word, entry.pronunciations) for entry in entries]

    def _check_tokenizer(self) -> None:
        symbols = [*LETTERS, *PHONES]
        rows = self.tokenizer(symbols, add_special_tokens=False)["input_ids"]
        tokens = {row[0] for row in rows if len(row) == 1} - {self.tokenizer.unk_token_id}
        if len(tokens) < len(symbols):
            raise DataError(
                f"Task g2p: the tokenizer {self.tokenizer.name_or_path!r} gives only {len(tokens)} of the "
                f"{len(symbols)} letters and phones a token of their own. "
                f"Use the one that ships with the data, {TOKENIZER_FOLDER}."
            )
