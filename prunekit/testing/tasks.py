"""Tasks small enough to plan, train and score on in seconds, for any tiny model; they tell what was read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from prunekit.image_processor import ImageProcessor
from prunekit.tasks.base import Split
from prunekit.tasks.images import ImageClassificationTask
from prunekit.tasks.metrics import PER
from prunekit.tasks.text2text import Text2TextTask, TextPair
from prunekit.tasks.text_classification import LabelledText, TextClassificationTask

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SPECIAL = {"pad_token": "<pad>", "eos_token": "</s>", "bos_token": "<s>", "unk_token": "<unk>"}
LETTERS = tuple("abcdefghijklmnopqrstuvwxyz")
EXAMPLES: dict[Split, int] = {"train": 64, "validation": 16, "test": 16, "calibration": 32}
"""Examples of each split."""
LONGEST = 5
"""Letters of the longest text; the shortest has 2."""


def letter_tokenizer() -> PreTrainedTokenizerFast:
    """One token a letter, padding 0, end token 1; 30 tokens, fewer than the tiny models know."""
    vocabulary = {token: index for index, token in enumerate([*SPECIAL.values(), *LETTERS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=SPECIAL["unk_token"]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", vocabulary["</s>"])]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **SPECIAL)


class NoKeys(BaseModel):
    """The tiny tasks' recipe keys: none."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Stopped(BaseException):
    """Stands for a crash: nothing but an interruption itself should catch it."""


class Watched:
    """The half that the tiny tasks share: splits, and a record of what is asked for.

    Attributes:
        splits: ``train``, ``validation``, ``test``, and unless it was left out ``calibration``.
        splits_read: the splits of which examples were read.
        requests: how many batches were made.
        stop_at: the batch that is not made any more: ``Stopped`` is raised instead. None by default.
    """

    splits: tuple[Split, ...] = tuple(EXAMPLES)

    def __init__(self, *args: Any, calibration: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.splits = tuple(name for name in EXAMPLES if calibration or name != "calibration")
        self.splits_read: set[Split] = set()
        self.requests = 0
        self.stop_at: int | None = None

    def examples(self, split: Split) -> Sequence[Any]:
        """Return the examples of a split, and remember that they were read."""
        self.splits_read.add(split)
        found: Sequence[Any] = super().examples(split)  # type: ignore[misc]
        return found

    def collate(self, examples: Sequence[Any]) -> dict[str, Tensor]:
        """Return a batch, and count it.

        Raises:
            Stopped: at the request that is not to be answered.
        """
        self.requests += 1
        if self.requests == self.stop_at:
            raise Stopped
        found: dict[str, Tensor] = super().collate(examples)  # type: ignore[misc]
        return found


class TextsToTexts(Watched, Text2TextTask):
    """Different letters in a random order, to be repeated."""

    name: ClassVar[str] = "tiny-text2text"
    summary: ClassVar[str] = "letters come back as they went in"
    Config: ClassVar[type[BaseModel]] = NoKeys
    metrics = (PER,)
    primary_metric = PER.name
    higher_is_better = PER.higher_is_better
    max_new_tokens = LONGEST + 1

    def pairs(self, split: Split) -> list[TextPair]:
        """Return the pairs of a split."""
        self.splits_read.add(split)
        return [TextPair(text, (text,)) for text in _texts(split)]


class TextsToLabels(Watched, TextClassificationTask):
    """Different letters in a random order; the first one decides the label."""

    name: ClassVar[str] = "tiny-text-classification"
    summary: ClassVar[str] = "the first letter's label"
    Config: ClassVar[type[BaseModel]] = NoKeys
    labels: tuple[str, ...] = ()

    def __init__(
        self, labels: Sequence[str], tokenizer: PreTrainedTokenizerFast, *, calibration: bool
    ) -> None:
        super().__init__(tokenizer, max_length=LONGEST + 1, calibration=calibration)
        self.labels = tuple(labels)

    def texts(self, split: Split) -> list[LabelledText]:
        """Return the texts of a split."""
        self.splits_read.add(split)
        return [LabelledText(text, LETTERS.index(text[0]) % len(self.labels)) for text in _texts(split)]


class TinyImage(NamedTuple):
    """An image, uint8 ``[C, H, W]``, and its label."""

    pixels: Tensor
    label: int


class ImagesToLabels(Watched, ImageClassificationTask[TinyImage]):
    """Noise, brighter the higher the label."""

    name: ClassVar[str] = "tiny-image-classification"
    summary: ClassVar[str] = "the label of an image's brightness"
    Config: ClassVar[type[BaseModel]] = NoKeys
    labels: tuple[str, ...] = ()

    def __init__(self, labels: Sequence[str], processor: ImageProcessor, *, calibration: bool) -> None:
        super().__init__(processor, calibration=calibration)
        self.labels = tuple(labels)

    def load(self, split: Split) -> list[TinyImage]:
        """Return the images of a split."""
        self.splits_read.add(split)
        generator = _generator(split)
        shape = (self.transform.channels, *self.transform.output_size)
        found = []
        for index in range(EXAMPLES[split]):
            label = index % len(self.labels)
            noise = torch.randint(0, 128, shape, generator=generator)
            found.append(TinyImage((noise + 127 * label // len(self.labels)).to(torch.uint8), label))
        return found

    def pixels(self, examples: Sequence[TinyImage], *, training: bool) -> Tensor:
        """Return the images as they are, uint8 ``[B, C, H, W]``."""
        return torch.stack([example.pixels for example in examples])


TinyTask = TextsToTexts | TextsToLabels | ImagesToLabels


def tiny_task(model: PreTrainedModel, *, calibration: bool = True) -> TinyTask:
    """The tiny task that fits a tiny model: texts to texts, images to labels, or texts to labels.

    Args:
        model: an encoder-decoder that generates, or a classifier of images or texts.
        calibration: whether there is a split ``calibration``.
    """
    config = model.config
    if config.is_encoder_decoder:
        return TextsToTexts(letter_tokenizer(), calibration=calibration)
    labels = [config.id2label[index] for index in range(config.num_labels)]
    if model.main_input_name != "pixel_values":
        return TextsToLabels(labels, letter_tokenizer(), calibration=calibration)
    channels, size = config.num_channels, config.image_size
    height, width = (size, size) if isinstance(size, int) else size
    settings = {
        "size": {"height": height, "width": width},
        "resample": 2,
        "image_mean": [0.5] * channels,
        "image_std": [0.5] * channels,
    }
    return ImagesToLabels(labels, ImageProcessor(settings), calibration=calibration)


def _generator(split: Split) -> torch.Generator:
    return torch.Generator().manual_seed(list(EXAMPLES).index(split))


def _texts(split: Split) -> list[str]:
    generator = _generator(split)
    return [_text(generator) for _ in range(EXAMPLES[split])]


def _text(generator: torch.Generator) -> str:
    length = int(torch.randint(2, LONGEST + 1, (1,), generator=generator))
    order = torch.randperm(len(LETTERS), generator=generator)[:length]
    return " ".join(LETTERS[index] for index in order)
