"""The documentation: it is what the code says, it builds, and its examples run."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys

import pytest
import yaml
from conftest import ROOT

DOCS = ROOT / "docs"


def test_the_generated_pages_are_current() -> None:
    """Those of the settings, for example: `python docs/reference.py` would change nothing."""
    names = ("settings.md", "cli.md", "models.md", "conformance.md")
    before = {name: (DOCS / name).read_text() for name in names}
    program = (
        "import json, sys; sys.path[:0] = ['docs']; from reference import PAGES; "
        "print(json.dumps({name: page() for name, page in PAGES.items()}))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    found = json.loads(run.stdout)
    if sys.version_info >= (3, 12):  # its argparse words help otherwise
        del before["cli.md"], found["cli.md"]
    assert found == before


def test_the_site_builds(tmp_path) -> None:
    """Strictly: each page is in the navigation, each link leads somewhere, nothing is remote."""
    site = tmp_path / "site"
    run = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(site)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stderr.strip()) == (0, "")
    for page in site.rglob("*.html"):
        loaded = re.findall(
            r"<(?:script|link|img)[^>]+(?:src|href)=\"(https?:[^\"]+)", page.read_text()
        )
        assert not [url for url in loaded if "canonical" not in url], page


def test_names_break_in_tables_only_and_pictures_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long name wraps in a narrow table; in a text `--out` stays whole; code blocks stay."""
    monkeypatch.syspath_prepend(str(DOCS))
    from hooks import on_page_content

    def made(html: str) -> str:
        return str(on_page_content(html, None, None, None))

    assert made("<td><code>a_b/1.0</code> a_b</td>") == "<td><code>a_<wbr>b/1.0</code> a_b</td>"
    assert made("<p><code>--out</code></p>") == '<p><code class="name">--out</code></p>'
    block = "<pre><span></span><code>a_b\n</code></pre>"
    assert made(block) == block
    assert made('<img alt="" src="a.png" />') == '<a href="a.png"><img alt="" src="a.png" /></a>'


def test_the_notebook_runs() -> None:
    """All its cells, one after the other, as from the root of the repository."""
    notebook = json.loads((DOCS / "notebook.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    scope: dict[str, object] = {}
    with contextlib.chdir(ROOT):
        for cell in cells:
            exec(compile(cell, "cell", "exec"), scope)
    assert scope["answer"].view == "frontal"
    assert list(scope["frame"].view.dropna()) == ["frontal"] * 3 + ["lateral"] * 4
    assert scope["plain"].view == scope["inverted"].view == "lateral"


def test_the_readme_is_short_and_its_links_lead_somewhere() -> None:
    """At most a thousand words; what is more is in the documentation."""
    text = (ROOT / "README.md").read_text()
    assert len(text.split()) <= 1000
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", text)
    assert len(links) > 20
    assert not [link for link in links if ":" not in link and not (ROOT / link).exists()]


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "docs/architecture.md", "SECURITY.md"])
def test_what_is_named_there_is_there(name: str) -> None:
    """Paths of files and folders in the pages for contributors."""
    text = (ROOT / name).read_text()
    paths = re.findall(
        r"`((?:service|training|tests|docs|deploy|helm|model_store)/[\w./-]*)`", text
    )
    for path in paths:
        assert (ROOT / path).exists(), path


def test_files_of_the_forge_are_valid() -> None:
    """What GitHub reads is YAML, and the workflow runs what CONTRIBUTING names."""
    files = [*(ROOT / ".github").rglob("*.y*ml"), ROOT / ".pre-commit-config.yaml"]
    read = {path.name: yaml.safe_load(path.read_text()) for path in files}
    assert {"ci.yaml", "dependabot.yml", "bug.yaml", "feature.yaml"} <= read.keys()
    assert {"run": ".ci/run"} in read["ci.yaml"]["jobs"]["ci"]["steps"]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["cff-version"] == "1.2.0"
