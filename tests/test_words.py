"""The field's words, and none of a language of our own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import ROOT

# Words for which the field has others: middleware, client, worker, memory, throttle, store, log
OWN = re.compile(
    r"\b(house|doors?|gates?|rooms?|shelf|shelves|trail|tally|whoever|nobody|somebody|anybody"
    r"|errand|entrance|hired|insisting)\b",
    re.IGNORECASE,
)
FOLDERS = ("cxrview", "service", "training", "tests", "benchmarks", "deploy", "helm", "docs", ".ci")
TEXTS = {".py", ".md", ".yaml", ".yml", ".tpl", ".txt", ".jinja", ".toml", ".css", ".sh", ".js"}
# Made by what they report on, this list itself, or of others
OTHERS = {"docs/report.md", "tests/test_words.py", "tests/vendor/axe.min.js"}


def texts() -> list[Path]:
    below = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*")]
    found = [*ROOT.glob("*"), *(ROOT / "model_store").glob("*.py"), *below]
    return sorted(
        path
        for path in found
        if path.is_file()
        and (path.suffix in TEXTS or path.parent.name == ".ci")
        and path.name != "CHANGELOG.md"
        and path.relative_to(ROOT).as_posix() not in OTHERS
    )


@pytest.mark.parametrize("path", texts(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_words_are_those_of_the_field(path: Path) -> None:
    """In code, comments, messages and documents alike."""
    lines = path.read_text().splitlines()
    assert not [f"{n}: {line.strip()}" for n, line in enumerate(lines, 1) if OWN.search(line)]
