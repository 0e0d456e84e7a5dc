"""The trials, in their order. Each leaves everything as it found it."""

from __future__ import annotations

import json
import time
from itertools import count

from deploy import observe
from deploy.e2e.scene import Scene
from deploy.e2e.stack import status, token_of, until

# Requests a second, of which a twentieth are archives of three images: two cores do it
USUAL = 12.0
MUCH = 120.0
RANGE_SECONDS = 300.0
BODY = b"no image: who may come in is told that, with 415"
# Images of the job that came to an outcome, and those of them that are no radiographs
OUTCOMES = ('cxrview_backfill_images{state!="found"}', "cxrview_backfill_refused_images")
OUTCOME_SECONDS = 45
OF_GPU = "Empty without a GPU."


def access(scene: Scene) -> None:
    """Who has nothing to show, or not what is needed, does not come in."""
    good = token_of("modality")
    visitor = token_of("visitor")
    asked = {
        "a key": (scene.key, "classify", 415),
        "a token": (good, "classify", 415),
        "a token for backfill": (good, "classify?lane=backfill", 415),
        "nothing": (None, "classify", 401),
        "a wrong key": (scene.key[:-1], "classify", 401),
        "half a token": (good[:-4], "classify", 401),
        "a token without permissions": (visitor, "classify", 403),
        "a key that is not for clients": (scene.key, "clients", 403),
    }
    for who, (shown, path, expected) in asked.items():
        body = None if path == "clients" else BODY
        found = status(f"{scene.url}/v1/{path}", body, shown)
        scene.report.expect(found == expected, f"{who} gets {expected}, got {found}")


def steady(scene: Scene) -> None:
    """A load that two cores can carry: every image is answered, and counted."""
    answered = "sum(cxrview_images_total)"
    before = scene.total(answered)
    result = scene.load("steady", USUAL, 60).result()
    scene.report.note("steady", result)
    scene.report.note("steady_images_per_second", round(result["answered"] / 60, 1))
    scene.report.expect(result["failed"] == 0, "no request failed")
    scene.report.expect(result["refused"] == 0, "none was refused")
    counted = result["answered"]
    try:
        until(lambda: scene.total(answered) - before == counted, 10, "metrics count all images")
    except TimeoutError:
        found = scene.total(answered) - before
        scene.report.expect(False, f"metrics count {counted:g} images, not {found:g}")
    logs = [scene.out / f"{replica.name}.log" for replica in scene.replicas]
    audited = sum(log.read_text().count('"event": "classified"') for log in logs)
    scene.report.expect(audited == counted, f"the audit log has {audited} entries")
    scene.report.expect(not scene.firing(), f"no alert fires: {scene.firing()}")


def panels(scene: Scene) -> None:
    """Every panel of every dashboard has data, while images come and a job is at work."""
    load = scene.load("panels", USUAL, 60)
    job = scene.jobs(data=json.dumps({"source": scene.archive}).encode())["id"]
    # Outcomes are counted by the thousand
    wait = until(
        lambda: all(map(scene.total, OUTCOMES)), OUTCOME_SECONDS, "the job has outcomes, some bad"
    )
    scene.report.note("first_outcomes_seconds", round(wait, 1))
    asked, empty = count(), []
    for name, dashboard in observe.dashboards().items():
        values = observe.variables(
            dashboard, scene.prometheus, {}, range_seconds=RANGE_SECONDS, rate_seconds=15
        )
        for panel in observe.panels(dashboard):
            if OF_GPU in panel.raw["description"]:
                continue
            for query in panel.queries:
                next(asked)
                if not scene.prometheus.query(observe.substituted(query.expr, values)):
                    empty.append(f"{name}: {panel.title}")
    found = scene.jobs(f"/{job}")
    scene.report.note("job", {"counts": found["counts"], "codes": found["codes"]})
    scene.report.expect(found["state"] == "running", "the job is at work until all are asked")
    scene.jobs(f"/{job}/cancel", b"")
    until(lambda: scene.jobs(f"/{job}")["state"] == "cancelled", 30, "the job is cancelled")
    load.result()
    scene.report.expect(not empty, f"all {next(asked)} queries of panels have data: {empty}")


def overload(scene: Scene) -> None:
    """Ten times as much: what is too much is refused, with 503 and Retry-After."""
    load = scene.load("overload", MUCH, 75)
    scene.fires("CxrviewFull")
    result = load.result()
    scene.report.note("overload", result)
    scene.report.expect(result["failed"] == 0, "no request failed")
    scene.report.expect(result["answered"] > 0 < result["refused"], "some are answered, others not")
    scene.fires("CxrviewFull", resolved=True)


def killed(scene: Scene) -> None:
    """A replica is killed: those that it held fail, the others are answered by the other one."""
    replica = scene.replicas[0]
    load = scene.load("killed", USUAL, 60)
    time.sleep(5)
    replica.kill()
    scene.fires("CxrviewDown")
    scene.report.note("restarted_seconds", round(replica.start(), 2))
    scene.fires("CxrviewDown", resolved=True)
    result = load.result()
    scene.report.note("killed", result)
    held = 20
    scene.report.expect(result["failed"] <= held, f"at most {held} of 720 requests failed")


def fallen_back(scene: Scene) -> None:
    """A GPU that is not there: a replica does not start, or falls back if it may, and tells."""
    replica = scene.replicas[1]
    replica.stop()
    code = replica.refused(CXRVIEW_PROVIDER="cuda")
    scene.report.expect(code != 0, f"without a GPU it does not start: {code}")
    replica.start(CXRVIEW_PROVIDER="cuda", CXRVIEW_ALLOW_CPU_FALLBACK="true")
    scene.fires("CxrviewOnCpu")
    replica.stop()
    replica.start()
    scene.fires("CxrviewOnCpu", resolved=True)


def updated(scene: Scene) -> None:
    """A rolling update to another model, under load: no request fails."""
    load = scene.load("updated", USUAL, 45)
    time.sleep(3)
    for replica in scene.replicas:
        begin = time.monotonic()
        scene.report.expect(replica.stop() == 0, f"{replica.name} drains, and ends with 0")
        scene.report.note(f"drained_{replica.name}_seconds", round(time.monotonic() - begin, 1))
        replica.start(CXRVIEW_MODEL="swift/1.1.0")
        time.sleep(2)  # the balancer looks twice a second
    result = load.result()
    scene.report.note("updated", result)
    scene.report.expect(result["failed"] == 0, "no request failed")
    models = {series.labels["name"] for series in scene.prometheus.query("cxrview_model_info == 1")}
    scene.report.expect(models == {"swift"}, f"both serve the new model: {models}")


ALL = (access, steady, panels, overload, killed, fallen_back, updated)
