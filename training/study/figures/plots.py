"""The figures of a study that show numbers; none of them needs a radiograph."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from model_store import Interval, Plateau, View
from training.evaluate.cutoff import logit
from training.evaluate.records import ReliabilityBin
from training.study.figures.style import BLUE, GREEN, GREY, ORANGE, PALE, VERMILION, blank, styled
from training.study.results import (
    Candidate,
    Curve,
    LeakageRow,
    Method,
    Pretraining,
    TestImage,
)

METHODS: dict[Method, str] = {
    "fc-originals": "fully connected layers,\noriginals",
    "fc-augmented": "fully connected layers,\noriginals and children",
    "all-augmented": "all layers,\noriginals and children",
}
PRETRAININGS: dict[Pretraining, tuple[str, str]] = {
    "colour": ("o", BLUE),
    "full-greyscale": ("s", GREEN),
    "subset-greyscale": ("^", VERMILION),
}
BLUE_TINT, ORANGE_TINT = "#B3D5E8", "#F8E2B3"  # opaque: hatches of clear bars fade in an SVG
VIEWS: dict[View, tuple[str, str, str]] = {
    "frontal": (BLUE, BLUE_TINT, "////"),
    "lateral": (ORANGE, ORANGE_TINT, "...."),
}
PFI_TICKS = ("0.000001", "0.0001", "0.01", "0.5", "0.99", "0.9999", "0.999999")


@styled
def fig2_candidates(candidates: Sequence[Candidate], chosen: str) -> Figure:
    """Accuracy of the candidates on validation images and children, with 95 % intervals.

    Args:
        candidates: Any number of the nine.
        chosen: The name of the one that is ringed.
    """
    figure = blank(3.3)
    axes = figure.add_subplot(xlim=(-0.5, len(METHODS) - 0.5))
    for kind, (marker, colour) in PRETRAININGS.items():
        own = [c for c in candidates if c.pretraining == kind]
        bars = _bars([c.accuracy.value for c in own], [c.accuracy.ci95 for c in own])
        axes.errorbar(
            [_place(c) for c in own], [c.accuracy.value for c in own], bars,
            fmt=marker, color=colour, ms=6, capsize=4, lw=1, label=kind,
        )  # fmt: skip
    for best in (c for c in candidates if c.name == chosen):
        axes.plot(_place(best), best.accuracy.value, "ko", ms=16, mfc="none", label="chosen")
    sizes = sorted({c.accuracy.n for c in candidates})
    axes.set_xticks(range(len(METHODS)), METHODS.values())
    axes.set_ylabel(f"accuracy (n = {' or '.join(f'{n:,}' for n in sizes)} each)")
    axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    axes.grid(axis="y")
    axes.margins(y=0.12)
    figure.legend(loc="outside lower center", ncols=4)
    return figure


def _place(candidate: Candidate) -> float:
    side = list(PRETRAININGS).index(candidate.pretraining) - 1
    return list(METHODS).index(candidate.method) + 0.22 * side


def _bars(
    values: Sequence[float], intervals: Iterable[tuple[float, float]]
) -> npt.NDArray[np.float64]:
    """(2, N): how far the error bars reach downwards and upwards."""
    ends = np.array(list(intervals)).reshape(-1, 2)
    return np.maximum(0, [np.subtract(values, ends[:, 0]), np.subtract(ends[:, 1], values)])


@styled
def fig3_pfi(images: Sequence[TestImage], threshold: float, band: Interval) -> Figure:
    """PFI of the test images by true view: evenly spaced, and spaced by logit.

    Args:
        images: The test images.
        threshold: Frontal when PFI >= threshold.
        band: PFIs for a person.
    """
    figure = blank(3.2)
    even, spread = figure.subplots(1, 2, sharey=True)
    _histogram(even, {view: _pfis(images, view) for view in VIEWS}, np.linspace(0, 1, 26))
    logits = {view: [logit(pfi) for pfi in _pfis(images, view)] for view in VIEWS}
    _histogram(spread, logits, np.linspace(-14, 14, 29))
    spread.set_xticks([logit(float(pfi)) for pfi in PFI_TICKS], PFI_TICKS)
    spread.tick_params("x", labelrotation=45)
    for axes, at in ((even, float), (spread, logit)):
        axes.axvspan(at(band.low), at(band.high), color=PALE, zorder=0, label="review band")
        axes.axvline(at(threshold), c="black", ls="--", label=f"cutoff {threshold:.4g}")
    even.set(xlabel="PFI", ylabel="images", yscale="log", ylim=(0.7, None))
    even.yaxis.set_major_formatter("{x:,.0f}")
    spread.set_xlabel("PFI, spaced by its logit")
    figure.legend(*even.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def _pfis(images: Sequence[TestImage], view: View) -> list[float]:
    return [image.pfi for image in images if image.view == view]


def _histogram(axes: Axes, values: dict[View, list[float]], edges: npt.NDArray[np.float64]) -> None:
    colours, tints, hatches = zip(*(VIEWS[view] for view in values), strict=True)
    axes.hist(
        list(values.values()), edges.tolist(), color=tints, edgecolor=colours, hatch=hatches,
        label=[f"{view} (n = {len(own):,})" for view, own in values.items()],
        linewidth=0.8, rwidth=1,
    )  # fmt: skip


@styled
def fig5_youden(curves: Sequence[Curve], plateau: Plateau, middle: float, high: float) -> Figure:
    """Youden's J by cutoff: the whole of it, and the part where it is near its maximum.

    Args:
        curves: The first is the one that the plateau belongs to.
        plateau: Cutoffs of maximal J.
        middle: Its middle in logits.
        high: Its upper end, the paper's choice.
    """
    figure = blank(3.2)
    whole, near = figure.subplots(1, 2)
    for axes in (whole, near):
        axes.axvspan(plateau.low, plateau.high, color=PALE, label="plateau", zorder=0)
        for curve, (colour, dash) in zip(curves, ((BLUE, "-"), (VERMILION, "--")), strict=False):
            axes.plot(curve.cutoffs, curve.youden_j, c=colour, ls=dash, label=curve.measured_on)
        axes.axvline(middle, c="black", ls="-.", lw=1, label=f"middle: {middle:.4g}")
        axes.axvline(high, c="black", ls=":", lw=1.4, label=f"high: {high:.4g}")
        axes.set(xlabel="cutoff (frontal when PFI ≥ cutoff)", xlim=(-0.01, 1.01))
        axes.grid()
    whole.set(ylabel="Youden's J", ylim=(-0.02, 1.02))
    near.set(ylim=_near_maximum(curves), title="the same, near the maximum")
    figure.legend(*whole.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def _near_maximum(curves: Sequence[Curve]) -> tuple[float, float]:
    """The range of the upper nine tenths of all J, at least a hundredth high."""
    values = np.concatenate([curve.youden_j for curve in curves])
    highest = float(values.max())
    lowest = min(float(np.quantile(values, 0.1)), highest - 0.01)
    return lowest, highest + 0.05 * (highest - lowest)


@styled
def fig7_reliability(
    before: Sequence[ReliabilityBin],
    after: Sequence[ReliabilityBin],
    ece_before: float,
    ece_after: float,
) -> Figure:
    """The share of frontal images by PFI, before and after temperature scaling.

    Args:
        before: Bins in order; empty ones are left out.
        after: The same, of scaled PFIs.
        ece_before: Expected calibration error of the images in the bins.
        ece_after: The same, of scaled PFIs.
    """
    figure = blank(4.2)
    panels = figure.subplots(2, 2, sharex=True, sharey="row", height_ratios=(3, 1))
    for column, (name, bins, ece) in enumerate(
        (("Before scaling", before, ece_before), ("After scaling", after, ece_after))
    ):
        upper, lower = panels[0, column], panels[1, column]
        upper.set_title(f"{name}: ECE {ece:.4f}")
        upper.plot((0, 1), (0, 1), c=GREY, ls="--", lw=1, label="perfect calibration")
        shares = [part.frontal.value for part in bins]
        bars = _bars(shares, [part.frontal.ci95 for part in bins])
        means = [part.mean_pfi for part in bins]
        label = "images of one bin, 95 % CI"
        upper.errorbar(means, shares, bars, fmt="o", c=BLUE, ms=4, capsize=3, lw=1, label=label)
        edges, widths = [part.low for part in bins], [part.high - part.low for part in bins]
        counts = [part.images for part in bins]
        lower.bar(edges, counts, widths, align="edge", fc=BLUE_TINT, ec=BLUE, hatch="////")
        lower.set(xlabel="PFI", yscale="log", xlim=(-0.02, 1.02), ylim=(0.7, None))
    panels[0, 0].set_ylabel("share of frontal images")
    panels[1, 0].set_ylabel("images")
    panels[1, 0].yaxis.set_major_formatter("{x:,.0f}")
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


@styled
def fig9_leakage(rows: Sequence[LeakageRow]) -> Figure:
    """How far the accuracy depends on the way of measuring, grouped by question.

    Args:
        rows: In any order; those of one question come together.
    """
    questions = list(dict.fromkeys(row.question for row in rows))
    lines: list[str | LeakageRow] = []
    for question in questions:
        lines += [question, *(row for row in rows if row.question == question)]
    figure = blank(0.34 * len(lines) + 0.6)
    axes = figure.add_subplot(ylim=(len(lines) - 0.4, -0.6))
    for y, line in enumerate(lines):
        if isinstance(line, LeakageRow):
            colour = (BLUE, VERMILION, GREEN, ORANGE)[questions.index(line.question) % 4]
            marker = "osD^"[questions.index(line.question) % 4]
            _forest_row(axes, y, line, colour + marker)
    axes.set_yticks(range(len(lines)), [_label(line) for line in lines])
    for label, line in zip(axes.get_yticklabels(), lines, strict=True):
        label.set_fontweight("bold" if isinstance(line, str) else "normal")
    axes.tick_params("y", length=0)
    axes.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.set_xlabel("accuracy, 95 % CI")
    axes.grid(axis="x")
    return figure


def _label(line: str | LeakageRow) -> str:
    if isinstance(line, str):
        return line.capitalize()
    return textwrap.fill(f"{line.setting}; {line.model}", 44)


def _forest_row(axes: Axes, y: int, row: LeakageRow, sign: str) -> None:
    colour, marker = sign[:-1], sign[-1]
    bars = _bars([row.accuracy], [row.ci95])
    axes.errorbar([row.accuracy], [y], xerr=bars, fmt=marker, c=colour, ms=5, capsize=3, lw=1)
    low, high = (f"{100 * end:.2f}" for end in row.ci95)
    text = f"{100 * row.accuracy:.2f} % ({low} to {high})\nn = {row.n:,}"
    axes.text(1.02, y, text, transform=axes.get_yaxis_transform(), va="center", fontsize=6.5)
