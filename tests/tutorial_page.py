"""A page of steps as what it tells its reader to do: files to write, commands to type, output to expect."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import NamedTuple

from installed_calls import Installed

_BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.DOTALL | re.MULTILINE)
_HEADING = re.compile(r"^## (.+)$", re.MULTILINE)
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
FAILS = "this fails"


class Block(NamedTuple):
    """A fenced block of the page."""

    language: str
    title: str
    text: str


class Step(NamedTuple):
    """A section of the page."""

    title: str
    blocks: tuple[Block, ...]


def read_steps(page: Path) -> list[Step]:
    """The page's sections, in order."""
    _, *parts = _HEADING.split(page.read_text())
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return [Step(title, tuple(Block(*found) for found in _BLOCK.findall(text))) for title, text in pairs]


class Walk:
    """Somebody who does what the page says.

    Args:
        environment: where the commands are.
        folder: where to begin.
    """

    def __init__(self, environment: Installed, folder: Path) -> None:
        self.environment = environment
        self.folder = folder
        self.printed = ""

    def take(self, step: Step) -> None:
        """Do what a step says; fails where a command or its output is not as shown."""
        for block in step.blocks:
            if block.language == "sh":
                self._type(block)
            elif block.language == "text":
                wrong = difference(block.text, self.printed)
                assert wrong is None, f"{step.title}: {wrong}\n--- printed was\n{self.printed}"
            elif block.title:
                path = self.folder / block.title
                path.write_text(replaced(path.read_text(), block.text) if path.exists() else block.text)
            else:
                self._find(block)

    def _type(self, block: Block) -> None:
        where = self.folder / ".folder"  # a `cd` holds for the blocks after it
        done = self.environment.sh(f"trap 'pwd > {str(where)!r}' EXIT\n{block.text}", self.folder)
        assert (done.returncode != 0) == (block.title == FAILS), f"{block.text}{done.stdout}"
        self.printed = done.stdout
        self.folder = Path(where.read_text().strip())
        where.unlink()

    def _find(self, block: Block) -> None:
        texts = [path.read_text() for path in self.folder.iterdir() if path.is_file()]
        assert any(block.text in text for text in texts), f"no file has these lines:\n{block.text}"


def replaced(text: str, block: str) -> str:
    """A file after a block was written into it: as a whole, or where definitions of the same name were."""
    try:
        parts = ast.parse(block).body
    except SyntaxError:
        return block
    if not all(isinstance(part, ast.FunctionDef | ast.ClassDef) for part in parts):
        return block
    lines, new = text.splitlines(keepends=True), block.splitlines(keepends=True)
    old = {part.name: part for part in ast.parse(text).body if hasattr(part, "name")}
    for part in sorted(parts, key=lambda part: -old[part.name].lineno):
        there = old[part.name]
        lines[there.lineno - 1 : there.end_lineno] = new[part.lineno - 1 : part.end_lineno]
    return "".join(lines)


def difference(shown: str, printed: str) -> str | None:
    """What is shown and was not printed there, or nothing.

    A line ``...`` stands for any lines, ``…`` for any text, and a number for any number.
    """
    lines = printed.splitlines()
    at, anywhere = 0, False
    for line in shown.splitlines():
        if line == "...":
            anywhere = True
            continue
        pattern = re.compile(_pattern(line))
        last = len(lines) if anywhere else at + 1
        found = next(
            (i for i in range(at, min(last, len(lines))) if pattern.fullmatch(lines[i].rstrip())), None
        )
        if found is None:
            return f"no line like {line!r}" + ("" if anywhere else f" at line {at + 1}")
        at, anywhere = found + 1, False
    left = lines[at:]
    return None if anywhere or not left else f"{left[0]!r} was printed too"


def _pattern(line: str) -> str:
    return "".join(_escape(part) for part in re.split("(…)", line.rstrip()))


def _escape(text: str) -> str:
    if text == "…":
        return ".*"
    # Columns are as wide as what is in them, which may be another machine's figure.
    tokens = re.split(rf"({_NUMBER.pattern}|\s+)", text)
    return "".join(
        _NUMBER.pattern if _NUMBER.fullmatch(token) else r"\s+" if token.isspace() else re.escape(token)
        for token in tokens
        if token
    )
