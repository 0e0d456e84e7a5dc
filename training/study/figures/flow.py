"""The flow of images, as the paper's Figure 1 shows it: what was left out, and where, and why."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from training.study.figures.style import GREY, PALE, blank, styled
from training.study.results import FlowStep

BRANCHES = {"train": 1 / 6, "validation": 1 / 2, "test": 5 / 6}  # where each part stands
SIDE = 0.7  # where boxes of what was left out begin


@styled
def fig1_flow(flow: Sequence[FlowStep]) -> Figure:
    """The flow of images: listed, read, split into three parts, and given children.

    Args:
        flow: In order. "train", "validation" and "test" stand side by side, "... with children"
            below its own part, and every other step above them.
    """
    trunk = [step for step in flow if _part(step) is None]
    figure = blank(1.05 * (len(trunk) + 2))
    axes = figure.add_subplot(xlim=(0, 1), ylim=(-len(trunk) - 1.4, 0.4))
    axes.set_axis_off()
    for depth, step in enumerate(trunk):
        box = _box(axes, _words(step, 60), 0.5, -depth)
        if depth:
            _arrow(axes, 0.5, 1 - depth, -depth, box)
            _side_box(axes, step, 0.5 - depth)
    for step in flow:
        if _part(step) is not None:
            _branch(axes, step, len(trunk))
    return figure


def _part(step: FlowStep) -> str | None:
    name = step.name.split()[0]
    return name if name in BRANCHES else None


def _branch(axes: Axes, step: FlowStep, depth: int) -> None:
    x = BRANCHES[step.name.split()[0]]
    if step.name in BRANCHES:
        axes.plot((0.5, 0.5, x), (1 - depth, 0.5 - depth, 0.5 - depth), c=GREY, lw=0.8, zorder=1)
        _arrow(axes, x, 0.5 - depth, -depth, _box(axes, _words(step, 26), x, -depth))
    else:
        box = _box(axes, _words(step, 26), x, -depth - 1)
        _arrow(axes, x, -depth, -depth - 1, box)


def _words(step: FlowStep, across: int) -> str:
    patients = "" if step.patients is None else f" of {step.patients:,} patients"
    views = (("frontal", step.frontal), ("lateral", step.lateral))
    counts = ", ".join(f"{count:,} {view}" for view, count in views if count is not None)
    lines = [f"{step.images:,} images{patients}", counts]
    if step.excluded and _part(step):  # there is no space beside a branch
        lines += [f"left out: {n:,} {reason}" for reason, n in step.excluded.items()]
    wrapped = [textwrap.fill(line, across) for line in lines if line]
    return "\n".join([step.name.capitalize(), *wrapped])


def _box(axes: Axes, text: str, x: float, y: float) -> Patch:
    frame = {"boxstyle": "square,pad=0.6", "facecolor": "white", "edgecolor": "black", "lw": 0.8}
    drawn = axes.text(x, y, text, ha="center", va="center", linespacing=1.4, bbox=frame, zorder=2)
    patch = drawn.get_bbox_patch()
    assert patch is not None
    return patch


def _side_box(axes: Axes, step: FlowStep, y: float) -> None:
    if not step.excluded:
        return
    axes.plot((0.5, SIDE), (y, y), c=GREY, lw=0.8, ls="--", zorder=1)
    reasons = [textwrap.fill(f"{n:,} {reason}", 36) for reason, n in step.excluded.items()]
    text = "\n".join([f"Left out: {sum(step.excluded.values()):,} images", *reasons])
    frame = {"boxstyle": "square,pad=0.6", "facecolor": PALE, "edgecolor": GREY, "lw": 0.8}
    axes.text(SIDE, y, text, va="center", fontsize=7, linespacing=1.3, bbox=frame, zorder=2)


def _arrow(axes: Axes, x: float, start: float, end: float, target: Patch) -> None:
    """From `start`, hidden below the box there, to the edge of the box at `end`."""
    axes.plot((x, x), (start, end + 0.5), c=GREY, lw=0.8, zorder=1)
    way = {"arrowstyle": "-|>", "color": GREY, "lw": 0.8, "patchB": target}
    ends = {"shrinkA": 0, "shrinkB": 0}
    axes.annotate("", (x, end), (x, end + 0.5), arrowprops=way | ends, zorder=3)
