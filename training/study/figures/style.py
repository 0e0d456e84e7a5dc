"""What all figures of a study share: size, colours, fonts, files."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib.style
from matplotlib.figure import Figure

WIDTH = 7.0  # inches: two columns of a journal

# Okabe and Ito's, which colour-blind readers tell apart; each comes with a hatch, marker or dash
BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
GREY, PALE = "#555555", "#E3E3E3"

STYLE: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.labelsize": 8,
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 8,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8,
    "grid.color": PALE,
    "grid.linewidth": 0.6,
    "hatch.linewidth": 0.6,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "cxrview",  # equal figures are equal files
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
}

P = ParamSpec("P")


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draw under STYLE, whatever the settings of the process and of its user."""

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with matplotlib.style.context(["default", STYLE]):
            return draw(*args, **kwargs)

    return drawn


def blank(height: float) -> Figure:
    """An empty figure, `height` in inches."""
    return Figure((WIDTH, height), layout="constrained")


def save(figure: Figure, folder: Path, name: str) -> tuple[Path, Path]:
    """Write a figure; the same figure gives the same bytes.

    Args:
        figure: One of this package's.
        folder: Made if it does not exist.
        name: Of the files, as "fig1-flow".

    Returns:
        The PNG (200 dpi) and the SVG (its text is text).
    """
    folder.mkdir(parents=True, exist_ok=True)
    png, svg = folder / f"{name}.png", folder / f"{name}.svg"
    with matplotlib.style.context(["default", STYLE]):
        figure.savefig(png, dpi=200)
        figure.savefig(svg, metadata={"Date": None})
    return png, svg
