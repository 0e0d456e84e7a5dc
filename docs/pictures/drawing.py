"""Drawing of each kind of panel: numbers, lines, heat maps, tables; values with units."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt

mpl.use("Agg")
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, DateFormatter
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator

from deploy.observe import Panel, Prometheus, Query, Series, substituted

INK, MUTED, GRID = "#1b1f24", "#57606a", "#d8dee4"
COLOURS = ("#b35900", "#4a7ba6", "#5a8f4e", "#8a5fa8", "#c2a12b", "#3f9a9a", "#c05c7e", "#8c959f")
STATES = {"green": "#3d8b40", "orange": "#d18616", "red": "#c93c37", "blue": "#2f6da3"}
POINTS = 240
Floats = npt.NDArray[np.float64]
DETAILS = 6  # lines of a legend at most


@dataclass(frozen=True)
class Span:
    """The range of time, and the values of the variables."""

    source: Prometheus
    start: float
    end: float
    values: dict[str, str]

    @property
    def seconds(self) -> float:
        """From its start to its end."""
        return self.end - self.start

    def over_time(self, query: Query) -> list[Series]:
        """A query's lines."""
        expr = substituted(query.expr, self.values)
        step = max(1.0, self.seconds / POINTS)
        return self.source.query_range(expr, self.start, self.end, step)

    def at_end(self, query: Query) -> list[Series]:
        """A query's last values."""
        expr = substituted(query.expr, self.values)
        return self.source.query_range(expr, self.end, self.end, 1)


def days(times: Sequence[float]) -> Floats:
    """Days since 1970, the unit of matplotlib."""
    return np.array(times) / 86400


def shown(value: float, unit: str) -> str:
    """A value with its unit, as a person would write it."""
    if unit == "percentunit":
        return f"{100 * value:.3g} %"
    if unit == "s":
        return f"{1000 * value:.3g} ms" if 0 < value < 1 else _duration(value)
    if unit in {"bytes", "Bps"}:
        ending = "B" if unit == "bytes" else "B/s"
        power = min(4, max(0, int(np.log2(max(value, 1)) // 10)))
        return f"{value / 1024**power:.3g} {('', 'Ki', 'Mi', 'Gi', 'Ti')[power]}{ending}"
    number = f"{value:,.0f}" if value >= 1000 or value == round(value) else f"{value:.3g}"
    return number + unit.removeprefix("suffix:") if unit.startswith("suffix:") else number


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    minutes, hours = seconds / 60, seconds / 3600
    return f"{minutes:.0f} min" if minutes < 120 else f"{hours:.1f} h"


def state_of(panel: Panel, value: float) -> str:
    """The colour that a panel's limits give a value."""
    defaults = panel.raw["fieldConfig"]["defaults"]
    if "thresholds" not in defaults:
        return STATES["blue"]
    steps = defaults["thresholds"]["steps"]
    passed = [step["color"] for step in steps if step["value"] is None or value >= step["value"]]
    return STATES[passed[-1]]


def unit_of(panel: Panel) -> str:
    """As Grafana calls it."""
    return str(panel.raw["fieldConfig"]["defaults"]["unit"])


def draw_number(axes: Axes, panel: Panel, span: Span) -> None:
    """One large number, with its course over time."""
    axes.axis("off")
    (query,) = panel.queries
    found = span.at_end(query)
    named = panel.raw["options"]["textMode"] == "name"
    empty = str(panel.raw["fieldConfig"]["defaults"]["noValue"])
    value = found[0].values[-1] if found else 0.0
    text = (query.name_of(found[0]) if named else shown(value, unit_of(panel))) if found else empty
    colour = state_of(panel, value) if found else MUTED
    height = panel.raw["gridPos"]["h"]
    size = min(
        6 * height, 50 * panel.raw["gridPos"]["w"] / max(len(text), 6), 60
    )  # so that it fits
    axes.text(
        0.5, 0.55, text, ha="center", va="center", fontsize=size, color=colour, weight="bold",
        transform=axes.transAxes,
    )  # fmt: skip
    if panel.raw["options"]["graphMode"] != "none" and (lines := span.over_time(query)):
        below = axes.inset_axes((0.0, 0.0, 1.0, 0.3))
        below.axis("off")
        below.fill_between(lines[0].times, lines[0].values, color=colour, alpha=0.25, lw=0)
        below.set_xlim(span.start, span.end)
        below.set_ylim(0, max(*lines[0].values, 1e-12) * 1.1)


def draw_lines(axes: Axes, panel: Panel, span: Span) -> None:
    """Lines over time, stacked or not, and a legend with their last values."""
    unit = unit_of(panel)
    found = [
        (query.name_of(line), line) for query in panel.queries for line in span.over_time(query)
    ]
    if not found:
        _say_empty(axes, panel)
        return
    custom = panel.raw["fieldConfig"]["defaults"]["custom"]
    dashed = {rule["matcher"]["options"] for rule in panel.raw["fieldConfig"]["overrides"]}
    if custom.get("stacking", {}).get("mode") == "normal":
        _stack(axes, found, unit)
    else:
        colours = iter(COLOURS * 2)
        for name, line in found:
            bound = name in dashed
            axes.plot(
                days(line.times), line.values,
                color=STATES["red"] if bound else next(colours), lw=1 if bound else 1.6,
                ls="--" if bound else "-", label=f"{name}  {shown(line.values[-1], unit)}",
            )  # fmt: skip
    _limits(axes, panel)
    axes.set_ylim(0, 1.08 * max(axes.get_ylim()[1], 1e-9))
    if (most := panel.raw["fieldConfig"]["defaults"].get("max")) is not None:
        axes.set_ylim(top=1.02 * most)
    _scale(axes, panel, span, unit)
    columns = 3 if panel.raw["gridPos"]["w"] >= 12 else 2
    axes.legend(
        loc="upper left", bbox_to_anchor=(0, -0.16), ncols=columns, fontsize=7, frameon=False,
        borderaxespad=0.2, handlelength=1.2, labelcolor=MUTED,
    )  # fmt: skip


def _say_empty(axes: Axes, panel: Panel) -> None:
    """With the reason, if the panel's description says when it is empty."""
    why = re.search(r"Empty (without [^.]+)", panel.raw["description"])
    said = f"no data {why[1]}" if why else "no data"
    axes.axis("off")
    axes.text(0.5, 0.5, said, ha="center", color=MUTED, transform=axes.transAxes)


def _stack(axes: Axes, found: list[tuple[str, Series]], unit: str) -> None:
    times = sorted({when for _, line in found for when in line.times})
    found = sorted(found, key=lambda each: -sum(each[1].values))
    values = []
    for _, line in found:
        known = dict(zip(line.times, line.values, strict=True))
        values.append([known.get(when, 0.0) for when in times])
    labels = [
        f"{name}  {shown(line.values[-1], unit)}" if place < DETAILS else "_"  # no entry
        for place, (name, line) in enumerate(found)
    ]
    axes.stackplot(
        days(times), values, labels=labels,
        colors=COLOURS, alpha=0.75, lw=0,
    )  # fmt: skip


def _limits(axes: Axes, panel: Panel) -> None:
    defaults = panel.raw["fieldConfig"]["defaults"]
    if "thresholds" not in defaults:
        return
    for step in defaults["thresholds"]["steps"]:
        if step["value"]:
            axes.axhline(step["value"], color=STATES[step["color"]], lw=0.8, ls="--")


def _scale(axes: Axes, panel: Panel, span: Span, unit: str) -> None:
    axes.set_xlim(*days([span.start, span.end]))
    axes.xaxis_date()
    most = max(4, min(7, round(panel.raw["gridPos"]["w"] / 1.5)))  # times that do not overlap
    axes.xaxis.set_major_locator(AutoDateLocator(minticks=2, maxticks=most))
    axes.xaxis.set_major_formatter(DateFormatter("%H:%M:%S" if span.seconds < 600 else "%H:%M"))
    top = axes.get_ylim()[1]
    binary = unit in {"bytes", "Bps"}
    step = 2 ** math.ceil(math.log2(top / 5)) if binary else 1
    axes.yaxis.set_major_locator(MultipleLocator(step) if binary else MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value, unit)))
    axes.grid(color=GRID, lw=0.6)
    axes.spines[:].set_visible(False)
    axes.tick_params(labelsize=7, colors=MUTED, length=0)
    axes.tick_params(axis="x", pad=7)


def draw_heat(axes: Axes, panel: Panel, span: Span) -> None:
    """The count of each bucket over time; buckets of Prometheus include those below."""
    (query,) = panel.queries
    found = sorted(span.over_time(query), key=lambda line: float(line.labels["le"]))
    if not found:
        _say_empty(axes, panel)
        return
    times = sorted({when for line in found for when in line.times})
    known = [dict(zip(line.times, line.values, strict=True)) for line in found]
    below = np.array([[line.get(when, 0.0) for when in times] for line in known])
    each = np.clip(np.diff(below, axis=0, prepend=0), 0, None)
    mesh = axes.pcolormesh(
        days(times), range(len(found)),
        np.ma.masked_less_equal(each, 0.01), cmap="Oranges", shading="nearest",
    )  # fmt: skip
    _scale(axes, panel, span, "short")
    axes.grid(visible=False)
    axes.set_yticks(range(len(found)), [line.labels["le"] for line in found])
    axes.set_ylabel("PFI, up to", fontsize=7, color=MUTED)
    bar = axes.figure.colorbar(mesh, ax=axes, pad=0.01, fraction=0.03)
    bar.ax.tick_params(labelsize=7, colors=MUTED)
    bar.set_label(f"images in {span.values['__rate_interval']}", fontsize=7, color=MUTED)
    bar.outline.set_visible(False)


def draw_table(axes: Axes, panel: Panel, span: Span) -> None:
    """One line for each series, one column for each label."""
    axes.axis("off")
    (query,) = panel.queries
    options = panel.raw["transformations"][0]["options"]
    columns = {label: options["renameByName"][label] for label in _in_order(options)}
    cells = [
        [
            shown(line.values[-1], "short") if label == "Value" else line.labels.get(label, "")
            for label in columns
        ]
        for line in span.at_end(query)
    ]
    made = axes.table(
        cells, colLabels=list(columns.values()), cellLoc="left", colLoc="left", loc="upper center",
        edges="horizontal",
    )  # fmt: skip
    made.auto_set_font_size(value=False)
    made.set_fontsize(8)
    made.scale(1, 1.5)
    for cell in made.get_celld().values():
        cell.set_edgecolor(GRID)
        cell.get_text().set_color(INK)


def _in_order(options: dict[str, Any]) -> list[str]:
    place: dict[str, int] = options["indexByName"]
    return sorted(place, key=place.__getitem__)


DRAWN: dict[str, Callable[[Axes, Panel, Span], None]] = {
    "stat": draw_number,
    "timeseries": draw_lines,
    "heatmap": draw_heat,
    "table": draw_table,
}
