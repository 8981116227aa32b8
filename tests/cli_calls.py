"""Running the command line inside a test."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from prunekit.cli import main

RECIPE = """\
version: 1
model: embedded:tiny
task: {name: echo}
budget: {sparsity: 0.3}
methods:
  trim: {decoder_layers: 3}
"""


def call_main(capsys: pytest.CaptureFixture[str], *arguments: str) -> SimpleNamespace:
    """Run ``prunekit`` with these arguments; the value has ``code``, ``out`` and ``err``."""
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    printed = capsys.readouterr()
    return SimpleNamespace(code=caught.value.code, out=printed.out, err=printed.err)
