"""Small image models and stand-ins for the original files of Fashion-MNIST, for several test files."""

import gzip

import numpy as np
import torch
from transformers import ViTConfig, ViTForImageClassification

from prunekit.embedded.fashion import LABELS, Images, original_files


def random_images(count, seed):
    """Images of noise, whose labels go round the ten classes."""
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (count, 28, 28), dtype=np.uint8)
    return Images(images, (np.arange(count) % 10).astype(np.uint8))


def idx(array):
    """The bytes of an idx file."""
    lengths = b"".join(length.to_bytes(4, "big") for length in array.shape)
    return bytes([0, 0, 8, array.ndim]) + lengths + array.tobytes()


def write_originals(folder, train, test):
    """Write the four files of the original data, and give their folder."""
    arrays = (train.images, train.labels, test.images, test.labels)
    for name, array in zip(original_files(), arrays, strict=True):
        (folder / name).write_bytes(gzip.compress(idx(array), compresslevel=1))
    return folder


def tiny_vit(labels=LABELS, **changes):
    """A random ViT for grey images of 28 by 28 pixels."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    images = {"image_size": 28, "patch_size": 14, "num_channels": 1}
    names = dict(enumerate(labels))
    return ViTForImageClassification(ViTConfig(**{**sizes, **images, **changes}, id2label=names)).eval()
