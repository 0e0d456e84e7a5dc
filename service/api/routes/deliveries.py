"""Deliveries of results: the endpoints, and the lifespan of what delivers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, get_args

from fastapi import APIRouter, Depends, Path, Query, Request

from service.api import metrics
from service.api.auth.permissions import authorise
from service.api.dicom import Exchange
from service.api.parameters import check_parameters
from service.api.paths import DELIVERIES
from service.api.problems import DELIVERY_RESPONSES
from service.api.request_context import context_of
from service.api.routes.delivery_schemas import Deliveries, Delivery, DestinationCounts
from service.dicom.entries import LARGEST_ID, STATES, DeliveriesDisabledError, State

if TYPE_CHECKING:
    from service.dicom import delivery as delivering
    from service.dicom.outbox import Outbox

FINISH_SECONDS = 2.0  # for the results in progress; others are sent by the next process
MOST = 500  # of a page

Responses = dict[int | str, dict[str, Any]]

ASKED: Responses = {status: DELIVERY_RESPONSES[status] for status in (401, 403, 404, 422, 503)}
CHANGED = ASKED | {409: DELIVERY_RESPONSES[409]}

router = APIRouter(
    prefix=DELIVERIES,
    tags=["deliveries"],
    dependencies=[authorise("admin"), check_parameters],
)


@asynccontextmanager
async def open_deliveries(exchange: Exchange | None) -> AsyncIterator[None]:
    """Deliver what the outbox holds until the block ends, if there are destinations."""
    if exchange is None:
        yield
        return
    from service.dicom.delivery import Deliveries as Delivering
    from service.dicom.destination_worker import Outcome

    names = [each.name for each in exchange.destinations]
    for name in names:  # begin at 0, so that alerts see the first one as an increase
        for outcome in get_args(Outcome):
            metrics.DELIVERY_ATTEMPTS.labels(name, outcome)
    delivering = Delivering(exchange.outbox, exchange.destinations, _count)
    _describe(delivering, names)
    delivering.start()
    try:
        yield
    finally:
        await asyncio.to_thread(delivering.close, FINISH_SECONDS)
        for name in names:
            metrics.DELIVERY_AGE.remove(name)
            for state in STATES:
                metrics.DELIVERIES.remove(name, state)


def _count(destination: str, outcome: str) -> None:
    metrics.DELIVERY_ATTEMPTS.labels(destination, outcome).inc()


def _describe(delivering: delivering.Deliveries, names: list[str]) -> None:
    def number(name: str, state: State) -> float:
        return delivering.counts(name).states[state]

    def age(name: str) -> float:
        return delivering.counts(name).oldest_seconds

    for name in names:
        metrics.DELIVERY_AGE.labels(name).set_function(partial(age, name))
        for state in STATES:
            metrics.DELIVERIES.labels(name, state).set_function(partial(number, name, state))


def outbox_of(request: Request) -> Outbox:
    """The outbox of the process.

    Raises:
        DeliveriesDisabledError: No destinations are configured.
    """
    exchange: Exchange | None = request.app.state.exchange
    if exchange is None:
        raise DeliveriesDisabledError("set CXRVIEW_DESTINATIONS to deliver results")
    return exchange.outbox


# A forward reference, because the module is loaded only if there are destinations
OutboxDep = Annotated["Outbox", Depends(outbox_of)]
DeliveryId = Annotated[int, Path(ge=1, le=LARGEST_ID)]


def _recorded(action: str) -> Any:
    """A dependency that records a request in the audit log first, if the delivery exists."""

    def record(request: Request, delivery: DeliveryId, outbox: OutboxDep) -> None:
        found = outbox.delivery(delivery)
        context_of(request.scope).asked_of_delivery(action, found.id, found.destination)

    return Depends(record)


@router.get("", summary="List deliveries", responses=ASKED)
def list_some(
    outbox: OutboxDep,
    state: Annotated[State | None, Query(description="only those")] = None,
    destination: Annotated[
        str | None, Query(max_length=64, description="only those of this destination")
    ] = None,
    before: Annotated[
        int | None, Query(ge=1, le=LARGEST_ID, description="`next` of the page before")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=MOST)] = 100,
) -> Deliveries:
    """Results for destinations, the newest first, and the numbers of all."""
    found = outbox.deliveries(state, destination, before=before, most=limit + 1)
    return Deliveries(
        deliveries=[Delivery.of(each) for each in found[:limit]],
        next=found[limit - 1].id if len(found) > limit else None,
        counts={name: DestinationCounts.of(each) for name, each in outbox.counts().items()},
    )


@router.post(
    "/{delivery}/retry",
    summary="Retry",
    dependencies=[_recorded("retry")],
    responses=CHANGED,
)
def retry(delivery: DeliveryId, outbox: OutboxDep) -> Delivery:
    """Send a dead or pending delivery at once, and give it the time of a new one."""
    return Delivery.of(outbox.retry(delivery))


@router.delete(
    "/{delivery}",
    summary="Drop",
    dependencies=[_recorded("drop")],
    responses=CHANGED,
)
def drop(delivery: DeliveryId, outbox: OutboxDep) -> Delivery:
    """Never deliver it; its payload is removed, and its record is kept for `keep_days`."""
    return Delivery.of(outbox.drop(delivery))
