"""End-to-end test, as in a cluster: replicas behind a balancer, Prometheus, load, and faults.

    make e2e

It runs two replicas of the image on a read-only root, a third for a backfill job, and a fourth that
receives DICOM from an Orthanc. It sends radiographs with keys and tokens, runs all queries of the
dashboards, and injects faults: a PACS that is away, overload, a killed replica, a missing GPU, a
rolling update. Alerts must fire, and be resolved after the
fault. The durations in the rules are divided by `HURRY`, so that an alert with ten minutes fires in
half a minute. Writes report.json and all logs into the folder of --out, and exits with 1 if an
expectation fails. With --pictures it also draws the dashboards there, up to the trial `panels`.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import sys
import time
import zipfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from PIL import Image

from deploy import observe
from deploy.e2e import trials
from deploy.e2e.harness import Harness, Report
from deploy.e2e.pacs import DESTINATIONS, Pacs
from deploy.e2e.stack import Place, Replica, balancer, identity_provider, status, token_of, until
from docs.pictures import render
from service.api.auth.keys import new_key
from tests.images import BAD, Array, dicom, kinds

ROOT = Path(__file__).parent.parent.parent
DATA = ROOT / "tests" / "data"
HURRY = 20
SCRAPE_SECONDS = 0.75  # 15 s, divided by HURRY
PROMETHEUS_PORT = 18090
# One core answers at most a thousand a second; the queries of all panels take a few seconds
ARCHIVE_IMAGES, DAMAGED_EVERY = 20_000, 50


def main() -> int:
    """Run it; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="a folder for logs and report")
    parser.add_argument("--tools", type=Path, required=True, help="a folder with k6 and nanoidp")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=[trial.__name__ for trial in trials.ALL],
        help="run these trials; default: all",
    )
    parser.add_argument("--pictures", action="store_true", help="draw the dashboards")
    options = parser.parse_args()
    if shutil.which("haproxy") is None:
        print("error: haproxy is not installed", file=sys.stderr)
        return 2
    out: Path = options.out.resolve()
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    begin, began, report = time.monotonic(), time.time(), Report()
    with ExitStack() as stack:
        harness = prepared(report, out, options.tools.resolve(), stack)
        harness.pictures = options.pictures
        for trial in trials.ALL:
            if options.only and trial.__name__ not in options.only:
                continue
            print(f"{trial.__name__}: {trial.__doc__}", flush=True)
            trial(harness)
        if options.pictures:
            draw_dashboards(harness, began)
        for replica in (*harness.replicas, harness.worker, harness.receiver):
            report.expect(replica.stop() == 0, f"{replica.name} ends with 0")
    report.note("seconds", round(time.monotonic() - begin))
    (out / "report.json").write_text(json.dumps({"wrong": report.wrong} | report.found, indent=2))
    return 1 if report.wrong else 0


def draw_dashboards(harness: Harness, began: float) -> None:
    """From the start of the run to the moment in which all panels had data."""
    end = harness.panels_seen or time.time()
    render.write(
        harness.prometheus,
        harness.out,
        end=end,
        seconds=end - began,
        scrape_seconds=5 * SCRAPE_SECONDS,  # lines of a rate over 15 s
        images=str(ARCHIVE_IMAGES),
    )


def prepared(report: Report, out: Path, tools: Path, stack: ExitStack) -> Harness:
    """Keys, files, replicas, balancer, identity provider and Prometheus, until all are ready."""
    sealed = os.environ.get("SEALED")
    folder = Path(os.environ["SECRETS"]) if sealed else out
    place = Place(folder, Path(sealed) if sealed else None)
    key, line = new_key("pacs", frozenset({"classify", "backfill"}))
    (folder / "keys").write_text(line)
    (folder / "audit-key").write_bytes(secrets.token_bytes(32))
    replicas = [
        Replica(name, place, port, out / f"{name}.log")
        for name, port in (("a", 18001), ("b", 18011))
    ]
    write_archive(folder / "archive")
    worker = Replica("jobs", place, 18021, out / "jobs.log", settings_of_jobs(place))
    own = settings_of_receiver(place)
    receiver = Replica("dicom", place, 18031, out / "dicom.log", own, dicom_port=18033)
    pods = [*replicas, worker, receiver]
    pacs = Pacs(out / "orthanc", 18033)
    stack.callback(pacs.stop)
    pacs.start()
    stack.enter_context(identity_provider(tools / "nanoidp", out / "idp"))
    for replica in pods:
        stack.callback(replica.kill)
    report.note("ready_seconds", [round(replica.start(), 2) for replica in pods])
    url = stack.enter_context(balancer(replicas, out))
    logs = out / "prometheus"
    logs.mkdir()
    # Panels and alerts that compare with the mean of a week need one
    promtool = observe.tool("prometheus-3/promtool")
    observe.write_history(promtool, logs, observe.usual_shares(), {})
    prometheus = stack.enter_context(
        observe.prometheus(
            observe.tool("prometheus-3/prometheus"),
            logs,
            [replica.target for replica in pods],
            port=PROMETHEUS_PORT,
            scrape_seconds=SCRAPE_SECONDS,
            hurry=HURRY,
        )
    )
    until(lambda: status(f"{url}/v1/model", token=key) == 200, 10, "the balancer finds a replica")
    # What was counted before the first scrape is no increase
    until(lambda: len(prometheus.query("up == 1")) == len(pods), 10, "all pods are scraped")
    good, bad, archive = images(out)
    said = {
        "URL": url,
        "KEYS": json.dumps([key, token_of("modality")]),
        "GOOD": json.dumps(good),
        "BAD": json.dumps(bad),
        "ARCHIVE": str(archive),
    }
    return Harness(
        report=report,
        replicas=replicas,
        worker=worker,
        archive=place.file("archive"),
        receiver=receiver,
        pacs=pacs,
        prometheus=prometheus,
        url=url,
        key=key,
        out=out,
        k6=tools / "k6",
        said=said,
    )


def settings_of_jobs(place: Place) -> dict[str, str]:
    """Settings of a pod with backfill jobs: a model, one core, and its own volume."""
    return {
        "CXRVIEW_MODEL": "swift/1.1.0",
        "CXRVIEW_DECODE_WORKERS": "1",
        "CXRVIEW_BACKFILL_FOLDER": place.writable("jobs"),
        "CXRVIEW_BACKFILL_SOURCES": place.file("archive"),
    }


def settings_of_receiver(place: Place) -> dict[str, str]:
    """Settings of a pod that receives DICOM: one core, destinations, and its own volume."""
    (place.secrets / "destinations.toml").write_text(DESTINATIONS)
    return {
        "CXRVIEW_MODEL": "swift/1.1.0",
        "CXRVIEW_DECODE_WORKERS": "1",
        "CXRVIEW_DESTINATIONS": place.file("destinations.toml"),
        "CXRVIEW_OUTBOX": f"sqlite:///{place.writable('outbox')}/outbox.sqlite",
        "CXRVIEW_DICOM_CALLERS": "ORTHANC@127.0.0.0/8",
    }


def write_archive(folder: Path) -> None:
    """More small radiographs than the job processes; each has its UID, some are damaged."""
    folder.mkdir()
    first = "1.2.826.0.1.3680043.8.498.1000000"
    views = {"frontal-0003": "PA", "frontal-0048": "PA", "lateral-0010": "LL"}
    some = [
        dicom(
            small(DATA / f"{name}.jpg"),
            ViewPosition=view,
            SOPInstanceUID=first,
            MediaStorageSOPInstanceUID=first,
        )
        for name, view in views.items()
    ]
    for number in range(ARCHIVE_IMAGES):
        data = some[number % len(some)].replace(
            first.encode(), f"{first[:-7]}{1_000_000 + number}".encode()
        )
        if number % DAMAGED_EVERY == 0:
            data = data[: len(data) // 2]
        (folder / f"{number:05d}.dcm").write_bytes(data)


def small(path: Path) -> Array:
    """The pixels of a picture, reduced so that an archive of them is written in seconds."""
    with Image.open(path) as opened:
        return np.asarray(opened.convert("L").resize((64, 64)))


def images(out: Path) -> tuple[list[str], list[str], Path]:
    """Paths of radiographs in all formats, of other files, and of a zip of three radiographs."""
    made = kinds(DATA)
    for name, data in (made | BAD).items():
        (out / name).write_bytes(data)
    archive = out / "images.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for name in list(made)[:3]:
            file.write(out / name, name)
    return [str(out / name) for name in made], [str(out / name) for name in BAD], archive


if __name__ == "__main__":
    sys.exit(main())
