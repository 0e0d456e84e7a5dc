"""The figures of a study that show radiographs."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from training.study.figures.style import ORANGE, VERMILION, WIDTH, blank, styled


@dataclass(frozen=True)
class Picture:
    """A radiograph with the words about it."""

    title: str  # above, as "frontal"
    pixels: npt.NDArray[np.uint8]  # (S, S)
    caption: str  # below: PFI, source and licence; wrapped to fit
    map: npt.NDArray[np.floating] | None = None  # (s, s) of 0..1, drawn as contours
    wrong: bool = False  # called wrongly: framed, and marked in words


@styled
def fig4_examples(pictures: Sequence[Picture]) -> Figure:
    """Radiographs with their true view and PFI, four in a line.

    Raises:
        ValueError: There are none.
    """
    return _grid(pictures, columns=4)


@styled
def fig6_transformed(rows: Sequence[Sequence[Picture]]) -> Figure:
    """One image a row: as it is, then transformed as in the paper's Figure 6.

    Raises:
        ValueError: There are none, or rows differ in length.
    """
    if len({len(row) for row in rows}) != 1:
        raise ValueError("a figure of transformed images needs rows of one length")
    return _grid(list(chain(*rows)), columns=len(rows[0]))


@styled
def fig8_gallery(pictures: Sequence[Picture]) -> Figure:
    """The least certain images and the wrong ones, with contours of what mattered.

    Raises:
        ValueError: There are none.
    """
    return _grid(pictures, columns=4)


def _grid(pictures: Sequence[Picture], columns: int) -> Figure:
    if not pictures:
        raise ValueError("a figure of radiographs needs at least one")
    across = max(10, 104 // columns)  # characters of the captions' size
    texts = [(_wrap(picture.title, across - 2), _caption(picture, across)) for picture in pictures]
    above = max(title.count("\n") + 1 for title, _ in texts)
    below = max(caption.count("\n") + 1 for _, caption in texts)
    lines = math.ceil(len(pictures) / columns)
    figure = blank(lines * (WIDTH / columns + 0.13 * above + 0.115 * below + 0.05))
    places = figure.subplots(lines, columns, squeeze=False)
    for axes, picture, text in zip_longest(places.flat, pictures, texts):
        if picture is None:
            axes.set_axis_off()
        else:
            _show(axes, picture, *text)
    return figure


def _wrap(text: str, across: int) -> str:
    return "\n".join(textwrap.fill(line, across) for line in text.splitlines())


def _caption(picture: Picture, across: int) -> str:
    mark = "called wrongly\n" if picture.wrong else ""
    return mark + _wrap(picture.caption, across)


def _show(axes: Axes, picture: Picture, title: str, caption: str) -> None:
    axes.imshow(picture.pixels, cmap="gray", vmin=0, vmax=255)
    if picture.map is not None:
        _contours(axes, picture.map, len(picture.pixels))
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=7.5, loc="center", pad=3)
    axes.set_xlabel(caption, fontsize=6, labelpad=4)
    axes.spines[:].set_visible(picture.wrong)
    axes.spines[:].set(color=VERMILION, linewidth=3)


def _contours(axes: Axes, values: npt.NDArray[np.floating], size: int) -> None:
    """Lines, as colours would hide the radiograph; their dark edge is seen on bone, too."""
    centres = (np.arange(len(values)) + 0.5) * size / len(values) - 0.5
    lines = axes.contour(
        centres, centres, values, (0.25, 0.5, 0.75), colors=ORANGE, linewidths=(0.5, 1, 1.6)
    )
    lines.set_path_effects([withStroke(linewidth=2.6, foreground="black")])
