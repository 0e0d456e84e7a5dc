"""The trials, in their order. Each restores the state that it found."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from itertools import count

from deploy import observe
from deploy.e2e.harness import Harness
from deploy.e2e.pacs import radiographs
from deploy.e2e.stack import status, token_of, until

# Requests a second, 5 % of them archives of three images; two cores can do it
USUAL = 12.0
MUCH = 120.0
RANGE_SECONDS = 300.0
BODY = b"no image: who may come in is told that, with 415"
# Images of the job with an outcome, and those of them that are no radiographs
OUTCOMES = ('cxrview_backfill_images{state!="found"}', "cxrview_backfill_refused_images")
OUTCOME_SECONDS = 45
DRAWN_OUTCOMES, DRAWN_SECONDS = 5000, 40
REPORT_SECONDS = 60
DICOM = "application/dicom"
OF_GPU = "Empty without a GPU."


def access(harness: Harness) -> None:
    """A request without a credential or permission is refused."""
    good = token_of("modality")
    visitor = token_of("visitor")
    asked = {
        "a key": (harness.key, "classify", 415),
        "a token": (good, "classify", 415),
        "a token for backfill": (good, "classify?lane=backfill", 415),
        "nothing": (None, "classify", 401),
        "a wrong key": (harness.key[:-1], "classify", 401),
        "half a token": (good[:-4], "classify", 401),
        "a token without permissions": (visitor, "classify", 403),
        "a key that is not for clients": (harness.key, "clients", 403),
    }
    for who, (shown, path, expected) in asked.items():
        body = None if path == "clients" else BODY
        found = status(f"{harness.url}/v1/{path}", body, shown)
        harness.report.expect(found == expected, f"{who} gets {expected}, got {found}")


def steady(harness: Harness) -> None:
    """Under a load that two cores can carry, every image is answered and counted."""
    answered = "sum(cxrview_images_total)"
    before = harness.total(answered)
    result = harness.load("steady", USUAL, 60).result()
    harness.report.note("steady", result)
    harness.report.note("steady_images_per_second", round(result["answered"] / 60, 1))
    harness.report.expect(result["failed"] == 0, "no request failed")
    harness.report.expect(result["refused"] == 0, "none was refused")
    counted = result["answered"]
    harness.comes(
        lambda: harness.total(answered) - before == counted,
        10,
        f"metrics count {counted:g} images",
    )
    logs = [harness.out / f"{replica.name}.log" for replica in harness.replicas]
    audited = sum(log.read_text().count('"event": "classified"') for log in logs)
    harness.report.expect(audited == counted, f"the audit log has {audited} entries")
    harness.report.expect(not harness.firing(), f"no alert fires: {harness.firing()}")


def dicom(harness: Harness) -> None:
    """A PACS sends by C-STORE and gets one report for each image, also after it was away."""
    pacs, receiver, objects = harness.pacs, harness.receiver, "cxrview_dicom_objects_total"
    images, other = radiographs(8, study=1), radiographs(1, study=2)
    ((uid, image),) = other.items()
    pacs.store(images.values())
    reported = dict.fromkeys(images, 1)
    harness.comes(lambda: pacs.reports() == reported, REPORT_SECONDS, "each image has one report")
    harness.comes(
        lambda: harness.total(f'{objects}{{status="0000"}}') == len(images), 10, "all are counted"
    )
    pacs.stop()
    found = status(f"http://127.0.0.1:{receiver.port}/dicom-web/studies", image, harness.key, DICOM)
    harness.report.expect(found == 200, f"STOW-RS is answered while the PACS is away: {found}")
    harness.fires("CxrviewDestinationAway")
    waiting = harness.total('cxrview_deliveries{state=~"pending|leased"}')
    harness.report.expect(waiting == 1, f"one result waits: {waiting:g}")
    pacs.start()
    reported[uid] = 1
    harness.comes(lambda: pacs.reports() == reported, REPORT_SECONDS, "it has that report, too")
    harness.fires("CxrviewDestinationAway", resolved=True)
    pacs.store(other.values())  # its script sends it, but the receiver knows it
    harness.comes(
        lambda: harness.total(objects) == len(images) + 1, REPORT_SECONDS, "it is accepted again"
    )
    harness.report.expect(pacs.reports() == reported, "no image has a second report")
    harness.report.expect(not pacs.echo("misspelt"), "another called AE title is rejected")
    harness.comes(
        lambda: harness.total('cxrview_dicom_associations_rejected_total{reason="called_ae"}') == 1,
        10,
        "the rejection is counted",
    )


def panels(harness: Harness) -> None:
    """Every panel of every dashboard has data, while images arrive and a job runs."""
    load = harness.load("panels", USUAL, 60)
    job = harness.jobs(data=json.dumps({"source": harness.archive}).encode())["id"]
    # Outcomes are committed by the thousand
    wait = until(
        lambda: all(map(harness.total, OUTCOMES)), OUTCOME_SECONDS, "the job has outcomes, some bad"
    )
    harness.report.note("first_outcomes_seconds", round(wait, 1))
    asked, empty = count(), []
    for name, dashboard in observe.dashboards().items():
        values = observe.variables(
            dashboard, harness.prometheus, {}, range_seconds=RANGE_SECONDS, rate_seconds=15
        )
        for panel in observe.panels(dashboard):
            if OF_GPU in panel.raw["description"]:
                continue
            for query in panel.queries:
                next(asked)
                if not harness.prometheus.query(observe.substituted(query.expr, values)):
                    empty.append(f"{name}: {panel.title}")
    if harness.pictures:
        with suppress(TimeoutError):  # of a slow machine: then with fewer
            until(lambda: harness.total(OUTCOMES[0]) >= DRAWN_OUTCOMES, DRAWN_SECONDS, "to draw")
    harness.panels_seen = time.time()
    found = harness.jobs(f"/{job}")
    harness.report.note("job", {"counts": found["counts"], "codes": found["codes"]})
    harness.report.expect(found["state"] == "running", "the job is at work until all are asked")
    harness.jobs(f"/{job}/cancel", b"")
    until(lambda: harness.jobs(f"/{job}")["state"] == "cancelled", 30, "the job is cancelled")
    load.result()
    harness.report.expect(not empty, f"all {next(asked)} queries of panels have data: {empty}")


def overload(harness: Harness) -> None:
    """At ten times the load, the surplus is refused with 503 and Retry-After."""
    load = harness.load("overload", MUCH, 75)
    harness.fires("CxrviewOverloaded")
    result = load.result()
    harness.report.note("overload", result)
    harness.report.expect(result["failed"] == 0, "no request failed")
    harness.report.expect(
        result["answered"] > 0 < result["refused"], "some are answered, others not"
    )
    harness.fires("CxrviewOverloaded", resolved=True)


def killed(harness: Harness) -> None:
    """When a replica is killed, only its own requests fail; the other replica answers the rest."""
    replica = harness.replicas[0]
    load = harness.load("killed", USUAL, 60)
    time.sleep(5)
    replica.kill()
    harness.fires("CxrviewDown")
    harness.report.note("restarted_seconds", round(replica.start(), 2))
    harness.fires("CxrviewDown", resolved=True)
    result = load.result()
    harness.report.note("killed", result)
    held = 20
    harness.report.expect(result["failed"] <= held, f"at most {held} of 720 requests failed")


def fallen_back(harness: Harness) -> None:
    """Without a GPU a replica does not start, or falls back if allowed, with an alert."""
    replica = harness.replicas[1]
    replica.stop()
    code = replica.refused(CXRVIEW_PROVIDER="cuda")
    harness.report.expect(code != 0, f"without a GPU it does not start: {code}")
    replica.start(CXRVIEW_PROVIDER="cuda", CXRVIEW_ALLOW_CPU_FALLBACK="true")
    harness.fires("CxrviewOnCpu")
    replica.stop()
    replica.start()
    harness.fires("CxrviewOnCpu", resolved=True)


def updated(harness: Harness) -> None:
    """A rolling update to another model, under load: no request fails."""
    load = harness.load("updated", USUAL, 45)
    time.sleep(3)
    for replica in harness.replicas:
        begin = time.monotonic()
        harness.report.expect(replica.stop() == 0, f"{replica.name} drains, and ends with 0")
        harness.report.note(f"drained_{replica.name}_seconds", round(time.monotonic() - begin, 1))
        replica.start(CXRVIEW_MODEL="swift/1.1.0")
        time.sleep(2)  # the balancer looks twice a second
    result = load.result()
    harness.report.note("updated", result)
    harness.report.expect(result["failed"] == 0, "no request failed")
    models = {
        series.labels["name"] for series in harness.prometheus.query("cxrview_model_info == 1")
    }
    harness.report.expect(models == {"swift"}, f"both serve the new model: {models}")


# `dicom` before `panels`, which show what the range of time has
ALL = (access, steady, dicom, panels, overload, killed, fallen_back, updated)
