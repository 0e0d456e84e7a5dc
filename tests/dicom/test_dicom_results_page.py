"""The page about results says what the code does."""

from __future__ import annotations

import json
import re

from conftest import ROOT
from dicom_results import KINDS, cards

from service.dicom import findings
from service.dicom.event import event
from service.dicom.findings import Code
from service.dicom.observation import observation
from service.dicom.structured_report import SERIES_NUMBER

PAGE = ROOT / "docs/dicom-results.md"
SOURCE = "https://cxrview.example.org"


def examples() -> list[str]:
    """Of the two JSON forms, about a lateral image that says PA."""
    result = KINDS["disagreement"](cards())
    made = observation(result), event(result, SOURCE)
    return [json.dumps(each, indent=2) for each in made]


def test_its_examples_are_made_by_the_code() -> None:
    """`python tests/dicom/test_dicom_results_page.py` writes them anew."""
    assert re.findall(r"```json\n(.*?)\n```", PAGE.read_text(), re.DOTALL) == examples()


def test_its_table_has_every_concept() -> None:
    """With code, scheme and meaning as a report has them."""
    concepts = {
        each
        for name, each in vars(findings).items()
        if isinstance(each, Code) and name not in {"YES", "NO"}
    }
    text = PAGE.read_text()
    rows = re.findall(r"^\| \((\w+), (\w+)\) \| (.*?) \|", text, re.MULTILINE)
    assert {Code(*row) for row in rows} == concepts
    for code in (*findings.VIEWS.values(), findings.YES, findings.NO):
        assert f"({code.value}, {code.scheme}" in text
    assert f"| Series Number | {SERIES_NUMBER} |" in text


if __name__ == "__main__":
    made = iter(examples())
    page = re.sub(
        r"(```json\n).*?(\n```)",
        lambda found: found[1] + next(made) + found[2],
        PAGE.read_text(),
        flags=re.DOTALL,
    )
    PAGE.write_text(page)
