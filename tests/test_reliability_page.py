"""docs/reliability.md promises nothing that no test shows."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "reliability.md"


def test_every_fault_has_a_test_of_that_name():
    named = re.findall(r"`(test_\w+)` \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    sources = "".join(path.read_text(encoding="utf-8") for path in TESTS.glob("test_*.py"))
    assert len(named) >= 30
    assert [name for name in named if f"def {name}(" not in sources] == []
