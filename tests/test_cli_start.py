from __future__ import annotations

import os
import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "datasets", "scipy")

PROGRAM = """
import sys
from prunekit.cli import main
try:
    main(sys.argv[1:])
except SystemExit as ended:
    code = ended.code
print("loaded:", *[name for name in {heavy!r} if name in sys.modules], file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["prune", "--help"],
        ["speed", "--help"],
        ["methods", "list"],
        ["recipes", "list"],
        ["prune", "nowhere.yaml"],
    ],
    ids=" ".join,
)
def test_commands_that_need_no_model_load_nothing_heavy(arguments):
    # What a plugin's hook imports is the plugin's affair.
    environment = {**os.environ, "PRUNEKIT_PLUGINS": ""}
    program = PROGRAM.format(heavy=HEAVY)
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr.splitlines()[-1] == "loaded:"
    assert done.returncode == (2 if "nowhere.yaml" in arguments else 0)
