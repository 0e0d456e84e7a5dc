"""A real Prometheus: start it, ask it, and ask it what the panels of a dashboard ask.

Standard library and PyYAML only. Binaries come from the folder that CXRVIEW_TOOLS names, which
`.ci/tools FOLDER` fills.
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
    """A program that is not part of this project is not there."""


class QueryError(Exception):
    """Prometheus does not accept an expression."""


class Series(NamedTuple):
    """What one series of labels was at some times, without what is not a number."""

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
    """One panel of a dashboard, with what it asks."""

    title: str
    kind: str
    queries: tuple[Query, ...]
    raw: dict[str, Any]


def tool(name: str) -> Path:
    """One program, such as `prometheus-3/promtool`.

    Raises:
        NoToolError: It is not there.
    """
    folder = os.environ.get("CXRVIEW_TOOLS")
    if folder and (path := Path(folder) / name).is_file():
        return path
    raise NoToolError(f"no {name}: run .ci/tools FOLDER, and set CXRVIEW_TOOLS to it")


class Prometheus:
    """One that runs, at `url`."""

    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str, **parameters: str | float) -> Any:
        """The `data` of one answer of its HTTP API.

        Raises:
            QueryError: With its own words.
        """
        address = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(address, timeout=30) as response:
                return json.load(response)["data"]
        except urllib.error.HTTPError as error:
            raise QueryError(json.load(error)["error"]) from error

    def query(self, expr: str) -> list[Series]:
        """What `expr` is now; a series that is not a number is left out."""
        found = self.get("query", query=expr)
        if found["resultType"] == "scalar":
            return _series([{"metric": {}, "values": [found["result"]]}])
        return _series([each | {"values": [each["value"]]} for each in found["result"]])

    def query_range(self, expr: str, start: float, end: float, step: float) -> list[Series]:
        """What `expr` was, from `start` to `end`, in seconds since 1970, every `step` seconds."""
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
    """This port, or with 0 any; one that is taken is an OSError."""
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
    """Start one with the chart's rules, stop it in the end.

    Args:
        binary: Prometheus 2 or 3.
        folder: Its own; series may lie in `folder/data` already.
        targets: `host:port` of services whose /metrics is scraped, as the job `cxrview`.
        port: On the loopback address; 0: any that is free.
        scrape_seconds: Between scrapes, and between evaluations of the rules.
        labels: Beside those that a scrape gives, such as `namespace` in Kubernetes.
        hurry: In the rules, time runs so many times as fast: all durations are divided by it.

    Raises:
        RuntimeError: It does not start; with its own words.
        OSError: The port is not free.
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
    """These rules, with all their durations divided."""

    def shorter(found: re.Match[str]) -> str:
        return f"{round(int(found[1]) * MILLISECONDS[found[2]] / hurry)}ms"

    for rule in (rule for group in rules["groups"] for rule in group["rules"]):
        # Within brackets, or after `offset`; elsewhere, 1d is no duration
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
    """Give a Prometheus that does not run yet a past: gauges by name, values by time."""
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
    """A day of the recorded shares, up to an hour ago, as if the service had run."""
    now = time.time()
    times = [now - DAY_SECONDS + 300 * each for each in range(DAY_SECONDS // 300 - 12)]
    shares = {"cxrview:frontal_share:rate6h": 0.6, "cxrview:pfi_middle_share:rate6h": 0.02}
    return {name: dict.fromkeys(times, share) for name, share in shares.items()}


def dashboards() -> dict[str, dict[str, Any]]:
    """Those of the chart, by the name of their file."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(DASHBOARDS.glob("*.json"))}


def panels(dashboard: Mapping[str, Any]) -> list[Panel]:
    """All that ask something, in the order in which they are shown."""
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
    """What a dashboard's variables stand for: what is `chosen`, else what Grafana begins with.

    "All" is the variable's own expression for it, or else all values that are found.
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
    """With `$name` and `${name}` replaced; an unknown name is a KeyError."""
    return re.sub(
        r"\$(?:{(\w+)(?::\w+)?}|([A-Za-z_]\w*))", lambda name: values[name[1] or name[2]], text
    )
