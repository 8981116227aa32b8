"""The record of what a number was measured on."""

import json
from pathlib import Path

import torch

from prunekit.measure.environment import cpu_name, environment_record


def test_the_environment_record_is_plain_and_never_fails(monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    record = environment_record()
    assert json.loads(json.dumps(record)) == record
    assert (record["torch"], record["gpu"], record["driver"]) == (torch.__version__, "a GPU", None)


def test_the_processor_is_named_as_the_system_names_it(tmp_path):
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nmodel name\t: Chip 9000 @ 2 GHz\nprocessor\t: 1\nmodel name\t: other\n")
    assert cpu_name(info) == "Chip 9000 @ 2 GHz"
    assert cpu_name(Path("no such file")) != ""
