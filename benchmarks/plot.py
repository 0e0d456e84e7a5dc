"""Write docs/throughput.md and docs/throughput.png from the results.

python benchmarks/plot.py
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from tables import document, read
from throughput import RESULTS

DOCS = RESULTS.parent.parent.parent / "docs"
INK, MUTED = "#1b1f24", "#57606a"
OURS, PLAIN, LITSERVE, XRV = "#b35900", "#8c959f", "#4a7ba6", "#c9d1d9"
CONCURRENCY = "8"
HEIGHT = 0.21  # of a bar; syntaxes are 1 apart

Bars = list[tuple[str, str, dict[str, float]]]  # label, colour, images/s by syntax


def series(results: dict[str, Any], model: str) -> Bars:
    """What is drawn for one network, slowest system last."""
    syntaxes = results["syntaxes"]
    rows = {name: syntax["models"].get(model, {}) for name, syntax in syntaxes.items()}

    def speeds(who: str) -> dict[str, float]:
        found = {name: row.get(who, {}).get(CONCURRENCY) for name, row in rows.items()}
        return {name: statistics.median(row["images_s"]) for name, row in found.items() if row}

    xrv = {
        name: 1 / statistics.median(row["xrv_wall_s"])
        for name, row in results.get("decode", {}).items()
        if name in syntaxes
    }
    return [
        ("cxrview", OURS, speeds("service")),
        ("LitServe (PNG only)", LITSERVE, speeds("litserve")),
        ("FastAPI + pydicom + Pillow", PLAIN, speeds("plain")),
        ("torchxrayvision's way, ResNet-50, in process", XRV, xrv),
    ]


def draw(axes: Axes, bars: Bars, names: list[str], title: str) -> None:
    """One network's panel: horizontal bars on a logarithmic axis, each with its number."""
    for row, name in enumerate(names):
        present = [(colour, speeds[name]) for _, colour, speeds in bars if name in speeds]
        top = row - (len(present) - 1) / 2 * HEIGHT
        for place, (colour, value) in enumerate(present):
            axes.barh(top + place * HEIGHT, value, 0.92 * HEIGHT, color=colour)
            text = f"{value:.0f}" if value >= 10 else f"{value:.2g}"
            axes.text(1.06 * value, top + place * HEIGHT, text, va="center", fontsize=7, color=INK)
    axes.set_xscale("log")
    axes.set_yticks(range(len(names)), names)
    axes.set_title(title, fontsize=10, color=INK, loc="left")
    axes.set_xlabel("images a second (logarithmic)", fontsize=8, color=MUTED)
    axes.tick_params(labelsize=8, colors=MUTED)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.12, y=0.01)


def main() -> None:
    """Write both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--docs", type=Path, default=DOCS)
    options = parser.parse_args()
    results = read(options.results)
    (options.docs / "throughput.md").write_text(document(results))
    names = list(results["syntaxes"])
    models = list(dict.fromkeys(m for s in results["syntaxes"].values() for m in s["models"]))
    figure, panels = plt.subplots(
        1, len(models), figsize=(5.2 * len(models), 0.75 * len(names) + 1.4),
        dpi=150, sharey=True, sharex=True, squeeze=False, facecolor="white",
    )  # fmt: skip
    for axes, model in zip(panels[0], models, strict=True):
        draw(axes, series(results, model), names, f"{model}, concurrency {CONCURRENCY}")
    panels[0][0].invert_yaxis()  # the first on top; the panels share the axis
    handles = [Patch(color=colour, label=label) for label, colour, _ in series(results, models[0])]
    figure.legend(handles=handles, loc="lower center", ncols=4, fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    figure.savefig(options.docs / "throughput.png")


if __name__ == "__main__":
    main()
