"""The dashboards: well made, current, and every panel has an answer from a real Prometheus."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import combinations, cycle, pairwise
from pathlib import Path
from threading import Event, Thread
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import needs
import pytest
import yaml
from conftest import DATA, ROOT
from dicom_peer import ASSOCIATE_AC, ASSOCIATE_RJ, peer
from images import BAD, kinds
from receiving import stored

from deploy import observe
from deploy.dashboards import make
from deploy.load_client import offered, send
from docs.pictures import render
from docs.pictures.drawing import Span, shown
from service.dicom.outbox import Entry, Outbox

DASHBOARDS = observe.dashboards()
PANELS = [
    pytest.param(name, panel, id=f"{name}: {panel.title}")
    for name, dashboard in DASHBOARDS.items()
    for panel in observe.panels(dashboard)
]
QUERIES = re.findall(
    r"^\| [^`|]* \| `([^`]*)`", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE
)
SCRAPE_SECONDS, RATE_SECONDS = 0.5, 4
BETWEEN_TIMES = 8  # pixels below a panel, about a digit
JOBS, JOB_IMAGES = 60, 2500  # more than a lease holds, so that there is progress to see
ANSWER_SECONDS = 240  # for all panels together; jobs yield to whatever else a busy machine does
OF_GPU = {"GPU utilisation by pod", "GPU memory by pod"}  # which is not here


@pytest.mark.parametrize("name", make.ALL)
def test_what_is_committed_is_current(name: str) -> None:
    """To write them anew changes nothing: python -m deploy.dashboards.make."""
    assert (observe.DASHBOARDS / f"{name}.json").read_text() == make.text(name)


def test_the_service_knows_nothing_of_them() -> None:
    """What writes them is no part of what is installed."""
    text = "".join(path.read_text() for path in (ROOT / "service").rglob("*.py"))
    assert not re.findall(r"(?:from|import) (?:deploy|grafana)", text)


def test_all_are_there() -> None:
    """As many files as there are dashboards, each with an address and a title of its own."""
    assert DASHBOARDS.keys() == make.ALL.keys()
    for key in ("uid", "title"):
        assert len({dashboard[key] for dashboard in DASHBOARDS.values()}) == len(DASHBOARDS)


@pytest.mark.parametrize("dashboard", DASHBOARDS.values(), ids=DASHBOARDS)
def test_panels_have_numbers_and_places_of_their_own(dashboard: dict[str, Any]) -> None:
    """No id comes twice, none lies on another, none beyond the grid."""
    panels = dashboard["panels"]
    ids = [panel["id"] for panel in panels]
    assert len(set(ids)) == len(ids)
    titles = [panel["title"] for panel in panels]
    assert len(set(titles)) == len(titles)
    for panel in panels:
        place = panel["gridPos"]
        assert place["w"] > 0 < place["h"]
        assert place["x"] >= 0 <= place["y"]
        assert place["x"] + place["w"] <= 24
    for one, other in combinations([panel["gridPos"] for panel in panels], 2):
        assert (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )


@pytest.mark.parametrize("dashboard", DASHBOARDS.values(), ids=DASHBOARDS)
def test_variables_match_series_without_their_label(dashboard: dict[str, Any]) -> None:
    """The data source is chosen; All namespaces are also those that have no such label."""
    variables = {each["name"]: each for each in dashboard["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    for name in ("namespace", "job"):
        assert variables[name]["includeAll"]
        assert variables[name]["multi"]
        assert variables[name]["datasource"]["uid"] == "${datasource}"
    assert re.fullmatch(variables["namespace"]["allValue"], "")
    used = set(re.findall(r"\$(?:{(\w+)|(\w+))", str(dashboard["panels"])))
    known = variables.keys() | {"__rate_interval", "__range"}
    assert {one or other for one, other in used} <= known


@pytest.mark.parametrize(("name", "panel"), PANELS)
def test_a_panel_explains_itself(name: str, panel: observe.Panel) -> None:
    """Title, sentence, unit, source; legends that tell lines apart; namespaces chosen."""
    raw = panel.raw
    assert panel.title
    assert raw["description"].endswith(".")
    assert raw["fieldConfig"]["defaults"]["unit"]
    assert raw["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    refs = [query.ref for query in panel.queries]
    assert all(refs)
    assert len(set(refs)) == len(refs)
    for query, target in zip(panel.queries, raw["targets"], strict=True):
        assert target["datasource"] == raw["datasource"]
        assert query.expr.count('namespace=~"$namespace"') == query.expr.count("{")
        assert panel.kind != "timeseries" or query.legend
    windows = re.findall(r"rate\([^\[]*\[([^\]]*)\]", " ".join(q.expr for q in panel.queries))
    assert set(windows) <= {"$__rate_interval", "5m", "1h"}


@pytest.mark.parametrize(("name", "panel"), PANELS)
def test_a_panel_asks_for_metrics_that_exist(name: str, panel: observe.Panel) -> None:
    """Of docs/metrics.md, of the recording rules, of the Prometheus client, or of the GPU."""
    text = observe.RULES.read_text()
    known = set(re.findall(r"^\| `(\w+)`", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE))
    known |= set(re.findall(r"record: (\S+)", text))
    known |= {"up", "process_cpu_seconds_total", "process_resident_memory_bytes"}
    for query in panel.queries:
        for asked in re.findall(r"([\w:]+){", query.expr):
            plain = re.sub("_(bucket|sum|count)$", "", asked)
            assert plain in known or asked in known or panel.title in OF_GPU, asked


@pytest.mark.parametrize(("name", "panel"), PANELS)
def test_a_panel_leads_to_the_runbook(name: str, panel: observe.Panel) -> None:
    """Its links go to sections that are there."""
    runbook = (ROOT / "deploy" / "runbook.md").read_text()
    sections = [found.lower() for found in re.findall("^## (.*)$", runbook, re.MULTILINE)]
    for link in panel.raw.get("links", []):
        address, section = link["url"].split("#")
        assert address == "${runbook:raw}"
        assert section in sections


def test_every_alert_has_a_panel() -> None:
    """A panel shows the cause of each alert, except that of certificates."""
    runbook = (ROOT / "deploy" / "runbook.md").read_text()
    sections = set(re.findall("^## Cxrview(.*)$", runbook, re.MULTILINE))
    linked = set(re.findall(r"Runbook: Cxrview(\w+)", str(DASHBOARDS)))
    assert sections - linked == {"CertificateExpires"}


def test_images_of_jobs_are_no_part_of_the_capacity() -> None:
    """It is measured by admission, which jobs do not pass: they would be 400 % of a first guess."""
    panels = observe.panels(DASHBOARDS["throughput"])
    (load,) = (panel for panel in panels if panel.title == "Images/s, of the capacity")
    (query,) = load.queries
    part, _, capacity = query.expr.partition(" / ")
    assert "cxrview_capacity_images_per_second" in capacity
    assert 'source!="backfills"' in part


def test_what_needs_a_gpu_says_so() -> None:
    """Those panels, and no other, may have no data here."""
    empty = "Empty without a GPU."
    panels = [panel for dashboard in DASHBOARDS.values() for panel in observe.panels(dashboard)]
    assert {panel.title for panel in panels if empty in panel.raw["description"]} == OF_GPU


def archive(folder: Path) -> Path:
    """Files of all kinds, again and again: work for jobs."""
    folder.mkdir()
    files = kinds(DATA) | BAD
    for number, (name, data) in zip(range(JOB_IMAGES), cycle(files.items()), strict=False):
        (folder / f"{number:05d}-{name}").write_bytes(data)
    return folder


def destinations(folder: Path) -> Path:
    """One that is away, and a result for it: it is tried again and again."""
    (folder / "secret").write_text("0123456789abcdef")
    path = folder / "destinations.toml"
    path.write_text(
        '[destinations.away]\nkind = "webhook"\nurl = "http://127.0.0.1:1"\n'
        'secret_file = "secret"\nmax_delay_seconds = 1\n'
    )
    outbox = Outbox(f"sqlite:///{folder}/outbox.sqlite")
    outbox.put("1.2", "swift/1.0.0", "{}", [Entry("away", b'{"id": "1"}')])
    outbox.close()
    return path


@contextmanager
def modality(port: int) -> Iterator[None]:
    """Sends a radiograph each second by C-STORE, and calls another AE title, until the end."""
    image, stop, wrong = stored(1), Event(), []

    def send_some() -> None:
        while not stop.wait(1):
            with peer(port) as other:
                if other.associate(image.context, called="OTHER")[0] != ASSOCIATE_RJ:
                    wrong.append("accepted")
            with peer(port) as ours:
                if ours.associate(image.context)[0] != ASSOCIATE_AC:
                    wrong.append("rejected")
                ours.store(image)
                ours.release()

    sender = Thread(target=send_some)
    sender.start()
    try:
        yield
    finally:
        stop.set()
        sender.join()
    assert not wrong


@contextmanager
def serving(folder: Path, port: int, dicom_port: int) -> Iterator[str]:
    """The real service on ports of its own, with a folder of jobs."""
    command = [sys.executable, "-m", "service.cli", "serve", "--port", str(port)]
    command += ["--dicom-port", str(dicom_port)]
    environment = {
        "CXRVIEW_MODEL": "swift/1.0.0",
        "CXRVIEW_BACKFILL_FOLDER": str(folder / "jobs"),
        "CXRVIEW_BACKFILL_SOURCES": str(archive(folder / "archive")),
        "CXRVIEW_DESTINATIONS": str(destinations(folder)),
        "PYTHONPATH": str(ROOT),
    }
    with (
        (folder / "service.log").open("wb") as said,
        subprocess.Popen(command, env=environment, stdout=said, stderr=said, cwd=ROOT) as process,
    ):
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


class Watched(NamedTuple):
    """What scrapes the service, and what may be chosen there."""

    sources: list[tuple[observe.Prometheus, dict[str, str]]]
    deadline: float

    def until(self, holds: Callable[[], object]) -> None:
        while not holds():
            assert time.monotonic() < self.deadline
            time.sleep(0.1)

    def values(self, name: str, place: int, namespace: str | None = None) -> dict[str, str]:
        source, chosen = self.sources[place]
        limits = {"range_seconds": 60, "rate_seconds": RATE_SECONDS}
        chosen = {"namespace": namespace} if namespace else chosen
        return observe.variables(DASHBOARDS[name], source, chosen, **limits)


@pytest.fixture(scope="module")
def watched(tmp_path_factory) -> Iterator[Watched]:
    """Prometheus 2 as outside of Kubernetes, 3 as within it, while the service gets all kinds."""
    port, dicom_port = observe.free_port(), observe.free_port()
    with ExitStack() as stack:
        try:
            sources = []
            for version, labels in ((2, {}), (3, {"namespace": "x-ray"})):
                folder = tmp_path_factory.mktemp(f"prometheus-{version}")
                running = scraping(version, labels, folder, port)
                sources.append((stack.enter_context(running), labels))
        except observe.NoToolError:
            pytest.skip(needs.TOOLS)
        folder = tmp_path_factory.mktemp("service")
        url = stack.enter_context(serving(folder, port, dicom_port))
        found = Watched(sources, time.monotonic() + ANSWER_SECONDS)
        found.until(lambda: sources[0][0].query("up == 1"))
        job = json.dumps({"source": str(folder / "archive")}).encode()
        for _ in range(JOBS):  # one after another, so that there is always one at work
            assert send(f"{url}/v1/backfills", job) == 202
        stack.enter_context(modality(dicom_port))
        counts = stack.enter_context(offered(url, kinds(DATA) | BAD))
        yield found
    assert {status for _, status in counts} == {200, 415, 422}


@contextmanager
def scraping(
    version: int, labels: dict[str, str], folder: Path, port: int
) -> Iterator[observe.Prometheus]:
    """One Prometheus with a past."""
    promtool = observe.tool(f"prometheus-{version}/promtool")
    observe.write_history(promtool, folder, observe.usual_shares(), labels)
    with observe.prometheus(
        observe.tool(f"prometheus-{version}/prometheus"),
        folder,
        [f"127.0.0.1:{port}"],
        scrape_seconds=SCRAPE_SECONDS,
        labels=labels,
    ) as running:
        yield running


def answers(panel: observe.Panel, source: observe.Prometheus, values: dict[str, str]) -> bool:
    """Whether every query of a panel finds a number."""
    return all(source.query(observe.substituted(q.expr, values)) for q in panel.queries)


@pytest.mark.parametrize("place", [0, 1], ids=["no namespace", "one namespace"])
@pytest.mark.parametrize(("name", "panel"), PANELS)
def test_a_panel_has_data(name: str, panel: observe.Panel, place: int, watched: Watched) -> None:
    """With All where no series has a namespace, and with the one that is chosen."""
    source, _ = watched.sources[place]
    values = watched.values(name, place)
    if panel.title not in OF_GPU:
        watched.until(lambda: answers(panel, source, values))


def test_another_namespace_has_none(watched: Watched) -> None:
    """What is chosen counts, in every query."""
    source, _ = watched.sources[1]
    for name, dashboard in DASHBOARDS.items():
        values = watched.values(name, 1, "other")
        for panel in observe.panels(dashboard):
            for query in panel.queries:
                assert not source.query(observe.substituted(query.expr, values)), (name, query)


def test_rules_record(watched: Watched) -> None:
    """Each of the chart's recording rules has a value within the namespace."""
    source, _ = watched.sources[1]
    rules = yaml.safe_load(observe.RULES.read_text())
    records = {
        rule["record"] for group in rules["groups"] for rule in group["rules"] if "record" in rule
    }
    for record in sorted(records):
        watched.until(lambda record=record: source.query(f'{record}{{namespace="x-ray"}}'))


@pytest.mark.parametrize("query", QUERIES)
def test_what_the_documentation_asks_has_an_answer(query: str, watched: Watched) -> None:
    """Each query of docs/metrics.md."""
    watched.until(lambda: watched.sources[0][0].query(query))


@pytest.mark.parametrize("name", make.ALL)
def test_a_dashboard_is_drawn(name: str, watched: Watched) -> None:
    """Every panel has its title and something to show; those of a GPU say that they have not.

    The times below a panel are apart, however narrow it is.
    """
    source, _ = watched.sources[0]
    now = time.time()
    span = Span(source, now - 60, now, watched.values(name, 0))
    figure = render.draw(DASHBOARDS[name], span)
    titles = {panel.title for panel in observe.panels(DASHBOARDS[name])}
    assert titles <= {text.get_text() for text in figure.texts}
    said = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert "no data" not in said
    assert said.count("no data without a GPU") == len(titles & OF_GPU)
    figure.canvas.draw()
    for axes in figure.axes:
        labels = [each for each in axes.get_xticklabels() if each.get_text()]
        for one, following in pairwise(each.get_window_extent() for each in labels):
            assert one.x1 + BETWEEN_TIMES < following.x0, axes.get_position()
    plt.close(figure)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0465, "percentunit", "4.65 %"),
        (0.0909, "s", "90.9 ms"),
        (0, "s", "0 s"),
        (1700, "s", "28 min"),
        (36000, "s", "10.0 h"),
        (268435456, "bytes", "256 MiB"),
        (1536, "Bps", "1.5 KiB/s"),
        (64.61, "suffix: images/s", "64.6 images/s"),
        (3009.4, "short", "3,009"),
    ],
)
def test_values_are_written_with_their_units(value: float, unit: str, text: str) -> None:
    """As Grafana writes them, nearly."""
    assert shown(value, unit) == text


def test_a_wrong_query_is_told_in_the_words_of_prometheus(watched: Watched) -> None:
    """Not taken for a query that finds nothing."""
    with pytest.raises(observe.QueryError, match="parse error"):
        watched.sources[0][0].query("sum(")


def test_a_prometheus_that_does_not_start_says_why(tmp_path: Path) -> None:
    """Here its data would lie where a file is."""
    (tmp_path / "data").write_text("in the way")
    try:
        binary = observe.tool("prometheus-3/prometheus")
    except observe.NoToolError:
        pytest.skip(needs.TOOLS)
    with (
        pytest.raises(RuntimeError, match="not a directory"),
        observe.prometheus(binary, tmp_path, []),
    ):
        pass
