"""Backfill: progress of an archive, as a job or sent through the lane `backfill`."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.dashboards.parts import (
    IMAGES,
    Row,
    ask,
    lines,
    number,
    of,
    percentile,
    present,
    rate,
    share,
    sheet,
    textbox,
)
from deploy.dashboards.throughput import BUDGET, INTERACTIVE

BACKFILL = 'lane="backfill"'
SENT = f'{BACKFILL}, source!="backfills"'  # jobs have panels of their own
DONE = f"sum(increase({of('cxrview_images_total', SENT)}[$__range]))"
SPEED = rate("cxrview_images_total", SENT, window="5m")
STATES = "cxrview_backfill_images"  # of the job at work
SETTLES, STOPS = 'state!="found"', 'state="stopped"'
FOUND = "sum(" + of(STATES, 'state="found"') + ")"
SETTLED = f"sum({of(STATES, SETTLES)})"
JOB_SPEED = rate(STATES, SETTLES, window="5m")


def backfill() -> Dashboard:
    """For operators of a backfill."""
    images = textbox("images", "Images in the archive", "100000")
    images.description("Images of the archive; progress and remaining time follow from it.")
    return sheet(
        "cxrview-backfill",
        "cxrview: backfill",
        "Progress of an archive: a job of the service, or images sent through the lane"
        " `backfill`. For the latter, choose a range that begins with the sending.",
        [
            ("Archive jobs", _jobs()),
            ("What is sent through the lane", _progress()),
            ("Speed", _speed()),
            ("Beside it", _beside()),
        ],
        since="now-24h",
        extra=[images],
    )


def _jobs() -> list[Row]:
    return [_job_numbers(), _job_lines()]


def _job_numbers() -> Row:
    part = number(
        "Job: share done",
        "Share of the images found so far in the running job that are done, skipped or failed.",
        "percentunit",
        ask(share(SETTLED, FOUND), now=True),
        history=False,
        empty="no job",
        decimals=1,
    )
    left = number(
        "Job: time to go",
        "Time for the images found without an outcome, at the speed of the last five minutes.",
        "s",
        ask(f"clamp_min(({FOUND} > 0) - {SETTLED}, 0) / ({JOB_SPEED} > 0)", now=True),
        empty="no job",
        runbook=["CxrviewBackfillStopped"],
        history=False,
    )
    speed = number(
        "Job: images/s",
        "Outcomes of all kinds. They are committed by the thousand.",
        IMAGES,
        ask(JOB_SPEED),
        decimals=1,
    )
    stopped = number(
        "Jobs stopped",
        "They wait until an operator resumes or cancels them; each states its reason.",
        "short",
        ask(f"sum({of('cxrview_backfill_jobs', STOPS)})"),
        limit=(1, 2),
        runbook=["CxrviewBackfillStopped"],
        decimals=0,
    )
    return 5, [(6, part), (6, left), (6, speed), (6, stopped)]


def _job_lines() -> Row:
    images = lines(
        "Images of the job by state",
        "Images of the running job. Open: found, without an outcome yet.",
        "short",
        ask(f"sum by (state) ({of(STATES, SETTLES)})", "{{state}}"),
        ask(f"clamp_min({FOUND} - {SETTLED}, 0)", "open"),
        stacked=True,
    )
    codes = lines(
        "Images of the job skipped or failed by code",
        "Since the start or resume of the job. Copies are `duplicate`.",
        "short",
        ask(f"sum by (reason) ({of('cxrview_backfill_refused_images')}) > 0", "{{reason}}"),
        stacked=True,
    )
    received = lines(
        "Bytes/s read by jobs",
        "Bytes of the archive's files.",
        "Bps",
        ask(rate("cxrview_backfill_bytes_total"), "read"),
    )
    jobs = lines(
        "Jobs by state",
        "All jobs in the service's folder.",
        "short",
        ask(f"sum by (state) ({of('cxrview_backfill_jobs')})", "{{state}}"),
        stacked=True,
        runbook=["CxrviewBackfillStopped"],
    )
    return 9, [(6, images), (6, codes), (6, received), (6, jobs)]


def _progress() -> list[Row]:
    done = number(
        "Done",
        "Images sent and answered within the chosen range, as Prometheus extrapolates them: the"
        " error is up to one scrape.",
        "short",
        ask(DONE, now=True),
        history=False,
    )
    part = number(
        "Progress",
        "Images done, as a share of the images of the archive, the number entered above.",
        "percentunit",
        ask(f"{DONE} / $images", now=True),
        history=False,
        decimals=1,
    )
    left = number(
        "Time to go",
        "Time for the remaining images, at the speed of the last five minutes.",
        "s",
        ask(f"clamp_min($images - {DONE}, 0) / ({SPEED} > 0)", now=True),
        empty="stands",
        runbook=["CxrviewStalled"],
        history=False,
    )
    waiting = number(
        "Waiting",
        "Images of the lane inside the service, with those of jobs. More wait at the client.",
        "short",
        ask(f"sum({of('cxrview_inside_images', BACKFILL)})"),
        runbook=["CxrviewStalled"],
        decimals=0,
    )
    return [(5, [(6, done), (6, part), (6, left), (6, waiting)])]


def _speed() -> list[Row]:
    images = lines(
        "Images/s of the lane",
        "By source: `backfills` are jobs; `batch`; `classify` is with lane=backfill.",
        IMAGES,
        ask(rate("cxrview_images_total", BACKFILL, by="source"), "{{source}}"),
        stacked=True,
    )
    received = lines(
        "Bytes/s of the lane",
        "Bytes of bodies as received, archives compressed.",
        "Bps",
        ask(rate("cxrview_received_bytes_total", BACKFILL), "received"),
    )
    views = lines(
        "Answers by view",
        "Images of the lane answered each second, by view; not_chest: no chest radiograph.",
        IMAGES,
        ask(rate("cxrview_images_total", BACKFILL, by="view"), "{{view}}"),
        stacked=True,
    )
    return [(9, [(8, images), (8, received), (8, views)])]


def _beside() -> list[Row]:
    refused = lines(
        "Refused by reason",
        "Images each second of both lanes, as refusals have no lane.",
        IMAGES,
        ask(present("cxrview_images_refused_total", by="reason"), "{{reason}}"),
        stacked=True,
        runbook=["CxrviewRefusesMore", "CxrviewOverloaded"],
    )
    part = lines(
        "Share refused",
        "Share of all images of both lanes.",
        "percentunit",
        ask(
            share(
                rate("cxrview_images_refused_total"),
                f"({rate('cxrview_images_refused_total')} + {rate('cxrview_images_total')})",
            ),
            "refused",
        ),
        limit=(0.01, 0.05),
        runbook=["CxrviewOverloaded"],
    )
    people = lines(
        "People's answers meanwhile, p99",
        "p99 of interactive answers, and the latency budget. Backfill must not slow them.",
        "s",
        ask(percentile(0.99, "cxrview_answer_seconds", INTERACTIVE), "p99, interactive"),
        ask(BUDGET, "budget"),
        dashed="budget",
        runbook=["CxrviewSlow"],
    )
    return [(9, [(8, refused), (8, part), (8, people)])]
