"""The fenced blocks of a Markdown page, and the pages that the documentation is made of."""

from __future__ import annotations

import re
import textwrap
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted(page for page in (ROOT / "docs").rglob("*.md") if ".pytest_cache" not in page.parts),
]
_FENCE = re.compile(r"^(?P<indent> *)(?P<marks>`{3,}|~{3,})(?P<info>.*)$")


@dataclass(frozen=True)
class Fence:
    """A fenced block: the words behind its opening marks, its text, and where it starts."""

    page: Path
    line: int
    info: str
    text: str

    @property
    def language(self) -> str:
        return self.info.split()[0] if self.info.split() else ""

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT).as_posix()}:{self.line}"


def fences(page: Path) -> list[Fence]:
    """The page's blocks from top to bottom; one that is never closed is an error."""
    found, inside, lines = [], None, []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        mark = _FENCE.match(line)
        if inside is None:
            if mark:
                inside, lines = (number, mark), []
        elif mark and mark["marks"] == inside[1]["marks"] and not mark["info"].strip():
            start, opening = inside
            # Of an item of a list, only the item's indentation goes: YAML may be indented on its own account.
            text = "".join(f"{one.removeprefix(opening['indent'])}\n" for one in lines)
            found.append(Fence(page, start, opening["info"].strip(), text))
            inside = None
        else:
            lines.append(line)
    assert inside is None, f"{page}:{inside[0]}: this block is never closed"
    return found


def example_modules(page: Path) -> list[str]:
    """The modules that the distribution in whose folder a page is announces to prunekit; mostly none."""
    project = page.parent / "pyproject.toml"
    if page.parent.parent != ROOT / "docs" / "examples" or not project.is_file():
        return []
    points = tomllib.loads(project.read_text())["project"]["entry-points"]["prunekit"]
    return list(points.values())


def prose(page: Path) -> str:
    """The page without its fenced blocks, line breaks kept."""
    text = page.read_text(encoding="utf-8")
    return re.sub(r"^( *)(`{3,}|~{3,}).*?^\1\2$", "", text, flags=re.DOTALL | re.MULTILINE)


def dedented(text: str) -> tuple[str, bool]:
    """The text at the margin, and whether it was not there before."""
    flat = textwrap.dedent(text)
    return flat, flat != text
