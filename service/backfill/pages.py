"""The two pages of a backfill: each one file without scripts, which prints on A4."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from service.backfill.account import HEADER
from service.backfill.certificate import Certificate
from service.backfill.header_audit import HeaderAudit, Line

WORDS = {
    "view_position": "View Position",
    "patient_orientation": "Patient Orientation",
    "view_code": "View Code",
}
MOST_LINES = 12  # of a table of the certificate, so that it stays on one page
MOST_STATIONS = 15  # and of those of the header audit
MOST_MONTHS = 18
LONGEST = 40  # letters of a name


def certificate(certificate: Certificate) -> str:
    """The certificate on one page."""
    times = [(month or None, count) for month, count in certificate.months.items()]
    years = len(times) > MOST_LINES
    return _page(
        "certificate",
        certificate=certificate,
        words=WORDS,
        stations=_shortened(
            [(each.value, each.images) for each in certificate.stations.largest],
            certificate.stations.others,
        ),
        modalities=_shortened(
            [(each.value, each.images) for each in certificate.modalities.largest],
            certificate.modalities.others,
        ),
        codes=_shortened(sorted(certificate.codes.items(), key=lambda one: (-one[1], one[0])), 0),
        times=_years(certificate.months) if years else _shortened(times, 0),
        by="year" if years else "month",
    )


def header_audit(headers: HeaderAudit) -> str:
    """Stations and months, and how often each attribute is wrong there."""
    stations = sorted(headers.lines(0), key=lambda line: -line.counts[:, 1].sum())
    months = headers.lines(1)
    return _page(
        "header-audit",
        headers=headers,
        words=[WORDS[name] for name in HEADER],
        whole=Line("all", *_sum(months)),
        stations=stations[:MOST_STATIONS],
        more_stations=len(stations) - MOST_STATIONS,
        months=months[::-1][:MOST_MONTHS],
        more_months=len(months) - MOST_MONTHS,
    )


def _sum(lines: Sequence[Line]) -> tuple[int, Any]:
    counts = sum((line.counts for line in lines), start=np.zeros((len(HEADER), 3), np.int64))
    return sum(line.images for line in lines), counts


def _shortened(
    counted: Sequence[tuple[str | None, int]], others: int
) -> list[tuple[str | None, int]]:
    """The first lines, and one for the rest."""
    if len(counted) + bool(others) <= MOST_LINES:
        first, rest = list(counted), others
    else:
        first = list(counted[: MOST_LINES - 1])
        rest = others + sum(count for _, count in counted[MOST_LINES - 1 :])
    return first + ([("others", rest)] if rest else [])


def _years(months: Mapping[str, int]) -> list[tuple[str | None, int]]:
    """The newest years, and one line for those before."""
    years: Counter[str | None] = Counter()
    for month, count in months.items():
        years[month[:4] or None] += count
    newest = sorted(years.items(), key=lambda one: one[0] or "", reverse=True)
    return _shortened(newest, 0)


def _page(name: str, **values: Any) -> str:
    templates = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,  # names of stations are whatever somebody typed
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"shown": _shown, "number": _number, "percent": _percent, "time": _time}
    return templates.get_template(f"{name}.html.jinja").render(**values).rstrip() + "\n"


def _shown(text: str | None, longest: int = LONGEST) -> str:
    """A name as a page can show it: no control characters, not longer than its cell."""
    if text is None:
        return "not said"
    if not text.strip():
        return "empty"
    if len(text) > longest:
        text = text[: longest - 1] + "\N{HORIZONTAL ELLIPSIS}"
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)


def _number(value: int) -> str:
    """Groups of three, by narrow spaces."""
    return f"{value:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def _percent(part: float | None) -> str:
    """One decimal place; a share of nothing is a dash."""
    if part is None:
        return "\N{EN DASH}"
    if 0 < part < 0.0005:
        return "< 0.1 %"
    return f"{100 * part:.1f} %"


def _time(when: datetime | None) -> str:
    return "unknown" if when is None else f"{when.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
