"""Image classification: what an image processor's settings do, augmentation, and the task fashion-mnist."""

import json

import pytest
import torch
from image_calls import random_images, tiny_vit, write_originals
from transformers import AutoTokenizer

from prunekit.embedded.fashion import LABELS, PROCESSOR_FOLDER, load_split
from prunekit.embedded.g2p import TOKENIZER_FOLDER
from prunekit.errors import CheckpointError, DataError
from prunekit.finetune import finetune
from prunekit.image_processor import ImageProcessor
from prunekit.models import load_model, load_processor
from prunekit.plugins import get_registry
from prunekit.recipe import Recipe, TaskSpec
from prunekit.tasks.augmentation import LARGEST_SHIFT, shifted
from prunekit.tasks.base import make_task
from prunekit.tasks.fashion import FashionConfig, FashionMNIST
from prunekit.tasks.image_transform import ImageTransform

SETTINGS = json.loads((PROCESSOR_FOLDER / "preprocessor_config.json").read_text())


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("originals")
    return write_originals(folder, random_images(40, seed=1), random_images(10, seed=2))


@pytest.fixture(scope="module")
def processor():
    return load_processor("embedded:fashion/processor")


@pytest.fixture(scope="module")
def task(processor, originals):
    return FashionMNIST(FashionConfig(folder=str(originals)), processor)


def transform(**changes):
    return ImageTransform.from_processor("x", ImageProcessor({**SETTINGS, **changes}))


def applied(pixels, **changes):
    """Grey images, uint8 [B, H, W], as the model gets them."""
    made = transform(**changes)
    return made.normalised(torch.stack([made.fitted(image[None]) for image in pixels]))


def noise(*shape):
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_grey_values_are_scaled_and_normalised():
    pixels = torch.zeros(1, 28, 28, dtype=torch.uint8)
    pixels[0, 0, 0], pixels[0, 0, 1] = 255, 51
    values = applied(pixels)
    assert values.dtype == torch.float32
    assert values.shape == (1, 1, 28, 28)
    expected = [(1 - 0.286) / 0.353, (0.2 - 0.286) / 0.353, -0.286 / 0.353]
    assert values[0, 0, 0, :3].tolist() == pytest.approx(expected, rel=1e-6)


def test_steps_that_are_switched_off_are_left_out():
    values = applied(noise(2, 28, 28), do_rescale=False, do_normalize=False)
    assert torch.equal(values, noise(2, 28, 28)[:, None].float())


def test_a_grey_image_is_repeated_for_a_model_with_three_channels():
    values = applied(noise(2, 28, 28), image_mean=[0.0, 0.5, 0.0], image_std=[1.0, 1.0, 0.5])
    grey = noise(2, 28, 28) / 255
    assert torch.allclose(values, torch.stack([grey, grey - 0.5, 2 * grey], dim=1), atol=1e-6)


def test_cropping_keeps_the_middle():
    pixels = noise(2, 28, 28)
    values = applied(pixels, do_center_crop=True, crop_size={"height": 20, "width": 24}, do_normalize=False)
    assert torch.allclose(values[:, 0], pixels[:, 4:24, 2:26] / 255)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("ViTImageProcessorPil", {}),
        ("ViTImageProcessorPil", {"size": {"height": 36, "width": 20}}),
        (
            "DeiTImageProcessorPil",
            {
                "size": {"height": 36, "width": 36},
                "crop_size": {"height": 30, "width": 32},
                "do_center_crop": True,
                "resample": 3,
            },
        ),
    ],
    ids=["plain", "resized", "resized and cropped"],
)
def test_it_does_what_the_classes_of_transformers_do(name, changes):
    import transformers

    pixels = torch.tensor(load_split("test").images[:50])
    theirs = getattr(transformers, name)(**{**SETTINGS, **changes})
    expected = theirs(list(pixels[:, None].numpy()), return_tensors="pt", input_data_format="channels_first")
    found = applied(pixels, **changes)
    assert found.shape == expected["pixel_values"].shape
    assert (found - expected["pixel_values"]).abs().max() <= 1e-6


def test_transformers_can_read_the_shipped_image_processor():
    from transformers import AutoImageProcessor

    assert json.loads(AutoImageProcessor.from_pretrained(PROCESSOR_FOLDER).to_json_string()) == SETTINGS


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (
            {"size": {"shortest_edge": 28}},
            "Task x: the image processor resizes the shortest edge to 28 and crops nothing, so that images "
            "of other proportions differ in shape. Set do_center_crop and crop_size in its "
            "preprocessor_config.json, or a size with height and width.",
        ),
        (
            {"size": {"longest_edge": 28}},
            "Task x: the image processor's size is {'longest_edge': 28}; it must give height and width, or "
            "shortest_edge, in pixels.",
        ),
        (
            {"size": 28, "image_processor_type": "CLIPImageProcessor"},
            "Task x: the size of the image processor CLIPImageProcessor is 28, which may mean a square or "
            "the shortest edge. Write {height: ..., width: ...} or {shortest_edge: ...} in its "
            "preprocessor_config.json.",
        ),
        (
            {"do_pad": True, "crop_pct": 0.9},
            "Task x: the image processor does do_pad, crop_pct, which prunekit does not. It does do_resize, "
            "do_center_crop, do_rescale, do_normalize, do_convert_rgb. Use a model whose "
            "preprocessor_config.json asks for no more.",
        ),
        (
            {"do_resize": False, "do_center_crop": True},
            "Task x: the image processor crops images without resizing them. Set do_resize in its "
            "preprocessor_config.json, or leave do_center_crop out.",
        ),
        (
            {"do_center_crop": True},
            "Task x: the image processor's crop_size is None; it must give height and width in pixels.",
        ),
        (
            {"do_center_crop": True, "crop_size": {"height": 20, "width": 32}},
            "Task x: the image processor crops images of (28, 28) to (20, 32) (height, width); crop_size "
            "must not exceed size.",
        ),
        (
            {"resample": 7},
            "Task x: the image processor's resample is 7; allowed are 0 (nearest), 1 (Lanczos), 2 "
            "(bilinear), 3 (bicubic), 4 (box), 5 (Hamming).",
        ),
    ],
)
def test_settings_that_are_not_understood_are_refused(changes, text):
    with pytest.raises(DataError) as caught:
        transform(**changes)
    assert str(caught.value) == text


def test_a_tokenizer_is_refused():
    with pytest.raises(DataError) as caught:
        FashionMNIST(FashionConfig(), AutoTokenizer.from_pretrained(TOKENIZER_FOLDER))
    assert str(caught.value) == (
        "Task fashion-mnist needs an image processor that says size, image_mean, image_std, but found "
        "TokenizersBackend without size, image_mean, image_std. Use a model for images, with a "
        "preprocessor_config.json that has them."
    )


def test_an_image_processor_without_a_mean_to_normalise_by_is_refused():
    settings = {key: value for key, value in SETTINGS.items() if key != "image_mean"}
    with pytest.raises(DataError, match="found ImageProcessor without image_mean"):
        ImageTransform.from_processor("x", ImageProcessor(settings))


def variants(pixels):
    """Every way in which ``shifted`` may move and mirror one image."""
    size, far = pixels.shape[0], 2 * LARGEST_SHIFT + 1
    padded = torch.nn.functional.pad(pixels, (LARGEST_SHIFT,) * 4)
    moved = [padded[y : y + size, x : x + size] for y in range(far) for x in range(far)]
    return [image.flip(axis) for image in moved for axis in ([], [1])]


def test_augmented_images_are_moved_and_mirrored_ones():
    pixels = noise(1, 28, 28).expand(200, -1, -1)
    torch.manual_seed(0)
    found = {tuple(image.flatten().tolist()) for image in shifted(pixels)}
    assert found == {tuple(image.flatten().tolist()) for image in variants(pixels[0])}


def test_augmentation_draws_one_way_for_each_image():
    torch.manual_seed(0)
    for image, result in zip(noise(20, 28, 28), shifted(noise(20, 28, 28)), strict=True):
        assert any(torch.equal(result, variant) for variant in variants(image))


def test_training_batches_differ_from_call_to_call_but_not_from_run_to_run(task):
    batches = []
    for _ in range(2):
        torch.manual_seed(3)
        batches.append([task.collate(task.examples("train")[:8])["pixel_values"] for _ in range(2)])
    assert torch.equal(batches[0][0], batches[1][0])
    assert torch.equal(batches[0][1], batches[1][1])
    assert not torch.equal(batches[0][0], batches[0][1])


@pytest.mark.parametrize("split", ["calibration", "validation", "test"])
def test_only_training_images_are_augmented(split, task):
    examples = task.examples(split)[:8]
    state = torch.get_rng_state()
    assert torch.equal(task.collate(examples)["pixel_values"], task.inputs(examples)["pixel_values"])
    assert torch.equal(torch.get_rng_state(), state)


def test_augmentation_can_be_switched_off(processor, originals):
    task = FashionMNIST(FashionConfig(folder=str(originals), augment=False), processor)
    examples = task.examples("train")[:8]
    assert torch.equal(task.collate(examples)["pixel_values"], task.inputs(examples)["pixel_values"])


def test_augmentation_leaves_the_examples_alone(task):
    examples = task.examples("train")[:8]
    before = [example.pixels.clone() for example in examples]
    task.collate(examples)
    assert all(torch.equal(old, new.pixels) for old, new in zip(before, examples, strict=True))


def test_a_batch_gives_a_loss_and_logits(task):
    batch = task.collate(task.examples("test")[:3])
    assert batch["labels"].tolist() == load_split("test").labels[:3].tolist()
    output = tiny_vit()(**batch)
    assert torch.isfinite(output.loss)
    assert output.logits.shape == (3, 10)


def test_a_model_is_scored_by_its_largest_logits_on_images_as_they_are(task):
    model = tiny_vit()
    images, labels = load_split("validation")
    values = (torch.tensor(images[:50])[:, None] / 255 - 0.286) / 0.353
    with torch.no_grad():
        right = model(pixel_values=values).logits.argmax(-1) == torch.tensor(labels[:50])
    found = task.evaluate(model, "validation", batch_size=16, limit=50).metrics
    assert found["accuracy"] == pytest.approx(100 * right.float().mean().item())
    assert found["n"] == 50


def test_predicting_training_images_does_not_augment_them(task):
    examples = task.examples("train")[:20]
    state = torch.get_rng_state()
    task.predict(tiny_vit(), examples, batch_size=8)
    assert torch.equal(torch.get_rng_state(), state)


def test_all_images_have_one_length(task):
    assert set(task.lengths("test")) == {1}


@pytest.mark.parametrize(
    ("labels", "changes", "text"),
    [
        (LABELS[:3], {}, "Task fashion-mnist has 10 labels, but the model answers with 3."),
        (LABELS[::-1], {}, "the model's label 0 is 'Ankle boot', the task's 'T-shirt/top'"),
        (
            LABELS,
            {"image_size": 56},
            "Task fashion-mnist: the image processor makes images of shape (1, 28, 28) (channels, height, "
            "width), but the model takes (1, 56, 56). Use the image processor of the model, or set "
            "image_mean, image_std and size in its preprocessor_config.json.",
        ),
        (LABELS, {"num_channels": 3, "image_size": (28, 28)}, "but the model takes (3, 28, 28)."),
    ],
)
def test_a_model_that_does_not_fit_is_refused(labels, changes, text, task):
    with pytest.raises(DataError) as caught:
        task.evaluate(tiny_vit(labels, **changes), "test", batch_size=8, limit=8)
    assert text in str(caught.value)


def test_a_recipe_s_task_section_makes_the_task(processor, originals):
    spec = TaskSpec(name="fashion-mnist", folder=str(originals), augment=False)
    made = make_task(spec, processor, get_registry())
    assert isinstance(made, FashionMNIST)
    assert len(made.examples("train")) == 40


def test_a_split_that_nobody_has_is_an_error(task):
    with pytest.raises(DataError, match="no split 'dev'; use one of: train, calibration, validation, test"):
        task.examples("dev")


def test_an_image_processor_saves_what_it_was_loaded_from(processor, tmp_path):
    processor.save_pretrained(tmp_path / "new")
    assert load_processor(str(tmp_path / "new")).to_dict() == processor.to_dict() == SETTINGS


def test_a_damaged_image_processor_is_an_error(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(CheckpointError, match="no tokenizer or image processor beside the model"):
        load_processor(str(tmp_path))


def test_a_vit_is_finetuned_from_a_recipe_and_saved_with_its_image_processor(originals, tmp_path):
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    images = {"image_size": 28, "patch_size": 14, "num_channels": 1, "id2label": dict(enumerate(LABELS))}
    recipe = Recipe(
        version=1,
        model={"type": "vit", "processor": "embedded:fashion/processor", "config": sizes | images},
        task={"name": "fashion-mnist", "folder": str(originals)},
        train={"max_steps": 2, "batch_size": 8},
        evaluate={"limit": 20},
    )
    facts = finetune(recipe, tmp_path / "run", registry=get_registry())
    assert facts["quality"]["n"] == 20
    assert load_processor(str(tmp_path / "run")).to_dict() == SETTINGS


def test_the_shipped_vit_knows_its_classes(task):
    found = task.evaluate(load_model("embedded:vit-fashion"), "test", batch_size=100, limit=300).metrics
    assert found["accuracy"] > 85


def test_the_shipped_vit_brings_the_image_processor_of_the_data(processor):
    assert load_processor("embedded:vit-fashion").to_dict() == processor.to_dict()
