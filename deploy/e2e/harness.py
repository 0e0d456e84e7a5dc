"""The harness of all trials: load, replicas, Prometheus and report."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deploy import observe
from deploy.e2e.pacs import Pacs
from deploy.e2e.stack import Replica, answer, until

ALERT_SECONDS = 120


@dataclass
class Report:
    """Figures, and expectations that failed."""

    found: dict[str, Any] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def note(self, name: str, value: Any) -> None:
        """Record a figure."""
        self.found[name] = value
        print(f"  {name}: {json.dumps(value)}", flush=True)

    def expect(self, holds: bool, what: str) -> None:
        """Record an expectation that fails."""
        print(f"  {'ok' if holds else 'WRONG'}: {what}", flush=True)
        if not holds:
            self.wrong.append(what)


class Load:
    """Radiographs that k6 sends at a constant rate.

    Args:
        k6: The program.
        said: Variables of load.js, except RATE, SECONDS and OUT.
        rate: Requests a second.
        seconds: Duration.
        out: A path for the results.
    """

    def __init__(
        self, k6: Path, said: dict[str, str], rate: float, seconds: float, out: Path
    ) -> None:
        self._out = out
        said = said | {"RATE": str(rate), "SECONDS": str(seconds), "OUT": str(out)}
        words = [str(k6), "run", "--quiet", "--no-usage-report"]
        words += [f"--env={name}={value}" for name, value in said.items()]
        words.append(str(Path(__file__).with_name("load.js")))
        with out.with_suffix(".log").open("wb") as log:
            self._process = subprocess.Popen(words, stdout=log, stderr=log)

    def result(self) -> dict[str, float]:
        """Wait for the end; images `answered`, requests `refused` and `failed`, latencies."""
        if self._process.wait():
            sys.exit(f"k6 failed: see {self._out.with_suffix('.log')}")
        found: dict[str, float] = json.loads(self._out.read_text())
        return {name: round(value, 1) for name, value in found.items()}


@dataclass
class Harness:
    """The running parts, and the report."""

    report: Report
    replicas: list[Replica]
    worker: Replica  # receives no images: it runs the job on `archive`
    archive: str  # the path as the worker sees it
    receiver: Replica  # receives DICOM, and delivers its results to `pacs`
    pacs: Pacs
    prometheus: observe.Prometheus
    url: str
    key: str
    out: Path
    k6: Path
    said: dict[str, str]
    pictures: bool = False  # whether the dashboards are drawn
    panels_seen: float = 0.0  # when all panels had data; seconds since 1970

    def load(self, name: str, rate: float, seconds: float) -> Load:
        """Start to send."""
        return Load(self.k6, self.said, rate, seconds, self.out / f"{name}.json")

    def jobs(self, path: str = "", data: bytes | None = None) -> Any:
        """The worker's answer about backfill jobs."""
        url = f"http://127.0.0.1:{self.worker.port}/v1/backfills{path}"
        return answer(url, data, self.key)

    def total(self, expr: str) -> float:
        """The sum of an expression's present values."""
        return sum(series.values[-1] for series in self.prometheus.query(expr))

    def firing(self) -> set[str]:
        """The alerts that fire now."""
        found = self.prometheus.query('ALERTS{alertstate="firing"}')
        return {series.labels["alertname"] for series in found}

    def fires(self, alert: str, *, resolved: bool = False) -> None:
        """Expect that an alert starts or stops firing."""
        verb = "is resolved" if resolved else "fires"
        self.comes(lambda: (alert in self.firing()) != resolved, ALERT_SECONDS, f"{alert} {verb}")

    def comes(self, holds: Callable[[], bool], seconds: float, what: str) -> None:
        """Expect that something becomes true within so many seconds."""
        try:
            taken = until(holds, seconds, what)
        except TimeoutError as error:
            self.report.expect(False, str(error))
        else:
            self.report.expect(True, f"{what}, after {taken:.0f} s")
