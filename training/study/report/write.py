"""The report of a study: report.md for a repository, and report.html, which is one file."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from PIL import Image

from training.study.report.document import Figure, Table
from training.study.report.sections import sections
from training.study.results import Results

FIGURES = "figures"


def write(results: Results, run: Path) -> None:
    """Write report.md and report.html; the same results and figures give the same files.

    Args:
        results: Everything both are made of.
        run: The study's folder; figures are taken from run/figures, PNG and SVG of each, and one
            that is not there is left out in words.
    """
    whole = sections(results)
    for name in ("report.md", "report.html"):
        template = _templates(run).get_template(f"{name}.jinja")
        text = template.render(results=results, sections=whole)
        (run / name).write_text(text.rstrip() + "\n", encoding="utf-8")


def _templates(run: Path) -> Environment:
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=select_autoescape(["html.jinja"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"md": as_markdown, "md_table": markdown_table}
    templates.globals |= {
        "embedded": lambda figure: _embedded(figure, run / FIGURES),
        "exists": lambda figure: _picture(figure, run / FIGURES).exists(),
    }
    return templates


def _picture(figure: Figure, folder: Path) -> Path:
    return folder / f"{figure.name}{'.png' if figure.radiographs else '.svg'}"


def _embedded(figure: Figure, folder: Path) -> str:
    """The figure as a data URI: a plot as SVG, radiographs as JPEG, a tenth of their PNG's size."""
    data, kind = _picture(figure, folder).read_bytes(), "svg+xml"
    if figure.radiographs:
        buffer = io.BytesIO()
        Image.open(io.BytesIO(data)).convert("RGB").save(
            buffer, "JPEG", quality=90, subsampling=0, optimize=True
        )
        data, kind = buffer.getvalue(), "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def as_markdown(text: str) -> str:
    """Text that Markdown shows as it is; a line feed, as in cells, becomes <br>."""
    escaped = re.sub(r"([\\`*\[\]|])", r"\\\1", text).replace("&", "&amp;").replace("<", "&lt;")
    escaped = re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", escaped)
    return escaped.replace("\n", "<br>")


def markdown_table(table: Table) -> str:
    """Header, rule, one line a row."""
    lines = [table.header, tuple("---" for _ in table.header), *table.rows]
    cells = ([as_markdown(cell or "") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)
