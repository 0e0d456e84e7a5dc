"""What a report is made of, and how numbers are worded in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from model_store import Proportion

NOTHING = "\N{EN DASH}"  # in a table, where there is no number

Cell = str | None  # None: the cell above reaches down to here


@dataclass(frozen=True)
class Text:
    """One paragraph."""

    kind: ClassVar[str] = "text"
    text: str


class Point(NamedTuple):
    """One point of a list, after the word or two that it is about."""

    text: str
    lead: str = ""


@dataclass(frozen=True)
class Points:
    """A list of points."""

    kind: ClassVar[str] = "points"
    items: tuple[Point, ...]


@dataclass(frozen=True)
class Table:
    """A table; the first cell of a row is its heading, and line feeds break lines."""

    kind: ClassVar[str] = "table"
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()

    def height(self, row: int, column: int) -> int:
        """How many rows the cell reaches over; 0 where another one reaches down to here."""
        if self.rows[row][column] is None:
            return 0
        below = [line[column] for line in self.rows[row + 1 :]]
        return 1 + next((at for at, cell in enumerate(below) if cell is not None), len(below))


@dataclass(frozen=True)
class Figure:
    """A figure in the run's folder figures/."""

    kind: ClassVar[str] = "figure"
    name: str  # "fig1-flow", of its PNG and SVG
    caption: str
    alt: str
    radiographs: bool = False  # shows some, so it is left out where none may be shown

    @property
    def number(self) -> str:
        """As the paper numbers them."""
        return self.name.removeprefix("fig").split("-")[0]


@dataclass(frozen=True)
class Code:
    """Text as it is."""

    kind: ClassVar[str] = "code"
    text: str


Block = Text | Points | Table | Figure | Code


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it; `level` 3 belongs to the section before it."""

    title: str
    blocks: tuple[Block, ...]
    level: int = 2

    @property
    def anchor(self) -> str:
        """For links: lower case with hyphens, as Markdown viewers make it."""
        kept = "".join(c for c in self.title.lower() if c.isalnum() or c in " -")
        return kept.replace(" ", "-")


def bounded(value: float, digits: int, top: float = 1) -> str:
    """`value` of 0..`top` rounded, but never up to `top` or down to 0 unless it is just that."""
    text, step = f"{value:.{digits}f}", 10**-digits
    if value < top and float(text) >= top:
        return f">{top - step:.{digits}f}"
    if value > 0 and float(text) == 0:
        return f"<{step:.{digits}f}"
    return text


def percent(value: float) -> str:
    """0..1 as percent with two decimals, without the sign."""
    return bounded(100 * value, 2, 100)


def interval(ends: tuple[float, float]) -> str:
    """A confidence interval in percent, without the sign."""
    return f"{percent(ends[0])} to {percent(ends[1])}"


def share(part: Proportion) -> str:
    """A proportion in a sentence: "182/184 = 98.91 % (95 % CI 96.13 to 99.87 %)"."""
    if not part.n:
        return "0/0 (of no image)"
    counts = f"{part.count:,}/{part.n:,}"
    return f"{counts} = {percent(part.value)} % (95 % CI {interval(part.ci95)} %)"


def share_cell(part: Proportion | None) -> str:
    """A proportion in a table of percentages, on two lines; a dash where there is none."""
    if part is None or not part.n:
        return NOTHING
    return f"{part.count:,}/{part.n:,} = {percent(part.value)}\n({interval(part.ci95)})"


def optional(value: float | None, digits: int) -> str:
    """A number of 0..1; a dash where there is none."""
    return NOTHING if value is None else bounded(value, digits)


def p_value(p: float) -> str:
    """As journals want it: "<0.001", "0.045"."""
    return f"{p:.2g}" if 0.001 <= p < 0.1 else bounded(p, 3 if p < 0.1 else 2)


def listed(names: list[str]) -> str:
    """One, two and three."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
