"""The endpoints for the model's card, and for clients: the one that asks, and all."""

from __future__ import annotations

from fastapi import APIRouter, Request

from model_store import ModelCard
from service.api.auth.access import Access
from service.api.auth.permissions import authorise
from service.api.parameters import check_parameters
from service.api.paths import CLIENT, CLIENTS, MODEL
from service.api.problems import RESPONSES
from service.api.runtime import runtime_of
from service.api.schemas import ClientAccess, ClientUsage

router = APIRouter()


@router.get(
    MODEL,
    tags=["classification"],
    summary="The model's card",
    responses={status: RESPONSES[status] for status in (401, 503)},
    dependencies=[authorise(), check_parameters],
)
async def model(request: Request) -> ModelCard:
    """The card of the model that answers: heads, cutoffs, results, provenance.

    `heads` names the heads beside that of the view, with their cutoffs; those that are null the
    model has not. Results have confidence intervals.
    """
    return runtime_of(request).card


@router.get(
    CLIENT,
    tags=["operation"],
    summary="The client of the request",
    responses={status: RESPONSES[status] for status in (401, 503)},
    dependencies=[authorise(), check_parameters],
)
async def client(request: Request) -> ClientAccess:
    """The name and the permissions of the key or token that is sent."""
    access: Access = request.app.state.access
    return ClientAccess.of(await access.client_of(request.scope))


@router.get(
    CLIENTS,
    tags=["operation"],
    summary="List clients",
    responses={status: RESPONSES[status] for status in (401, 403, 503)},
    dependencies=[authorise("admin"), check_parameters],
)
async def clients(request: Request) -> list[ClientUsage]:
    """Clients with a key, and other clients that have sent requests.

    Needs `admin`. Counts are of this process, since it started.
    """
    access: Access = request.app.state.access
    known = {each.name: each for each in access.keys.clients} if access.keys else {}
    names = sorted({*known, *access.rates.seen})
    return [ClientUsage.of(name, known.get(name), access.rates.of(name)) for name in names]
