"""Task ``gloss``: what kind of thing a definition defines, on the WordNet data that ships with prunekit."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from prunekit.embedded.gloss import CLASSES, SPLITS, load_split
from prunekit.tasks.base import Split
from prunekit.tasks.text_classification import LabelledText, TextClassificationTask

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class GlossConfig(BaseModel):
    """Recipe keys of the task."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_length: int = Field(default=64, ge=3, description="tokens at which a definition is cut off")


class GlossTask(TextClassificationTask):
    """Definitions to classes: ``a fire lighted at night as a signal`` to ``noun.communication``."""

    name: ClassVar[str] = "gloss"
    summary: ClassVar[str] = "English noun definitions to 26 classes (WordNet 3.0, 82k, embedded)"
    Config: ClassVar[type[BaseModel]] = GlossConfig
    splits: ClassVar[tuple[Split, ...]] = SPLITS
    labels: ClassVar[tuple[str, ...]] = CLASSES

    def __init__(self, config: GlossConfig, processor: PreTrainedTokenizerBase) -> None:
        super().__init__(processor, max_length=config.max_length)
        self.config = config

    def texts(self, split: Split) -> list[LabelledText]:
        """Return the definitions of a split in hash order."""
        numbers = {label: number for number, label in enumerate(CLASSES)}
        return [LabelledText(gloss.text, numbers[gloss.label]) for gloss in load_split(split)]
