"""Pages of the site that are made of other files: the runbook, chart values, endpoints."""

from __future__ import annotations

import os
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from service.api.app import create_app
from service.api.settings import Settings

ROOT = Path(__file__).parent.parent
# Pages of the site, and where links in the repository find them
ELSEWHERE = {"deploy/runbook.md": "runbook.md", "helm/cxrview/README.md": "chart.md"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add them, under the names that the navigation has."""
    pages = {
        "runbook.md": (ROOT / "deploy/runbook.md").read_text().replace("../docs/", ""),
        "chart.md": (ROOT / "helm/cxrview/README.md").read_text().replace("../../docs/", ""),
        "openapi.md": endpoints(),
    }
    for name, content in pages.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links to what is only in the repository become names, as the site has its own pages only."""
    folder = Path(page.file.src_uri).parent
    for path, name in ELSEWHERE.items():
        source = os.path.relpath(path, folder)
        markdown = markdown.replace(f"(../{source}", f"({os.path.relpath(name, folder)}")

    def kept(link: re.Match[str]) -> str:
        text, target = link[1], link[2].partition("#")[0]
        place = os.path.normpath(folder / target) if target else page.file.src_uri
        there = target.startswith("http") or files.get_file_from_path(place) is not None
        return link[0] if there else f"`{text.strip('`')}`"

    del config
    return re.sub(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)", kept, markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Names break at their joints in tables, and else nowhere; a picture opens in its full size."""
    del page, config, files

    def breakable(name: re.Match[str]) -> str:
        return re.sub(r"(?<=[_./=,])(?=[A-Za-z{])", "<wbr>", name[0])

    cells = re.split(r"(<td[ >].*?</td>)", html, flags=re.DOTALL)
    cells[1::2] = [re.sub(r"(?<=<code>)[^<]+", breakable, cell) for cell in cells[1::2]]
    cells[::2] = [
        re.sub(r"(?<!</span>)<code>(?=[^<\s]{1,28}</code>)", '<code class="name">', text)
        for text in cells[::2]
    ]
    return re.sub(r'(<img [^>]*?src="([^"]+)"[^>]*>)', r'<a href="\2">\1</a>', "".join(cells))


def endpoints() -> str:
    """Every endpoint of the OpenAPI description."""
    description = create_app(Settings()).openapi()
    lines = [
        "# Endpoints",
        "",
        "From the OpenAPI description, which the service has at `/openapi.json`; `/docs` shows it.",
        "",
        "| endpoint | what it does | answers |",
        "|---|---|---|",
    ]
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            answers = ", ".join(sorted(operation["responses"]))
            lines.append(f"| `{method.upper()} {path}` | {operation['summary']} | {answers} |")
    return "\n".join(lines) + "\n"
