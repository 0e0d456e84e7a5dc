"""Draw the dashboards without Grafana: the same layout, the same queries, one picture each.

    python -m docs.pictures.render http://127.0.0.1:9090 [--minutes 60] [--end SECONDS]

`--end` is in seconds since 1970; `--images` is the number of images in the archive. The pictures go
to docs/, or to `--out`. Those in docs/ are of the end-to-end test: `make e2e E2E_ARGS=--pictures`.
"""

from __future__ import annotations

import argparse
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from deploy.observe import ROOT, Prometheus, dashboards, panels, variables
from docs.pictures.drawing import DRAWN, GRID, INK, MUTED, POINTS, Span

COLUMN, ROW, MARGIN = 0.62, 0.36, 0.3  # inches of Grafana's grid, and around it
SCRAPES_OF_A_RATE = 4


def draw(dashboard: dict[str, Any], span: Span) -> Figure:
    """One dashboard, each panel at its position."""
    bottom = max(raw["gridPos"]["y"] + raw["gridPos"]["h"] for raw in dashboard["panels"])
    width, height = 24 * COLUMN + 2 * MARGIN, bottom * ROW + 2 * MARGIN + 0.4
    figure = plt.figure(figsize=(width, height), dpi=110, facecolor="white")
    y = 1 - MARGIN / height
    figure.text(
        MARGIN / width, y, dashboard["title"], fontsize=15, weight="bold", color=INK, va="top"
    )
    ends = [datetime.fromtimestamp(end, UTC).strftime("%H:%M") for end in (span.start, span.end)]
    when = f"{ends[0]} to {ends[1]} UTC"
    figure.text(1 - MARGIN / width, y, when, fontsize=9, color=MUTED, va="top", ha="right")

    def box(
        place: dict[str, int], pads: tuple[float, float, float, float]
    ) -> tuple[float, float, float, float]:
        left, right, above, under = pads
        x = MARGIN + place["x"] * COLUMN + left
        top = MARGIN + 0.4 + place["y"] * ROW + above
        wide = place["w"] * COLUMN - left - right
        tall = place["h"] * ROW - above - under
        return x / width, 1 - (top + tall) / height, wide / width, tall / height

    for raw in dashboard["panels"]:
        if raw["type"] == "row":
            x, y, wide, tall = box(raw["gridPos"], (0, 0, 0, 0))
            figure.text(x, y + tall / 2, raw["title"], fontsize=11, color=MUTED, va="center")
            figure.add_artist(Line2D([x, x + wide], [y, y], color=GRID, lw=1))
    for panel in panels(dashboard):
        flat = panel.kind in {"stat", "table"}
        pads = (0.15, 0.15, 0.42, 0.1) if flat else (0.72, 0.2, 0.42, 0.85)
        if panel.kind == "heatmap":
            pads = (0.72, 0.2, 0.42, 0.35)
        axes = figure.add_axes(box(panel.raw["gridPos"], pads))
        x, y, _, tall = box(panel.raw["gridPos"], (0.12, 0, 0.12, 0))
        figure.text(x, y + tall, panel.title, fontsize=9.5, weight="bold", color=INK, va="top")
        DRAWN[panel.kind](axes, panel, span)
    return figure


def write(
    source: Prometheus,
    out: Path,
    *,
    end: float,
    seconds: float,
    scrape_seconds: float,
    images: str,
) -> None:
    """Draw all dashboards into a folder, of the `seconds` before `end`."""
    # As in Grafana: the time between two points, but at least four scrapes
    rate = max(SCRAPES_OF_A_RATE * scrape_seconds, seconds / POINTS)
    for name, dashboard in dashboards().items():
        values = variables(
            dashboard, source, {"images": images}, range_seconds=seconds, rate_seconds=rate
        )
        figure = draw(dashboard, Span(source, end - seconds, end, values))
        figure.savefig(out / f"dashboards-{name}.png")
        plt.close(figure)


def main() -> None:
    """Draw all, by the options of the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--end", type=float, default=time.time())
    parser.add_argument("--scrape-seconds", type=float, default=15)
    parser.add_argument("--images", default="100000")
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    options = parser.parse_args()
    write(
        Prometheus(options.url.rstrip("/")),
        options.out,
        end=options.end,
        seconds=60 * options.minutes,
        scrape_seconds=options.scrape_seconds,
        images=options.images,
    )


if __name__ == "__main__":
    main()
