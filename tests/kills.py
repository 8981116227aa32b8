"""The command line in processes that kill themselves at a chosen call of a function of prunekit.

``python kills.py`` is the process that they are forked from, so that torch is imported once. It reads orders
from standard input, a JSON object a line, and answers each with one: see ``_obey``.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_OWN = (f"{ROOT}/prunekit/", f"{ROOT}/plugins/")

# By the part of a run that they do, functions of prunekit; a part within a part is called "outer: inner".
PARTS = {
    "opening": "job.py:Job.__init__",
    "planning": "job.py:Job.prune",
    "recovering": "job.py:Job.recover",
    "evaluating": "job.py:Job.quality",
    "timing": "job.py:Job.speed",
    "reporting": "job.py:Job.finish",
    "training": "training/stage.py:Stage.update",
    "assessing": "training/stage.py:Stage.assess",
    "checkpoint": "training/checkpoints.py:save_tensors",
    "cutting": "pruning/target.py:PrunableModel.pruned",
    "checking": "pruning/verify.py:verify",
    "saving": "models.py:save_model",
    "scoring": "prunekit_optin/method.py:Optin._scores",
    "keeping scores": "scoring/cache.py:ScoreCache.save",
    "writing a JSON file": "files.py:write_text",
}
_OUTER = ("opening", "planning", "recovering", "evaluating", "timing", "reporting")
UNRENAMED = "between write and rename"
"""The part in which the new file is written and the old one has its name still."""


class Killer:
    """A profile hook that counts calls of prunekit's functions, and kills the process at one of them.

    Args:
        at: number of the call, counted from 1.
    """

    def __init__(self, at):
        self.at, self.calls, self._is_own = at, 0, {}

    def __call__(self, frame, event, argument):
        if event != "call":
            return
        code = frame.f_code
        own = self._is_own.get(code)
        if own is None:
            own = self._is_own[code] = code.co_filename.startswith(_OWN)
        if own:
            self.calls += 1
            if self.calls == self.at:
                os.kill(os.getpid(), signal.SIGKILL)


class Mapper:
    """A profile hook that numbers the calls as ``Killer`` does, and notes of which part each is.

    Attributes:
        calls: by part, the numbers of its calls as ranges from first to last.
    """

    def __init__(self):
        self.calls, self.count, self._parts, self._known = {}, 0, [], {}

    def __call__(self, frame, event, argument):
        if event not in ("call", "return"):
            return
        code = frame.f_code
        if code not in self._known:
            self._known[code] = (code.co_filename.startswith(_OWN), _part_of(code))
        own, part = self._known[code]
        if event == "return":
            if part is not None and self._parts:
                self._parts.pop()
            return
        if part is not None:
            self._parts.append(part)
        if own:
            self.count += 1
            self._note(UNRENAMED if _unrenamed(frame) else self._place())

    def _place(self):
        outer = next((part for part in self._parts if part in _OUTER), None)
        inner = next((part for part in reversed(self._parts) if part not in _OUTER), None)
        return ": ".join(part for part in (outer, inner) if part) or "around the stages"

    def _note(self, part):
        ranges = self.calls.setdefault(part, [])
        if ranges and ranges[-1][1] == self.count - 1:
            ranges[-1][1] = self.count
        else:
            ranges.append([self.count, self.count])


def _part_of(code):
    place = f"{code.co_filename}:{code.co_qualname}"
    return next((part for part, end in PARTS.items() if place.endswith(f"/{end}")), None)


def _unrenamed(frame):
    """Whether the call is that which puts a file on the disk before it gets its name."""
    code = frame.f_code
    if (code.co_name, Path(code.co_filename).name) != ("_sync", "files.py"):
        return False
    return any(part.endswith(".partial") for part in frame.f_locals["path"].parts)


def drawn(calls, wanted, seed):
    """Random calls of every part.

    Args:
        calls: as ``Mapper`` has them.
        wanted: by part, how many calls of it.
        seed: of the generator.
    """
    generator = random.Random(seed)
    found = {}
    for part, number in wanted.items():
        numbers = [call for first, last in calls[part] for call in range(first, last + 1)]
        found[part] = sorted(generator.sample(numbers, number))
    return found


class Zygote:
    """Runs the command line in forked processes, one after the other.

    Args:
        process: the one that forks.
    """

    def __init__(self, process):
        self._process = process

    def run(self, folder, arguments, *, kill_at=None, mapped=False):
        """The exit status of ``prunekit ARGUMENTS`` in a folder, negative if a signal ended it.

        Args:
            folder: where it runs and what it prints goes into ``said.txt``; made if need be.
            arguments: of the command line.
            kill_at: number of the call at which it kills itself; never by default.
            mapped: write ``calls.json``, the calls of the ``Mapper``.
        """
        order = {"folder": str(folder), "arguments": arguments, "kill_at": kill_at, "mapped": mapped}
        print(json.dumps(order), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError("the process that forks has ended")
        return json.loads(answer)["status"]


@contextmanager
def zygote(words):
    """A ``Zygote``, ended afterwards.

    Args:
        words: file to write a hundredth of the data of the task g2p to, which all runs read.
    """
    paths = os.pathsep.join([str(ROOT), str(ROOT / "plugins")])
    known = os.environ.get("PYTHONPATH")
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONPATH": os.pathsep.join([paths, known]) if known else paths,
    }
    with subprocess.Popen(
        [sys.executable, __file__, str(words)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        try:
            yield Zygote(process)
        finally:
            process.stdin.close()


def _take_few_words(path):
    """Have the task g2p read every hundredth word, for it takes seconds to read them all."""
    from prunekit.embedded import g2p

    g2p.write_entries(g2p.read_entries()[::100], path)
    g2p.read_entries.__defaults__ = (path,)


def _obey(order):
    """Fork, have the child run the command line, and give its status; import what it had to import."""
    folder = Path(order["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    imported = folder / "imported.json"
    gc.collect()
    gc.freeze()  # else each child copies most pages in its first collection
    child = os.fork()
    if not child:
        _work(folder, order, imported)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if imported.exists():
        for name in json.loads(imported.read_text()):
            with suppress(ImportError):
                importlib.import_module(name)
        imported.unlink()
    return {"status": status}


def _work(folder, order, imported):
    """The child: it never returns."""
    from prunekit.cli import main

    os.chdir(folder)
    said = os.open("said.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(said, stream)
    before = set(sys.modules)
    mapper = Mapper() if order["mapped"] else None
    code = 1
    try:
        sys.setprofile(mapper or (Killer(order["kill_at"]) if order["kill_at"] else None))
        main(order["arguments"])
    except SystemExit as end:
        code = end.code or 0
    finally:
        sys.setprofile(None)
        if mapper:
            Path("calls.json").write_text(json.dumps(mapper.calls))
        imported.write_text(json.dumps(sorted(set(sys.modules) - before)))
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def differences(folder, whole):
    """Names of the files in which two runs differ, apart from what they say of time.

    Pages for people and the card are made from the files that are compared, with times in them.
    """
    names = Counter(path.relative_to(each).as_posix() for each in (folder, whole) for path in _files(each))
    return sorted(
        name
        for name, times in names.items()
        if times < 2 or _timeless(folder / name) != _timeless(whole / name)
    )


def _files(folder):
    pages = (".lock", "report.md", "report.html", "README.md", "said.txt", "calls.json")
    return (path for path in folder.rglob("*") if path.is_file() and path.name not in pages)


def _timeless(path):
    """What a file says, but for times."""
    if path.name == "manifest.json":
        listed = json.loads(path.read_text())["files"]
        return {name: entry["stage"] for name, entry in listed.items()}
    if path.name == "speed.json":
        return sorted(json.loads(path.read_text()))
    if path.suffix == ".json" and path.name != "plan.json":
        said = json.loads(path.read_text())
        return {
            key: value for key, value in said.items() if key not in ("stages", "speed") and key[-2:] != "_s"
        }
    if path.suffix == ".safetensors" and path.name != "model.safetensors":
        return _tensors(path)
    return path.read_bytes()


def _tensors(path):
    """A file's tensors and facts, not its bytes: the order of the facts is another in each process."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name).numpy().tobytes() for name in file.keys()}  # noqa: SIM118
        marks = file.metadata()
    facts = {key: value for key, value in json.loads(marks.get("facts", "{}")).items() if key != "seconds"}
    untimed = {key: value for key, value in marks.items() if key not in ("facts", "seconds", "sha256")}
    return tensors, facts, untimed


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    _take_few_words(Path(sys.argv[1]))
    for line in sys.stdin:
        print(json.dumps(_obey(json.loads(line))), flush=True)
