"""Two answers to each image, counted: how often they differ, by how much, and at what cost."""

from __future__ import annotations

import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tables import table

from model_store import ModelVersion, Prediction

Result = dict[str, Any]
Z = 1.959964  # of 95 %
MOVED = ("median", "p95", "p99", "max")


@dataclass
class Agreement:
    """Images of one kind, one way and one model."""

    n: int = 0
    labelled: int = 0
    differ: int = 0
    moved: list[float] = field(default_factory=list)  # |PFI rendered - PFI stored|
    right: Counter[str] = field(default_factory=Counter)
    review: Counter[str] = field(default_factory=Counter)
    differ_unreviewed: int = 0  # of those that differ: the rendered one is not for review

    def add(self, version: ModelVersion, stored: float, rendered: float, view: str | None) -> None:
        """Two answers to one image."""
        self.n += 1
        self.moved.append(abs(rendered - stored))
        before, after = (
            version.card.decide(Prediction(stored)),
            version.card.decide(Prediction(rendered)),
        )
        self.differ += before.view != after.view
        self.differ_unreviewed += before.view != after.view and not after.review
        self.review["stored"] += before.review
        self.review["rendered"] += after.review
        if view is not None:
            self.labelled += 1
            self.right["stored"] += before.view == view
            self.right["rendered"] += after.view == view

    def row(self) -> Result:
        """As it is written."""
        moved = np.quantile(self.moved, (0.5, 0.95, 0.99, 1)) if self.moved else [None] * 4
        return {
            "n": self.n,
            "views_differ": self.differ,
            "views_differ_share_ci95": wilson(self.differ, self.n),
            "views_differ_without_review": self.differ_unreviewed,
            "pfi_moved": dict(zip(MOVED, map(short, moved), strict=True)),
            "right": {way: [self.right[way], self.labelled] for way in ("stored", "rendered")},
            "review": {way: self.review[way] for way in ("stored", "rendered")},
        }


@dataclass
class Cost:
    """Of one kind and way."""

    sizes: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    refused: Counter[str] = field(default_factory=Counter)
    read_as_stored: int = 0

    def row(self) -> Result:
        """Means of both."""
        return {
            "bytes": {way: round(statistics.fmean(found)) for way, found in self.sizes.items()},
            "seconds": {
                way: short(statistics.median(found)) for way, found in self.seconds.items()
            },
            "refused": dict(self.refused),
            "read_as_stored": self.read_as_stored,
        }


def wilson(count: int, n: int) -> tuple[float, float] | None:
    """95 % confidence interval of a share."""
    if not n:
        return None
    share, square = count / n, Z * Z / n
    half = Z * np.sqrt(share * (1 - share) / n + square / (4 * n)) / (1 + square)
    middle = (share + square / 2) / (1 + square)
    return max(short(middle - half), 0.0), min(short(middle + half), 1.0)


def tables(result: Result) -> str:
    """In Markdown: agreement, a line a kind, way and model; then cost, a line a kind and way."""
    heads = ("kind", "asked for", "model", "images", "views differ (95 % CI)", "not for review")
    heads += ("PFI moved: p95, p99, max", "right: stored, rendered", "review: stored, rendered")
    lines = [
        (row["kind"], _way(row), model, *_agreement(found))
        for row in result["rows"]
        for model, found in row["models"].items()
    ]
    costs = [
        (
            row["kind"],
            _way(row),
            ", ".join(f"{size / 1e3:.0f}" for size in row["bytes"].values()),
            ", ".join(f"{1e3 * each:.0f}" for each in row["seconds"].values()),
            f"{sum(row['refused'].values())}",
            f"{row['read_as_stored']}",
        )
        for row in result["rows"]
    ]
    names = ("kind", "asked for", "kB: stored, rendered", "ms: stored, rendered")
    names += ("not rendered", "read as stored")
    return f"{table(heads, lines)}\n{table(names, costs)}"


def _way(row: Result) -> str:
    return f"{row['side']}, {row['format'].upper()}"


def _agreement(found: Result) -> Iterable[str]:
    low, high = found["views_differ_share_ci95"] or (0, 1)
    moved = found["pfi_moved"]
    yield f"{found['n']}"
    yield f"{found['views_differ']} ({low:.1%} to {high:.1%})"
    yield f"{found['views_differ_without_review']}"
    yield ", ".join(f"{moved[each] or 0:.2g}" for each in ("p95", "p99", "max"))
    yield ", ".join(str(right) for right, of in found["right"].values() if of) or "no labels"
    yield ", ".join(map(str, found["review"].values()))


def merged(path: Path, result: Result) -> Result:
    """What is measured anew replaces what stood in the file, and only that."""
    known = json.loads(path.read_text())["rows"] if path.exists() else []
    rows = {(row["kind"], row["side"], row["format"]): row for row in known + result["rows"]}
    return result | {"rows": list(rows.values())}


def short(value: float | None) -> float | None:
    """Four digits."""
    return None if value is None else float(f"{value:.4g}")
