"""Pictures, folders and models that the tests of one's own images share."""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from prunekit.image_processor import ImageProcessor
from prunekit.tasks.own.images import ImageClassification, ImageClassificationConfig
from prunekit.testing.tiny import tiny_model

SETTINGS = {
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.4, 0.3],
    "image_processor_type": "ViTImageProcessor",
    "image_std": [0.5, 0.25, 0.2],
    "resample": 2,
    "rescale_factor": 1 / 255,
    "size": {"height": 8, "width": 8},
}
NAMES = ("ant", "bee", "cat")
SIZES = ((8, 8), (40, 30), (20, 33), (9, 70))


def picture(seed=0, size=(8, 8), mode="RGB"):
    """Noise; ``size`` is width and height."""
    values = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    return Image.fromarray(values).convert(mode)


def stored(image, kind="PNG", **options):
    """The bytes of a file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def write_folder(folder, count=4, names=NAMES):
    """A folder with so many pictures a class, of several sizes, coloured and grey ones."""
    sizes = itertools.cycle(SIZES)
    for number, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            mode = "L" if index % 3 == 2 else "RGB"
            picture(100 * number + index, next(sizes), mode).save(folder / name / f"{index}.png")
    return str(folder)


def processor(**changes):
    return ImageProcessor({**SETTINGS, **changes})


def images(data, made=None, **keys):
    """The task on this data."""
    return ImageClassification(ImageClassificationConfig(data=data, **keys), made or processor())


def scored(folder, made=None, **keys):
    """The task on one split, ``test``."""
    return images({"test": folder}, made, **{"labels": list(NAMES), **keys})


def path_of(example):
    """The file of an image in a folder."""
    return Path(example.rows.where(example.index))


def classifier(names=NAMES, kind="vit", **config):
    """A tiny random model for coloured images of 8 by 8 pixels; ``names`` are its id2label."""
    template = tiny_model(kind)
    settings = {**template.config.to_dict(), "num_channels": 3, "id2label": dict(enumerate(names))}
    settings["label2id"] = {name: index for index, name in enumerate(names)}
    torch.manual_seed(0)
    return type(template)(type(template.config).from_dict({**settings, **config})).eval()


def saved_classifier(folder, names=NAMES, kind="vit", **changes):
    """Such a model in a folder with its image processor, which is given as it is loaded."""
    classifier(names, kind).save_pretrained(folder)
    processor(**changes).save_pretrained(folder)
    return ImageProcessor.from_pretrained(folder)
