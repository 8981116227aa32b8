"""Plugins installed for a test: a virtual environment that sees this one's packages and adds its own."""

from __future__ import annotations

import os
import subprocess
import sysconfig
import venv
from pathlib import Path

# Nothing is fetched, and no setting of the machine's own pip reaches the tests.
_OFFLINE = {
    "PIP_CONFIG_FILE": os.devnull,
    "PIP_NO_INDEX": "1",
    "PIP_FIND_LINKS": "",
    "PIP_QUIET": "1",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_ROOT_USER_ACTION": "ignore",
    # The word is pip's: "no" to its default, which would fetch the build backend.
    "PIP_NO_BUILD_ISOLATION": "0",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "COLUMNS": "120",
    "TERM": "dumb",
}
_SCRIPTS = {
    "prunekit": "from prunekit.cli import main\nmain()",
    "pip": "from pip._internal.cli.main import main\nimport sys\nsys.exit(main())",
}


class Installed:
    """A virtual environment of a test's own, in which ``pip`` and ``prunekit`` are commands.

    Its packages come first, then those of the environment that runs the tests, prunekit among them: a
    second copy of torch would take minutes.

    Args:
        folder: where to make it.
    """

    def __init__(self, folder: Path) -> None:
        venv.EnvBuilder(symlinks=True).create(folder)
        self.bin = folder / "bin"
        packages = next(folder.glob("lib/python*/site-packages"))
        parent = sysconfig.get_path("purelib")
        # Not the path alone: prunekit may be there as a .pth file of its own, which only addsitedir reads.
        (packages / "parent.pth").write_text(f"import site; site.addsitedir({parent!r})\n")
        for name, code in _SCRIPTS.items():
            script = self.bin / name
            script.write_text(f"#!{self.bin / 'python'}\n{code}\n")
            script.chmod(0o755)

    def sh(self, script: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a shell script there; what it says to standard error comes in between, as on a terminal."""
        path = f"{self.bin}{os.pathsep}{os.environ['PATH']}"
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PIP_", "PYTEST_", "PRUNEKIT_", "PYTHON", "VIRTUAL_ENV"))
        }
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=folder,
            env={**kept, **_OFFLINE, "PATH": path, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    def install(self, *folders: Path) -> None:
        """Install distributions from their folders, as ``pip install`` does."""
        for source in folders:
            done = self.sh(f"pip install {str(source)!r}", source)
            assert done.returncode == 0, done.stdout
