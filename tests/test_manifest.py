"""What a run's stages wrote is recorded, and what is not as they left it is found and named."""

import json
import os

import pytest

from prunekit import manifest
from prunekit.cli.show import read_report
from prunekit.errors import RunFolderError
from prunekit.files import write_text


def put(folder, **content):
    for name, text in content.items():
        write_text(folder / name.replace("__", "/").replace("_json", ".json"), text)


@pytest.fixture
def run(tmp_path):
    """A run of two stages, recorded: ``verify`` wrote a plan, ``report`` only its own file."""
    put(tmp_path, plan_json='{"keep": {}}')
    write_text(tmp_path / "model" / "model.safetensors", "weights")
    put(tmp_path, verify_json="{}")
    manifest.record(tmp_path, "verify")
    put(tmp_path, report_json='{"format": 1}')
    manifest.record(tmp_path, "report")
    return tmp_path


def test_every_file_has_its_stage_its_size_and_its_hash(run):
    assert json.loads((run / "manifest.json").read_text())["files"]["plan.json"] == {
        "stage": "verify",
        "size": 12,
        "sha256": "bad08b1794339feff431db1fa08c75978d0fe6351bac4197ffa464ac7efb4266",
    }
    assert {name: entry["stage"] for name, entry in manifest.read(run).items()} == {
        "model/model.safetensors": "verify",
        "plan.json": "verify",
        "report.json": "report",
        "verify.json": "verify",
    }


def test_nothing_is_wrong_with_a_run_as_its_stages_left_it(run):
    assert manifest.check(run) == []


def test_what_changes_by_right_is_not_recorded(tmp_path):
    for name in (
        "recipe.yaml",
        "train.jsonl",
        "report.md",
        "report.html",
        "error.txt",
        "notes.txt",
        "model/README.md",
        "checkpoints/verify-last.safetensors",
        "plan.json.01234567.partial",
        "verify.json",
    ):
        write_text(tmp_path / name, "text")
    manifest.record(tmp_path, "verify")
    assert list(manifest.read(tmp_path)) == ["verify.json"]


def test_what_is_younger_than_the_stage_belongs_to_a_later_one(tmp_path):
    put(tmp_path, verify_json="{}", quality_json="{}")
    os.utime(tmp_path / "verify.json", (10, 10))
    os.utime(tmp_path / "quality.json", (20, 20))
    manifest.record(tmp_path, "verify")
    assert list(manifest.read(tmp_path)) == ["verify.json"]


def test_links_are_not_recorded(tmp_path):
    put(tmp_path, verify_json="{}")
    (tmp_path / "plan.json").symlink_to(tmp_path / "verify.json")
    manifest.record(tmp_path, "verify")
    assert list(manifest.read(tmp_path)) == ["verify.json"]


def test_each_kind_of_fault_is_told(run):
    (run / "plan.json").write_text('{"keep": []}')
    (run / "report.json").write_text("{")
    (run / "model" / "model.safetensors").unlink()
    found = dict(manifest.check(run))
    assert list(found) == ["model/model.safetensors", "plan.json", "report.json"]
    assert found["model/model.safetensors"] == "is missing"
    assert found["plan.json"].endswith("… where bad08b179433… was written")
    assert found["report.json"] == "has 1 bytes where 13 were written"


def test_a_stage_is_forgotten_with_all_that_it_wrote(run):
    manifest.forget(run, ["verify"])
    assert list(manifest.read(run)) == ["report.json"]


def test_reading_hashes_what_is_read(run):
    (run / "report.json").write_text('{"format": 2}')
    with pytest.raises(RunFolderError) as caught:
        manifest.check_read(run, "report.json")
    first, fault, last = str(caught.value).split("\n")
    assert first == f"{run}: not as the run left it:"
    assert fault.startswith("  report.json of the stage report has the sha256 ")
    assert last == (
        "Delete it to compute that stage again, and what was computed from it, with the command that began "
        "the run; or bring back the file as it was."
    )


def test_reading_looks_at_no_more_than_the_sizes_of_the_weights(run, monkeypatch):
    hashed = []
    monkeypatch.setattr(manifest, "sha256_of", lambda path: hashed.append(path.name) or path.name)
    with pytest.raises(RunFolderError):
        manifest.check_read(run, "report.json")
    assert hashed == ["report.json"]


def test_weights_that_were_cut_off_are_named_where_only_the_report_is_read(run):
    (run / "model" / "model.safetensors").write_text("weigh")
    with pytest.raises(
        RunFolderError, match=r"model\.safetensors of the stage verify has 5 bytes where 7 were"
    ):
        read_report(run)


def test_what_is_missing_is_left_to_the_reader(run):
    (run / "plan.json").unlink()
    manifest.check_read(run, "report.json")


def test_a_run_without_a_manifest_is_taken_as_it_is(run):
    (run / "manifest.json").unlink()
    (run / "plan.json").write_text("")
    assert manifest.check(run) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"format": 1, "files"', "is damaged: not JSON: line 1, column 22: Expecting ':' delimiter"),
        ("[]", "is damaged: it holds no mapping"),
        ('{"format": 2, "files": {}}', "is damaged, or of another prunekit: it lists no files in format 1"),
        ('{"format": 1, "files": []}', "it lists no files in format 1"),
        ('{"format": 1, "files": {"plan.json": {"size": 1}}}', "it lists no files in format 1"),
        ('{"format": 1, "files": {"plan.json": 3}}', "it lists no files in format 1"),
    ],
)
def test_a_damaged_manifest_is_named_with_what_to_delete(text, said, run):
    (run / "manifest.json").write_text(text)
    with pytest.raises(RunFolderError, match=r"manifest\.json ") as caught:
        manifest.check(run)
    assert said in str(caught.value)
    assert str(caught.value).endswith("Delete it, and the run's other files are taken as they are.")


@pytest.mark.parametrize("name", ["../secret.json", "/etc/hostname", "model/../../secret"])
def test_a_manifest_that_points_out_of_the_folder_is_refused(name, run):
    entry = {"stage": "verify", "size": 1, "sha256": "0"}
    (run / "manifest.json").write_text(json.dumps({"format": 1, "files": {name: entry}}))
    with pytest.raises(RunFolderError, match="it lists no files in format 1"):
        manifest.check(run)
