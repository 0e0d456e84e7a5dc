"""A real Prometheus: start it, query it, and run the queries of a dashboard.

Standard library and PyYAML only. The binaries are in the folder CXRVIEW_TOOLS, which `.ci/tools
FOLDER` fills.
"""

from __future__ import annotations

import json
import math
import os
import re
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).parent.parent
RULES = ROOT / "helm" / "cxrview" / "files" / "rules.yaml"
DASHBOARDS = ROOT / "helm" / "cxrview" / "files" / "dashboards"
READY_SECONDS = 30
POLL_SECONDS = 0.05
DAY_SECONDS = 86_400
MILLISECONDS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


class NoToolError(Exception):
    """An external program is missing."""


class QueryError(Exception):
    """Prometheus does not accept an expression."""


class Series(NamedTuple):
    """The values of one series at some times, without those that are no number."""

    labels: dict[str, str]
    times: list[float]
    values: list[float]


@dataclass(frozen=True)
class Query:
    """One query of a panel."""

    ref: str
    expr: str
    legend: str
    instant: bool

    def name_of(self, series: Series) -> str:
        """The legend of one series, as Grafana fills it in."""
        return re.sub(
            r"{{\s*(\w+)\s*}}", lambda label: series.labels.get(label[1], ""), self.legend
        ).strip()


@dataclass(frozen=True)
class Panel:
    """One panel of a dashboard, with its queries."""

    title: str
    kind: str
    queries: tuple[Query, ...]
    raw: dict[str, Any]


def tool(name: str) -> Path:
    """One program, such as `prometheus-3/promtool`.

    Raises:
        NoToolError: It is missing.
    """
    folder = os.environ.get("CXRVIEW_TOOLS")
    if folder and (path := Path(folder) / name).is_file():
        return path
    raise NoToolError(f"no {name}: run .ci/tools FOLDER, and set CXRVIEW_TOOLS to it")


class Prometheus:
    """A running Prometheus at `url`."""

    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str, **parameters: str | float) -> Any:
        """The `data` of one answer of the HTTP API.

        Raises:
            QueryError: With the message of Prometheus.
        """
        address = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(address, timeout=30) as response:
                return json.load(response)["data"]
        except urllib.error.HTTPError as error:
            raise QueryError(json.load(error)["error"]) from error

    def query(self, expr: str) -> list[Series]:
        """The present values of `expr`, without series that are no number."""
        found = self.get("query", query=expr)
        if found["resultType"] == "scalar":
            return _series([{"metric": {}, "values": [found["result"]]}])
        return _series([each | {"values": [each["value"]]} for each in found["result"]])

    def query_range(self, expr: str, start: float, end: float, step: float) -> list[Series]:
        """The values of `expr` from `start` to `end`, seconds since 1970, every `step` seconds."""
        found = self.get("query_range", query=expr, start=start, end=end, step=step)
        return _series(found["result"])

    def values_of(self, label: str, selector: str) -> list[str]:
        """The values of a label, as `label_values` of Grafana finds them."""
        parameters: dict[str, str | float] = {"match[]": selector, "start": time.time() - 3600}
        found: list[str] = self.get(f"label/{label}/values", **parameters)
        return found

    @property
    def ready(self) -> bool:
        """Whether it answers."""
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=1):
                return True
        except OSError:
            return False


def _series(results: list[dict[str, Any]]) -> list[Series]:
    found = []
    for result in results:
        samples = [(when, float(value)) for when, value in result["values"]]
        samples = [(when, value) for when, value in samples if not math.isnan(value)]
        if samples:
            times, values = zip(*samples, strict=True)
            found.append(Series(result["metric"], list(times), list(values)))
    return found


def free_port(wanted: int = 0) -> int:
    """This port, or any free port for 0; a port in use is an OSError."""
    with socket.create_server(("127.0.0.1", wanted)) as server:
        port: int = server.getsockname()[1]
        return port


@contextmanager
def prometheus(
    binary: Path,
    folder: Path,
    targets: Sequence[str],
    *,
    port: int = 0,
    scrape_seconds: float = 1,
    labels: Mapping[str, str] | None = None,
    hurry: int = 1,
) -> Iterator[Prometheus]:
    """Run a Prometheus with the chart's rules during the block.

    Args:
        binary: Prometheus 2 or 3.
        folder: Its folder; `folder/data` may hold series already.
        targets: `host:port` of services whose /metrics is scraped, as the job `cxrview`.
        port: On the loopback address; 0: any free port.
        scrape_seconds: Seconds between scrapes, and between evaluations of the rules.
        labels: Further labels of all series, such as `namespace` in Kubernetes.
        hurry: All durations in the rules are divided by it.

    Raises:
        RuntimeError: It does not start; with its log.
        OSError: The port is in use.
    """
    port = free_port(port)  # another process on this port would answer instead
    config = _configured(folder, targets, scrape_seconds, labels or {}, hurry)
    command = [str(binary), f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"]
    command.append(f"--web.listen-address=127.0.0.1:{port}")
    said = folder / "log"
    with said.open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            found = Prometheus(f"http://127.0.0.1:{port}")
            deadline = time.monotonic() + READY_SECONDS
            while not found.ready:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"Prometheus does not start:\n{said.read_text()[-2000:]}")
                time.sleep(POLL_SECONDS)
            yield found
        finally:
            process.terminate()


def _configured(
    folder: Path, targets: Sequence[str], seconds: float, labels: Mapping[str, str], hurry: int
) -> Path:
    interval = f"{round(seconds * 1000)}ms"
    rules = hurried(yaml.safe_load(RULES.read_text()), hurry)
    for group in rules["groups"]:
        group["interval"] = interval
    (folder / "rules.yaml").write_text(yaml.safe_dump(rules))
    static = {"targets": list(targets), "labels": dict(labels)}
    config = {
        "global": {"scrape_interval": interval, "scrape_timeout": interval},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [{"job_name": "cxrview", "static_configs": [static]}],
    }
    path = folder / "prometheus.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def hurried(rules: dict[str, Any], hurry: int) -> dict[str, Any]:
    """These rules, with all durations divided by `hurry`."""

    def shorter(found: re.Match[str]) -> str:
        return f"{round(int(found[1]) * MILLISECONDS[found[2]] / hurry)}ms"

    for rule in (rule for group in rules["groups"] for rule in group["rules"]):
        # A duration is in brackets or after `offset`; elsewhere, 1d is none
        duration = r"(?<=[\[ ])(\d+)([smhd])\b(?=\]|\)| |$)"
        rule["expr"] = re.sub(duration, shorter, rule["expr"])
        if "for" in rule:
            rule["for"] = re.sub(r"^(\d+)([smhd])$", shorter, rule["for"])
    return rules


def write_history(
    promtool: Path,
    folder: Path,
    series: Mapping[str, Mapping[float, float]],
    labels: Mapping[str, str],
) -> None:
    """Write history for a Prometheus before its start: gauges by name, values by time."""
    named = ",".join(f'{label}="{value}"' for label, value in labels.items())
    lines = []
    for name, samples in series.items():
        lines.append(f"# TYPE {name} gauge")
        lines += [f"{name}{{{named}}} {value} {when}" for when, value in samples.items()]
    text = folder / "history"
    text.write_text("\n".join([*lines, "# EOF\n"]))
    command = [str(promtool), "tsdb", "create-blocks-from", "openmetrics"]
    command += ["--max-block-duration=24h", str(text), str(folder / "data")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def usual_shares() -> dict[str, dict[float, float]]:
    """A day of recorded shares up to an hour ago, as of a running service."""
    now = time.time()
    times = [now - DAY_SECONDS + 300 * each for each in range(DAY_SECONDS // 300 - 12)]
    shares = {"cxrview:frontal_share:rate6h": 0.6, "cxrview:pfi_middle_share:rate6h": 0.02}
    return {name: dict.fromkeys(times, share) for name, share in shares.items()}


def dashboards() -> dict[str, dict[str, Any]]:
    """The dashboards of the chart, by file name."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(DASHBOARDS.glob("*.json"))}


def panels(dashboard: Mapping[str, Any]) -> list[Panel]:
    """All panels with queries, in their order."""
    return [
        Panel(raw["title"], raw["type"], tuple(map(_query, raw["targets"])), raw)
        for raw in dashboard["panels"]
        if raw.get("targets")
    ]


def _query(raw: Mapping[str, Any]) -> Query:
    return Query(raw["refId"], raw["expr"], raw.get("legendFormat", ""), raw.get("instant", False))


def variables(
    dashboard: Mapping[str, Any],
    source: Prometheus,
    chosen: Mapping[str, str],
    *,
    range_seconds: float,
    rate_seconds: float,
) -> dict[str, str]:
    """The values of a dashboard's variables: those `chosen`, or else Grafana's defaults.

    "All" is the variable's own expression, or else all values found.
    """
    values = {
        "__range": f"{math.ceil(range_seconds)}s",
        "__rate_interval": f"{math.ceil(rate_seconds)}s",
    } | dict(chosen)
    for variable in dashboard["templating"]["list"]:
        name = variable["name"]
        if name in chosen or variable["type"] == "datasource":
            continue
        if variable["type"] == "query":
            values[name] = variable.get("allValue") or _all_values(
                substituted(variable["query"], values), source
            )
        else:
            values[name] = variable["query"]
    return values


def _all_values(query: str, source: Prometheus) -> str:
    found = re.fullmatch(r"label_values\((.+),\s*(\w+)\)", query)
    if not found:
        raise ValueError(f"not label_values(selector, label): {query}")
    escaped = "|".join(map(re.escape, source.values_of(found[2], found[1])))
    return escaped.replace("\\", "\\\\")  # it stands within a string


def substituted(text: str, values: Mapping[str, str]) -> str:
    """`text` with `$name` and `${name}` replaced; an unknown name is a KeyError."""
    return re.sub(
        r"\$(?:{(\w+)(?::\w+)?}|([A-Za-z_]\w*))", lambda name: values[name[1] or name[2]], text
    )
