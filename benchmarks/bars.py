"""What the service promises of its speed, and whether the results hold it.

A bar that was not measured has no value, and is not met.
"""

from __future__ import annotations

import operator
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from model_store import Store

Results = dict[str, Any]

NETWORK, SMALL = "googlenet/1.1.0", "swift/1.1.0"
MODELS = tuple(model for model in (NETWORK, SMALL) if model in Store().list())
DECODE = {  # CPU seconds an image, the plain stack's over ours
    "jpeg2000": 15.0,
    "jpeg-lossless": 4.0,
    "rle": 8.0,
    "jpeg-12bit": 3.5,
    "uncompressed": 3.0,
    "png": 1.0,
}
END_TO_END = {  # images/s at concurrency 8, ours over the plain stack's
    NETWORK: {"jpeg2000": 10.0, "jpeg-lossless": 3.0, "uncompressed": 1.5},
    SMALL: {"jpeg2000": 20.0, "jpeg-lossless": 4.0, "uncompressed": 2.5},
}
CONNECTIONS = "8"
EFFICIENCY_CONNECTIONS = ("8", "32")


@dataclass(frozen=True)
class Bar:
    """One promise."""

    name: str
    at_least: bool  # else at most
    limit: float
    value: float | None
    remark: str = ""

    @property
    def met(self) -> bool:
        """Whether it was measured and holds."""
        compare = operator.ge if self.at_least else operator.le
        return self.value is not None and compare(self.value, self.limit)


def rows(results: Results) -> list[dict[str, Any]]:
    """All bars, as they are stored."""
    return [asdict(bar) | {"met": bar.met} for bar in bars(results)]


def bars(results: Results) -> Iterator[Bar]:
    """All bars, in the order of the documentation."""
    yield from _decode(results)
    yield from _end_to_end(results)
    yield from _efficiency(results)
    yield from _stress(results)
    if SMALL in MODELS:
        yield from _small(results)
    yield from _soak(results)


def _decode(results: Results) -> Iterator[Bar]:
    for name, limit in DECODE.items():
        row = results.get("decode", {}).get(name)
        value = row and paired(row["rival_cpu_s"], row["ours_cpu_s"])
        yield Bar(f"decode {name}: times as fast as pydicom and Pillow", True, limit, value)


def _end_to_end(results: Results) -> Iterator[Bar]:
    for model in MODELS:
        for name, limit in END_TO_END[model].items():
            value = against(results, name, model, "plain", CONNECTIONS)
            title = f"end to end {name}, {model}: times the plain stack's images/s"
            yield Bar(title, True, limit, value)
    for model in MODELS:
        found = {
            f"at {connections}": against(results, "png", model, "litserve", connections)
            for connections in ("8", "32")
        }
        title = f"end to end png, {model}: times LitServe's images/s"
        yield _worst(title, 1.5, found)
    every = {
        f"{name}, {model}, at {connections}": against(results, name, model, "plain", connections)
        for model in MODELS
        for name in results.get("syntaxes", {})
        for connections in ("1", "8")
    }
    yield _worst("end to end, anywhere: times the plain stack's images/s", 1.0, every)


def _efficiency(results: Results) -> Iterator[Bar]:
    for model in MODELS:
        for connections in EFFICIENCY_CONNECTIONS:
            found = {
                name: _middle(syntax["models"].get(model, {}), "efficiency", connections)
                for name, syntax in results.get("syntaxes", {}).items()
            }
            title = f"efficiency, {model}, concurrency {connections}, of any syntax"
            yield _worst(title, 0.85, found)


def _stress(results: Results) -> Iterator[Bar]:
    for model in MODELS:
        row = results.get("lanes", {}).get(model)
        value = row and paired(row["full"]["p99_s_by_round"], row["idle"]["p99_s_by_round"])
        title = f"interactive p99, {model}: times as long beside a full backfill lane"
        yield Bar(title, False, 2.0, value)
    for model in MODELS:
        row = results.get("overload", {}).get(model)
        share = row and statistics.median(row["goodput_share"])
        yield Bar(f"goodput at 3x overload, {model}: of capacity", True, 0.9, share)
        waited = row and statistics.median(row["p99_s"]) / row["budget_s"]
        title = f"p99 of accepted images at 3x overload, {model}: of the latency budget"
        yield Bar(title, False, 1.0, waited)


def _small(results: Results) -> Iterator[Bar]:
    speeds = results.get("network", {})
    value = None
    if all(model in speeds for model in MODELS):
        value = paired(*(_best(speeds[model]) for model in (SMALL, NETWORK)))
    title = f"network alone, each at its best: {SMALL} times the images/s of {NETWORK}"
    yield Bar(title, True, 100.0, value)


def _best(ways: Results) -> list[float]:
    """Images/s, round by round, by the fastest way of running a network on all cores."""
    speeds: list[list[float]] = [row["images_s"] for row in ways.values()]
    return max(speeds, key=statistics.median)


def _soak(results: Results) -> Iterator[Bar]:
    for model in MODELS:
        row = results.get("soak", {}).get(model)
        grown = row and row["rss_mb_last"] / row["rss_mb_first"]
        title = f"soak at 90 % load, {model}"
        yield Bar(f"{title}: resident memory, last over first", False, 1.05, grown)
        unanswered = row and float(row["errors"] + row["refused"])
        yield Bar(f"{title}: errors and refusals", False, 0.0, unanswered)


def against(results: Results, name: str, model: str, rival: str, connections: str) -> float | None:
    """Images/s over a rival's, round by round; None where one of them was not measured."""
    row = results.get("syntaxes", {}).get(name, {}).get("models", {}).get(model, {})
    speeds = [row.get(who, {}).get(connections, {}).get("images_s") for who in ("service", rival)]
    if None in speeds:
        return None
    return paired(*speeds)


def paired(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the ratios of what was measured in the same round."""
    pairs = zip(ours, theirs, strict=True)
    return float(f"{statistics.median(one / other for one, other in pairs):.4g}")


def _middle(row: Results, *keys: str) -> float | None:
    found: Any = row
    for key in keys:
        found = found.get(key, {})
    return statistics.median(found) if found else None


def _worst(title: str, limit: float, found: dict[str, float | None]) -> Bar:
    values = {name: value for name, value in found.items() if value is not None}
    if not values:
        return Bar(title, True, limit, None)
    where = min(values, key=values.__getitem__)
    return Bar(title, True, limit, values[where], where)
