"""What happens to those who wait: interactive images beside a backfill, and too much of all."""

from __future__ import annotations

import time
from statistics import fmean

import servers
from bench import Bench, Row, latencies_of, middle, rounded, say
from companion import Companion, load_generator
from load import Outcome, percentile
from servers import Server

BUDGET_SECONDS = 2.0
BACKFILL = {"target": "/v1/classify?lane=backfill", "connections": 16}
SETTLE_SECONDS = 1.0  # from the first image of the backfill to a full lane
OVERLOAD = 3
# More than the lane holds, so that what is refused never waits for a connection
OVERLOAD_CONNECTIONS = 512
INTERACTIVE_SHARE = 0.1  # of capacity: interactive work alone leaves the service idle


def lanes(bench: Bench, model: str) -> Row:
    """Interactive latency with an idle and with a full backfill lane, in turn.

    Interactive are PNGs, at a tenth of what the service can do; backfill are all syntaxes, over 16
    connections that never pause. The backfill's clients run at low priority, because elsewhere
    they would be other machines.
    """
    idle, full, backfill = [], [], []
    with servers.running(servers.service(model)) as server, load_generator(19) as other:
        rate = max(2.0, INTERACTIVE_SHARE * _capacity(bench, server).images_s)
        # The lane's first image opens what serves it
        bench.measure([server], bodies=bench.files(), seconds=0, images=16, **BACKFILL)
        for _ in range(bench.plan.rounds):
            idle.append(_interactive(bench, server, rate))
            outcomes = _beside_backfill(bench, server, rate, other)
            full.append(outcomes[0])
            backfill.append(outcomes[1])
    row: Row = {"rate": rounded(rate), "idle": _latencies(idle), "full": _latencies(full)}
    row["backfill_images_s"] = [rounded(outcome.images_s) for outcome in backfill]
    row["backfill_refused"] = sum(outcome.statuses[503] for outcome in backfill)
    say(
        f"lanes, {model}: p99 {1e3 * row['idle']['p99_s']:.0f} ms idle, "
        f"{1e3 * row['full']['p99_s']:.0f} ms beside a backfill"
    )
    return row


def _capacity(bench: Bench, server: Server) -> Outcome:
    load = {"bodies": bench.files("png"), "connections": 32, "patient": True}
    bench.measure([server], **load, seconds=0, images=32)
    return bench.measure([server], **load, seconds=bench.plan.seconds).outcome


def _interactive(bench: Bench, server: Server, rate: float) -> Outcome:
    seconds, files = bench.plan.lane_seconds, bench.files("png")
    load = {"bodies": files, "connections": 16, "seconds": seconds, "rate": rate}
    return bench.measure([server], **load).outcome


def _beside_backfill(
    bench: Bench, server: Server, rate: float, other: Companion
) -> tuple[Outcome, Outcome]:
    server.resume()
    seconds = bench.plan.lane_seconds + 2 * SETTLE_SECONDS
    other.send(ports=[server.port], bodies=bench.files(), seconds=seconds, **BACKFILL)
    time.sleep(SETTLE_SECONDS)
    interactive = _interactive(bench, server, rate)
    server.resume()
    return interactive, Outcome(other.receive())


def _latencies(outcomes: list[Outcome]) -> Row:
    together = [seconds for outcome in outcomes for seconds in outcome.latencies_s]
    return {
        **latencies_of(together),
        "p99_s_by_round": [rounded(percentile(each.latencies_s, 0.99)) for each in outcomes],
        "unanswered": sum(len(each.answers) - len(each.good) for each in outcomes),
    }


def overload(bench: Bench, model: str) -> Row:
    """Three times as many images a second as the service can answer, for some seconds."""
    row: Row = {
        key: [] for key in ("capacity", "goodput", "goodput_share", "p99_s", "refused_share")
    }
    row |= {"budget_s": BUDGET_SECONDS, "without_retry_after": 0, "errors": 0}
    command = servers.service(model, latency_budget_seconds=BUDGET_SECONDS)
    with servers.running(command) as server:
        for _ in range(bench.plan.rounds):
            _overload_round(bench, server, row)
    say(
        f"overload, {model}: goodput {middle(row['goodput_share']):.2f} of capacity, "
        f"p99 {middle(row['p99_s']):.2f} s, {middle(row['refused_share']):.0%} refused"
    )
    return row


def _overload_round(bench: Bench, server: Server, row: Row) -> None:
    """Between two looks at the capacity, as machines are not always as fast."""
    before = _capacity(bench, server)
    outcome = bench.measure(
        [server],
        bodies=bench.files("png"),
        connections=OVERLOAD_CONNECTIONS,
        seconds=bench.plan.overload_seconds,
        rate=OVERLOAD * before.images_s,
        patient=True,
    ).outcome
    around = (before, _capacity(bench, server))
    capacity = fmean(each.images_s for each in around)
    # To each what the cores left by the load generator could do
    left = bench.cores - fmean(each.share_of_cpu for each in around)
    cores = (bench.cores - outcome.share_of_cpu) / left
    refusals = [answer for answer in outcome.answers if answer.status == 503]
    row["capacity"].append(rounded(capacity))
    row["goodput"].append(rounded(outcome.images_s))
    row["goodput_share"].append(rounded(outcome.images_s / capacity / cores))
    row["p99_s"].append(rounded(percentile(outcome.latencies_s, 0.99)))
    row["refused_share"].append(rounded(len(refusals) / len(outcome.answers)))
    row["without_retry_after"] += sum(not answer.retry_after for answer in refusals)
    row["errors"] += outcome.errors
