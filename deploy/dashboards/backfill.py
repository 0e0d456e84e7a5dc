"""Backfill: how far an archive has come that is sent through the lane `backfill`."""

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
DONE = f"sum(increase({of('cxrview_images_total', BACKFILL)}[$__range]))"
SPEED = rate("cxrview_images_total", BACKFILL, window="5m")


def backfill() -> Dashboard:
    """For who sends an archive."""
    images = textbox("images", "Images in the archive", "100000")
    images.description("How many it holds; progress and time to go are reckoned from it.")
    return sheet(
        "cxrview-backfill",
        "cxrview: backfill",
        "How far an archive has come that is sent through the lane `backfill`. Choose a range that"
        " begins when the sending began.",
        [("How far it is", _progress()), ("Speed", _speed()), ("Beside it", _beside())],
        since="now-24h",
        extra=[images],
    )


def _progress() -> list[Row]:
    done = number(
        "Done",
        "Images of the lane answered within the chosen range, by Prometheus' reckoning: it may be"
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
        "Images of the lane inside the service: more wait at the client.",
        "short",
        ask(f"sum({of('cxrview_inside_images', BACKFILL)})"),
        runbook=["CxrviewStandsStill"],
        decimals=0,
    )
    return [(5, [(6, done), (6, part), (6, left), (6, waiting)])]


def _speed() -> list[Row]:
    images = lines(
        "Images/s of the lane",
        "By the endpoint that they came through: `batch`, or `classify` with lane=backfill.",
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
