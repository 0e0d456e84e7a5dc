"""Backfill: how far an archive has come, as a job or sent through the lane `backfill`."""

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
    """For who sends an archive."""
    images = textbox("images", "Images in the archive", "100000")
    images.description("How many it holds; progress and time to go are reckoned from it.")
    return sheet(
        "cxrview-backfill",
        "cxrview: backfill",
        "How far an archive has come: a job of the service, or what is sent through the lane"
        " `backfill`. For the latter, choose a range that begins when the sending began.",
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
    part = number(
        "Job: share done",
        "Of the images found so far of the job that is being worked on: done, skipped or failed.",
        "percentunit",
        ask(share(SETTLED, FOUND), now=True),
        history=False,
        empty="no job",
        decimals=1,
    )
    left = number(
        "Job: time to go",
        "For what has been found and has no outcome yet, at the speed of the last five minutes.",
        "s",
        ask(f"clamp_min(({FOUND} > 0) - {SETTLED}, 0) / ({JOB_SPEED} > 0)", now=True),
        empty="no job",
        runbook=["CxrviewBackfillStopped"],
        history=False,
    )
    speed = number(
        "Job: images/s",
        "Outcomes of all kinds; they are written down by the thousand.",
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
    images = lines(
        "Images of the job by state",
        "Of the job that is being worked on; open: found, and without an outcome yet.",
        "short",
        ask(f"sum by (state) ({of(STATES, SETTLES)})", "{{state}}"),
        ask(f"clamp_min({FOUND} - {SETTLED}, 0)", "open"),
        stacked=True,
    )
    codes = lines(
        "Images of the job skipped or failed by code",
        "Since the job was begun or resumed; copies are `duplicate`.",
        "short",
        ask(f"sum by (reason) ({of('cxrview_backfill_refused_images')}) > 0", "{{reason}}"),
        stacked=True,
    )
    received = lines(
        "Bytes/s read by jobs",
        "Of the archive's files.",
        "Bps",
        ask(rate("cxrview_backfill_bytes_total"), "read"),
    )
    jobs = lines(
        "Jobs by state",
        "All that the service's folder holds.",
        "short",
        ask(f"sum by (state) ({of('cxrview_backfill_jobs')})", "{{state}}"),
        stacked=True,
        runbook=["CxrviewBackfillStopped"],
    )
    return [
        (5, [(6, part), (6, left), (6, speed), (6, stopped)]),
        (9, [(6, images), (6, codes), (6, received), (6, jobs)]),
    ]


def _progress() -> list[Row]:
    done = number(
        "Done",
        "Images sent and answered within the chosen range, by Prometheus' reckoning: it may be"
        " off by a scrape's worth.",
        "short",
        ask(DONE, now=True),
        history=False,
    )
    part = number(
        "Progress",
        "Done, of the images in the archive, a number that is given above.",
        "percentunit",
        ask(f"{DONE} / $images", now=True),
        history=False,
        decimals=1,
    )
    left = number(
        "Time to go",
        "For what is left, at the speed of the last five minutes.",
        "s",
        ask(f"clamp_min($images - {DONE}, 0) / ({SPEED} > 0)", now=True),
        empty="stands",
        runbook=["CxrviewStandsStill"],
        history=False,
    )
    waiting = number(
        "Waiting",
        "Images of the lane inside the service, those of jobs among them: more wait at the client.",
        "short",
        ask(f"sum({of('cxrview_inside_images', BACKFILL)})"),
        runbook=["CxrviewStandsStill"],
        decimals=0,
    )
    return [(5, [(6, done), (6, part), (6, left), (6, waiting)])]


def _speed() -> list[Row]:
    images = lines(
        "Images/s of the lane",
        "By where they came from: `backfills` are jobs; `batch`, or `classify` with lane=backfill.",
        IMAGES,
        ask(rate("cxrview_images_total", BACKFILL, by="source"), "{{source}}"),
        stacked=True,
    )
    received = lines(
        "Bytes/s of the lane",
        "Bodies as they come, archives with their compression.",
        "Bps",
        ask(rate("cxrview_received_bytes_total", BACKFILL), "received"),
    )
    views = lines(
        "Answers by view",
        "Images of the lane answered each second, by their view.",
        IMAGES,
        ask(rate("cxrview_images_total", BACKFILL, by="view"), "{{view}}"),
        stacked=True,
    )
    return [(9, [(8, images), (8, received), (8, views)])]


def _beside() -> list[Row]:
    refused = lines(
        "Refused by reason",
        "Images each second, of both lanes: refusals are not counted by lane.",
        IMAGES,
        ask(present("cxrview_images_refused_total", by="reason"), "{{reason}}"),
        stacked=True,
        runbook=["CxrviewRefusesMore", "CxrviewFull"],
    )
    part = lines(
        "Share refused",
        "Of all images of both lanes.",
        "percentunit",
        ask(
            share(
                rate("cxrview_images_refused_total"),
                f"({rate('cxrview_images_refused_total')} + {rate('cxrview_images_total')})",
            ),
            "refused",
        ),
        limit=(0.01, 0.05),
        runbook=["CxrviewFull"],
    )
    people = lines(
        "People's answers meanwhile, p99",
        "p99 of interactive answers beside the budget: backfill must not slow them.",
        "s",
        ask(percentile(0.99, "cxrview_answer_seconds", INTERACTIVE), "p99, interactive"),
        ask(BUDGET, "budget"),
        dashed="budget",
        runbook=["CxrviewSlow"],
    )
    return [(9, [(8, refused), (8, part), (8, people)])]
