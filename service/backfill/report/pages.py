"""The two HTML pages of a backfill: single files without scripts, which print on A4."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from service.backfill.report.bounded_counter import BoundedCounter
from service.backfill.report.certificate import Certificate, Orientations, Shares
from service.backfill.report.counts import BODY_PART, CLAIMS
from service.backfill.report.header_audit import HeaderAudit, Line

Counted = tuple[str | None, int]

WORDS = {
    "view_position": "View Position",
    "patient_orientation": "Patient Orientation",
    "view_code": "View Code",
    "described_view": "Descriptions",
    "body_part_examined": "Body Part",
}
# Lines of the certificate's tables, so that it stays on one page; a list of errors takes some
MOST_LINES, MOST_LINES_BESIDE_ERRORS = 19, 9
LINES_OF_HEADS = 3  # that the answers of heads beside the view take
MOST_MODALITIES = 5  # another table is below it
MOST_STATIONS = 15  # this and the next: lines of the header audit
MOST_MONTHS = 18
MOST_PARTS = 4
LONGEST = 40  # characters of a name


def certificate(certificate: Certificate) -> str:
    """The certificate as one page of HTML."""
    most = MOST_LINES if certificate.valid else MOST_LINES_BESIDE_ERRORS
    if "not_chest" in certificate.views:
        most -= LINES_OF_HEADS
    modalities = min(MOST_MODALITIES, most - 4)
    years = len(certificate.months) > most
    months = [(month or None, count) for month, count in certificate.months.items()]
    codes = sorted(certificate.codes.items(), key=lambda one: (-one[1], one[0]))
    return _page(
        "certificate",
        certificate=certificate,
        words=WORDS,
        lies=_lies(certificate.orientation),
        stations=_lines(certificate.stations, most),
        modalities=_lines(certificate.modalities, modalities),
        codes=_shortened(codes, 0, most - modalities - 2),
        times=_shortened(_years(certificate.months) if years else months, 0, most),
        by="year" if years else "month",
    )


def header_audit(headers: HeaderAudit) -> str:
    """The header audit as HTML: how often each attribute is wrong, by station and month."""
    stations = sorted(headers.lines(0), key=lambda line: -line.counts[:, 1].sum())
    months = headers.lines(1)
    most_stations, most_months = MOST_STATIONS, MOST_MONTHS
    if BODY_PART in headers.claims:  # its tables are below
        most_stations, most_months = MOST_STATIONS - MOST_PARTS, MOST_MONTHS - MOST_PARTS
    return _page(
        "header-audit",
        headers=headers,
        words=[WORDS[name] for name in headers.claims],
        parts=[_part_lines(counter) for counter in (headers.not_chest, headers.chest)],
        whole=Line("all", *_sum(months)),
        stations=stations[:most_stations],
        more_stations=len(stations) - most_stations,
        months=months[::-1][:most_months],
        more_months=len(months) - most_months,
    )


def _sum(lines: Sequence[Line]) -> tuple[int, Any]:
    counts = sum((line.counts for line in lines), start=np.zeros((len(CLAIMS), 3), np.int64))
    return sum(line.images for line in lines), counts


def _lies(orientation: Orientations | None) -> list[tuple[str, int, int]]:
    """What is unusual in how images lie: its name, images with it, and images that were asked."""
    if orientation is None:
        return []
    turned, asked = orientation.rotation, sum(orientation.rotation.values())
    answers = {"inverted": orientation.inverted, "mirrored": orientation.mirrored}
    return [
        ("not upright", asked - turned["0"], asked),
        *((name, counts["yes"], sum(counts.values())) for name, counts in answers.items()),
    ]


def _part_lines(counter: BoundedCounter) -> list[Counted]:
    counts, others = counter.largest(MOST_PARTS)
    return [*counts.items(), *([("others", others)] if others else [])]


def _lines(shares: Shares, most: int) -> list[Counted]:
    return _shortened([(each.value, each.images) for each in shares.largest], shares.others, most)


def _shortened(counted: Sequence[Counted], others: int, most: int) -> list[Counted]:
    """The first lines, and one line for the others."""
    whole = len(counted) + bool(others) <= most
    first, rest = (counted, []) if whole else (counted[: most - 1], counted[most - 1 :])
    others += sum(count for _, count in rest)
    return [*first, ("others", others)] if others else [*first]


def _years(months: Mapping[str, int]) -> list[Counted]:
    """Counts by year, the newest first."""
    years: Counter[str | None] = Counter()
    for month, count in months.items():
        years[month[:4] or None] += count
    return sorted(years.items(), key=lambda one: one[0] or "", reverse=True)


def _page(name: str, **values: Any) -> str:
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,  # station names are free text
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"shown": _shown, "number": _number, "percent": _percent}
    templates.filters |= {"size": _size, "time": _time}
    return templates.get_template(f"{name}.html.jinja").render(**values).rstrip() + "\n"


def _shown(text: str | None, longest: int = LONGEST) -> str:
    """A name for the page: without control characters, and cut to `longest` characters."""
    if text is None:
        return "not said"
    if not text.strip():
        return "empty"
    if len(text) > longest:
        text = text[: longest - 1] + "\N{HORIZONTAL ELLIPSIS}"
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)


def _number(value: int) -> str:
    """A number with narrow spaces between groups of three digits."""
    return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def _percent(part: float | None) -> str:
    """A share in percent with one decimal place; a dash for None."""
    if part is None:
        return "\N{EN DASH}"
    if 0 < part < 0.0005:
        return "< 0.1 %"
    return f"{100 * part:.1f} %"


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


def _time(when: datetime | None) -> str:
    return "unknown" if when is None else f"{when.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
