"""Deliveries: what waits for destinations, and how attempts end."""

from __future__ import annotations

from deploy.dashboards.parts import Row, ask, lines, number, of, present

WAITS = 'state=~"pending|leased"'
AWAY, DEAD, LATE = "CxrviewDestinationAway", "CxrviewDeadLetters", "CxrviewDeliveriesLate"


def deliveries() -> list[Row]:
    """For operators whose service delivers results; empty without destinations."""
    return [_numbers(), _lines()]


def _numbers() -> Row:
    waiting = number(
        "Results that wait",
        "Results in the outbox that are not delivered yet and still tried.",
        "short",
        ask(f"max(sum by (pod, instance) ({of('cxrview_deliveries', WAITS)}))"),
        empty="no destinations",
        runbook=[AWAY],
        decimals=0,
    )
    oldest = number(
        "Oldest result that waits",
        "Its age. A destination with hours waits for them.",
        "s",
        ask(f"max({of('cxrview_delivery_oldest_seconds')})"),
        empty="no destinations",
        runbook=[LATE],
        limit=(3600, 86400),
    )
    dead_state = 'state="dead"'
    dead = number(
        "Dead letters",
        "Results that are not tried again until an operator retries them.",
        "short",
        ask(f"max(sum by (pod, instance) ({of('cxrview_deliveries', dead_state)}))"),
        empty="no destinations",
        runbook=[DEAD],
        limit=(1, 10),
        decimals=0,
    )
    return 5, [(8, waiting), (8, oldest), (8, dead)]


def _lines() -> Row:
    attempts = lines(
        "Attempts/s by destination and outcome",
        "warning: delivered, with a remark of the destination; retry: failed, and tried again;"
        " dead: failed for good.",
        "ops",
        ask(
            present("cxrview_delivery_attempts_total", by="destination, outcome"),
            "{{destination}}, {{outcome}}",
        ),
        stacked=True,
        runbook=[AWAY, DEAD],
    )
    waiting = lines(
        "Results that wait by destination",
        "Pending or being sent.",
        "short",
        ask(
            "max by (destination) (sum by (destination, pod, instance) ("
            f"{of('cxrview_deliveries', WAITS)}))",
            "{{destination}}",
        ),
        stacked=True,
        runbook=[AWAY],
    )
    ages = lines(
        "Oldest result by destination",
        "Age of the oldest result that is not delivered yet and still tried.",
        "s",
        ask(f"max by (destination) ({of('cxrview_delivery_oldest_seconds')})", "{{destination}}"),
        runbook=[LATE],
    )
    return 9, [(8, attempts), (8, waiting), (8, ages)]
