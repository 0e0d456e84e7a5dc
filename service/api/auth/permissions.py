"""Authorisation: dependencies of routes that check the client's permissions and rate.

Each route lists its permission as a dependency, so that FastAPI checks it before the body is read,
and a test can verify that every route has one.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import parse_qs

from fastapi import Depends, Request, Security
from fastapi.params import Depends as Dependency
from fastapi.security import HTTPBearer

from service.api.auth.access import Access
from service.api.auth.clients import NotPermittedError, Permission
from service.api.request_context import context_of

PERMISSIONS_OF_LANES: dict[str, Permission] = {
    "interactive": "classify",
    "backfill": "backfill",
}


class Authorise(HTTPBearer):
    """Dependency: the client is authenticated, and has these permissions.

    It is a FastAPI security scheme, so that the OpenAPI description says how to send a key.

    Raises (when called):
        NotAuthenticatedError, IssuerUnreachableError: The client cannot be authenticated.
        NotPermittedError: The client lacks a permission.
    """

    def __init__(self, permissions: Iterable[Permission]) -> None:
        description = "a key from `cxrview key`, or a token"
        super().__init__(scheme_name="HTTPBearer", auto_error=False, description=description)
        self._permissions = frozenset(permissions)

    async def __call__(self, request: Request) -> None:  # type: ignore[override]
        """Authenticate the client, set it in the request's context, and check its permissions."""
        access: Access = request.app.state.access
        client = await access.client_of(request.scope)
        context_of(request.scope).client = client.name
        if missing := self.needed(request) - client.permissions:
            raise NotPermittedError(set(missing))

    def needed(self, _: Request) -> frozenset[Permission]:
        """The permissions that this request needs."""
        return self._permissions


class AuthoriseLane(Authorise):
    """Like `Authorise`; the lane in the query decides which permission is needed."""

    def needed(self, request: Request) -> frozenset[Permission]:
        """The permissions of all lanes in the query; all permissions if a lane is unknown.

        A query may name the lane more than once. An unknown lane is refused after this check, so
        only a client with all permissions learns of it.
        """
        query = request.scope["query_string"].decode("latin-1")
        lanes = parse_qs(query).get("lane", ["interactive"])
        if any(lane not in PERMISSIONS_OF_LANES for lane in lanes):
            return self._permissions
        return frozenset(PERMISSIONS_OF_LANES[lane] for lane in lanes)


def authorise(*permissions: Permission) -> Dependency:
    """A route dependency that needs these permissions; without any, any authenticated client."""
    dependency: Dependency = Security(Authorise(permissions))
    return dependency


authorise_lane = Security(AuthoriseLane(PERMISSIONS_OF_LANES.values()))


async def _check_rate(request: Request) -> None:
    access: Access = request.app.state.access
    access.rates.check(context_of(request.scope).client)


async def _count_image(request: Request) -> None:
    access: Access = request.app.state.access
    client = context_of(request.scope).client
    access.rates.check(client)
    access.rates.count(client)


# For routes with `authorise`: 429 if the client exceeds its rate of images
check_rate = Depends(_check_rate)  # the route counts the images
count_image = Depends(_count_image)  # the request is one image
