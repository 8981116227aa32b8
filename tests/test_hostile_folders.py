"""Model folders that want to hurt: their code is not run, nothing outside is read, memory is bounded."""

import json
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

from prunekit.errors import CheckpointError, UnsupportedModelError
from prunekit.models import load_model, load_processor, resolve
from prunekit.testing.tiny import tiny_model

Q = "encoder.block.1.layer.0.SelfAttention.q.weight"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    tiny_model("t5").save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A small T5's folder, to spoil."""
    made = tmp_path / "model-of-others"
    made.mkdir()
    for path in saved.iterdir():
        (made / path.name).write_bytes(path.read_bytes())
    return made


def refusal(folder, error=CheckpointError):
    with pytest.raises(error) as caught:
        load_model(str(folder))
    return str(caught.value).replace(str(folder), "FOLDER")


def with_config(folder, **fields):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def with_tensors(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture
def evil(folder):
    """A module in the folder that leaves a file behind when it is imported."""
    left = folder / "was-run"
    (folder / "evil.py").write_text(f"open({str(left)!r}, 'w')\nclass C: pass\nclass M: pass\n")
    return left


AUTO_MAP = {"AutoConfig": "evil.C", "AutoModel": "evil.M", "AutoModelForSeq2SeqLM": "evil.M"}


def test_code_beside_a_known_model_is_named_and_never_run(folder, evil, caplog):
    with_config(folder, auto_map=AUTO_MAP)
    assert type(load_model(str(folder))).__name__ == "T5ForConditionalGeneration"
    assert "names code of its own (auto_map: {'AutoConfig': 'evil.C'," in caplog.text
    assert not evil.exists()


def test_a_model_that_needs_code_of_its_own_is_refused_without_a_question(folder, evil, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("the user was asked"))
    with_config(folder, auto_map=AUTO_MAP, model_type="evil")
    assert refusal(folder, UnsupportedModelError).endswith(
        "which prunekit never runs, and its model_type 'evil' is none that transformers has without it. Use "
        "a checkpoint of a class that transformers has."
    )
    assert not evil.exists()


def test_a_tokenizer_with_code_of_its_own_is_not_run(folder, evil, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("the user was asked"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.C", None]}})
    )
    with pytest.raises(CheckpointError, match="no tokenizer or image processor beside the model"):
        load_processor(str(folder))
    assert not evil.exists()


def test_pickles_are_never_read(folder):
    left = folder / "was-run"

    class Bomb:
        def __reduce__(self):
            return open, (str(left), "w")

    for name in ("pytorch_model.bin", "training_args.bin", "model.pkl"):
        (folder / name).write_bytes(pickle.dumps(Bomb()))
    load_model(str(folder))
    (folder / "model.safetensors").unlink()
    assert "FOLDER cannot be loaded: " in refusal(folder)
    assert not left.exists()


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation"])
def test_an_attention_kernel_from_elsewhere_is_refused(key, folder):
    with_config(folder, **{key: "evil/kernel"})
    assert refusal(folder) == (
        f"FOLDER/config.json: {key} = 'evil/kernel' asks for a kernel, which is code from elsewhere. "
        "Allowed are eager, sdpa, flash_attention_2, flash_attention_3, flex_attention; remove the line to "
        "use the default."
    )


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_link_that_leads_out_of_the_folder_is_refused(name, folder, tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("secret")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(outside)
    assert refusal(folder) == (
        f"FOLDER/{name} is a link that leads out of the folder, to {outside.resolve()}. Copy that file into "
        "the folder if you trust it; what lies elsewhere is not read."
    )


def test_links_inside_of_the_folder_and_of_the_hubs_cache_are_followed(folder, tmp_path):
    (folder / "model.safetensors").rename(folder / "real.safetensors")
    (folder / "model.safetensors").symlink_to("real.safetensors")
    load_model(str(folder))
    snapshot, blobs = tmp_path / "models--x" / "snapshots" / "abc", tmp_path / "models--x" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, name in enumerate(("config.json", "real.safetensors")):
        (folder / name).rename(blobs / str(number))
        (snapshot / name.replace("real", "model")).symlink_to(f"../../blobs/{number}")
    assert load_model(str(snapshot)).config.model_type == "t5"


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/passwd", "a/b.safetensors", "x.bin", 3])
def test_an_index_that_names_files_elsewhere_is_refused(name, folder):
    (folder / "model.safetensors").rename(folder.parent / "outside.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {Q: name}}))
    assert refusal(folder) == (
        f"FOLDER/model.safetensors.index.json names the file {name!r}; allowed are names of safetensors "
        "files in the same folder. Restore it as it was saved."
    )


@pytest.mark.parametrize("name", ["embedded:../..", "embedded:../tasks", "embedded:", "embedded:."])
def test_an_embedded_models_name_leads_nowhere_else(name):
    with pytest.raises(CheckpointError, match="no embedded model"):
        resolve(name)


@pytest.mark.parametrize("name", ["x" * 5000, "a/" * 3000])
def test_a_name_that_no_file_can_have_is_refused(name):
    with pytest.raises(CheckpointError, match="is no name of a model: File name too long"):
        resolve(name)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"num_layers": 10**9}, "config.json: num_layers = 1000000000, but the weights are 68 tensors."),
        ({"num_decoder_layers": -1}, "config.json: num_decoder_layers = -1, but the weights are 68 tensors."),
        ({"d_ff": 10**30}, "config.json: d_ff = 1000000000000000000000000000000 is too large;"),
        ({"vocab_size": 10**9}, "parameters, but the weights are "),
        ({"d_model": 10**6, "d_kv": 10**6}, "parameters, but the weights are "),
        ({"num_labels": 10**9}, "config.json: num_labels = 1000000000; allowed are 0 to 1000000."),
        ({"d_ff": "x"}, "FOLDER cannot be loaded: "),
        ({"d_ff": -1}, "config.json describes no T5ForConditionalGeneration: RuntimeError: "),
        ({"architectures": "T5"}, "architectures must be a list of names, found 'T5'."),
        ({"model_type": 3}, "model_type must be a name, found 3."),
        ({"id2label": "x"}, "FOLDER cannot be loaded: "),
    ],
)
def test_a_config_that_makes_no_sense_is_refused_before_memory_is_spent(fields, said, folder):
    with_config(folder, **fields)
    assert said in refusal(folder)


@pytest.mark.parametrize("name", ["pipeline", "AutoModel", "logging", "T5Config", "\x1b[2J"])
def test_a_class_that_is_no_model_is_refused(name, folder):
    with_config(folder, architectures=[name])
    shown = name.replace("\x1b", r"\x1b")
    assert refusal(folder, UnsupportedModelError).startswith(f"the checkpoint names the class {shown}, which")


def test_quantised_weights_are_refused(folder):
    with_config(folder, quantization_config={"quant_method": "gptq"})
    assert "quantised weights cannot be pruned. Use the" in refusal(folder, UnsupportedModelError)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000, "config.json cannot be read: its objects and lists lie too deep inside each other."),
        ('{"a": 1, "a": 2}', "config.json cannot be read: the key 'a' stands twice."),
        ("[]", "config.json holds no JSON object. Restore it as it was saved."),
        ('{"model_type": "t5"', "config.json cannot be read: not JSON: line 1, column 20:"),
    ],
)
def test_a_config_that_is_no_json_object_is_refused(text, said, folder):
    (folder / "config.json").write_text(text)
    assert said in refusal(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda t: t.update({Q: t[Q][:12].clone()}),
            f"\n  {Q}: (12, 16) in the file, (16, 16) in",
        ),
        (lambda t: t.update({Q: t[Q].long()}), f"\n  {Q}: I64 in the file, float32 is needed\n"),
        (
            lambda t: t.pop(Q),
            "1 tensors of the T5ForConditionalGeneration that config.json names are",
        ),
        (
            lambda t: t[Q].view(-1)[:3].fill_(torch.nan),
            f"FOLDER: 3 of the 256 weights of {Q} are NaN or infinite. Give a checkpoint from before its "
            "training went wrong.",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named(change, said, folder):
    with_tensors(folder, change)
    assert said in refusal(folder)


def test_tensors_too_many_are_told_and_left_out(folder, caplog):
    with_tensors(folder, lambda tensors: tensors.update(stray=torch.zeros(3)))
    load_model(str(folder))
    assert "holds 1 tensors that its model does not have, such as stray; they are left out." in caplog.text


@pytest.mark.parametrize("left", [0, 5, 1000, -1])
def test_weights_cut_short_are_named(left, folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:left])
    assert refusal(folder).startswith("FOLDER/model.safetensors is damaged: ")
