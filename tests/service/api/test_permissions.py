"""Every route asks for its permission, before it reads a body: none is forgotten."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from fastapi import APIRouter, FastAPI
from fastapi.responses import PlainTextResponse
from fastapi.routing import RouteContext, iter_route_contexts
from live import Live, serving
from starlette.routing import Mount, Route

from service.api.app import create_app
from service.api.auth.clients import PERMISSIONS
from service.api.auth.keys import new_key
from service.api.auth.permissions import Authorise, authorise
from service.api.settings import Settings

# They say nothing of images: probes and metrics, the API's own description, and the page, which
# asks for a key itself
PUBLIC = {
    *("/", "/ui/{path:path}"),
    *("/livez", "/readyz", "/metrics", "/openapi.json"),
    *("/docs", "/docs/oauth2-redirect", "/redoc", "/static-offline-docs"),
}


def path_of(route: RouteContext) -> str:
    return route.path or getattr(route.original_route, "path", None) or ""


def guarded(dependant: Any) -> bool:
    """Whether a permission is asked for among these dependencies, or theirs."""
    return isinstance(dependant.call, Authorise) or any(map(guarded, dependant.dependencies))


def unguarded(app: FastAPI) -> set[str]:
    """Paths of routes that ask for no permission: of mounted applications too."""
    routes = list(iter_route_contexts(app.routes))
    assert routes
    return {
        path_of(route)
        for route in routes
        if not ((found := getattr(route, "dependant", None)) and guarded(found))
    }


async def nothing() -> None:
    """A route's function."""


def plain(app: FastAPI) -> None:
    app.get("/v1/extra")(nothing)


def in_a_router(app: FastAPI) -> None:
    router = APIRouter(prefix="/v1")
    router.post("/extra")(nothing)
    outer = APIRouter()
    outer.include_router(router)
    app.include_router(outer)


def of_starlette(app: FastAPI) -> None:
    app.router.routes.append(Route("/v1/extra", PlainTextResponse("x"), methods=["GET"]))


def mounted(app: FastAPI) -> None:
    app.mount("/v1/extra", FastAPI())


def mounted_with_routes(app: FastAPI) -> None:
    app.router.routes.append(Mount("/v1/extra", routes=[Route("/x", PlainTextResponse("x"))]))


def of_websockets(app: FastAPI) -> None:
    app.websocket("/v1/extra")(nothing)


def test_every_route_asks_for_a_permission_or_is_public() -> None:
    """The public ones are listed here; none of them is missing."""
    assert unguarded(create_app(Settings())) == PUBLIC


@pytest.mark.parametrize(
    "add",
    [plain, in_a_router, of_starlette, mounted, mounted_with_routes, of_websockets],
    ids=lambda add: add.__name__,
)
def test_a_route_without_a_permission_is_found(add: Any) -> None:
    """However it is added."""
    app = create_app(Settings())
    add(app)
    assert unguarded(app) - PUBLIC == {"/v1/extra"}


def test_a_route_with_a_permission_is_not_complained_about() -> None:
    """Its own, or its router's."""
    app = create_app(Settings())
    app.get("/v1/own", dependencies=[authorise("admin")])(nothing)
    router = APIRouter(prefix="/v1/router", dependencies=[authorise()])
    router.get("")(nothing)
    app.include_router(router)
    assert unguarded(app) == PUBLIC


@dataclass(frozen=True)
class Guarded:
    """A service with keys of each kind and jobs, and the paths that it has."""

    live: Live
    keys: dict[str, str]
    routes: list[tuple[str, str]]  # methods and paths that ask for a permission

    def answer(self, method: str, target: str, *headers: str) -> tuple[int, str, dict[str, str]]:
        """Status, code and headers for a head whose body never comes."""
        head = "\r\n".join([f"{method} {target} HTTP/1.1", "Host: x", *headers, "", ""])
        with socket.create_connection(("127.0.0.1", self.live.port), 10) as connection:
            connection.sendall(head.encode("latin-1"))
            received = b""
            while b"\r\n\r\n" not in received:
                received += (piece := connection.recv(65536))
                assert piece, received
            top, _, body = received.partition(b"\r\n\r\n")
            lines = top.decode().split("\r\n")
            fields = dict(line.lower().split(": ", 1) for line in lines[1:])
            rest = int(fields.get("content-length", 0)) - len(body)
            while method != "HEAD" and rest > 0 and (piece := connection.recv(65536)):
                body, rest = body + piece, rest - len(piece)
        code = json.loads(body).get("code", "") if b"problem" in top and body else ""
        return int(lines[0].split()[1]), code, fields

    def bearer(self, name: str) -> str:
        return f"Authorization: Bearer {self.keys[name]}"


BODY = "Content-Length: 1000000"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    keys, lines = {}, []
    for name in PERMISSIONS:
        keys[name], line = new_key(name, frozenset({name}))
        lines.append(line)
    (folder / "keys").write_text("\n".join(lines))
    (folder / "archive").mkdir()
    app = create_app(Settings())
    routes = [
        (method, path_of(route).replace("{job}", "0" * 32).replace("{instance}", "1"))
        for route in iter_route_contexts(app.routes)
        if path_of(route) not in PUBLIC
        for method in sorted(route.methods or ())
    ]
    settings = {
        "model": "swift/1.0.0",
        "keys": str(folder / "keys"),
        "backfill_folder": str(folder / "jobs"),
        "backfill_sources": str(folder / "archive"),
    }
    with serving(folder / "log", **settings) as live:
        yield Guarded(live, keys, routes)


# Followed by a job's id, a study's UID, a delivery's or an image's number
PREFIXES = {
    "/v1/backfills": "backfill",
    "/v1/deliveries": "admin",
    "/dicom-web/studies": "classify",
    "/v1/reviews": "review",
}


def needed_for(path: str) -> set[str]:
    """The permission of each path, as docs/access.md says; a new one must be added here."""
    for prefix, needed in PREFIXES.items():
        if path.startswith(prefix):
            return {needed}
    return {
        "/v1/model": set(PERMISSIONS),  # any
        "/v1/client": set(PERMISSIONS),
        "/v1/clients": {"admin"},
        "/v1/classify": {"classify"},
        "/v1/classify/batch": {"backfill"},
    }[path]


def test_every_route_refuses_before_it_reads(service: Guarded) -> None:
    """Without a key, with a wrong one, and with one that lacks the permission; no body comes."""
    assert len(service.routes) > 10
    wrong = f"Authorization: Bearer {service.keys['admin'][:-1]}"
    for method, path in service.routes:
        for header in ("X: y", wrong, "Authorization: Basic eDp5", "Authorization: Bearer"):
            status, code, fields = service.answer(method, path, header, BODY)
            assert (status, code) == (401, "not_authenticated"), (method, path, header)
            assert fields["www-authenticate"].startswith("bearer")
        for name in set(PERMISSIONS) - needed_for(path):
            found = service.answer(method, path, service.bearer(name), BODY)
            assert found[:2] == (403, "not_permitted"), (method, path, name)


@pytest.mark.parametrize(
    ("query", "needed"),
    [
        ("", {"classify"}),
        ("?", {"classify"}),
        ("?lane=interactive", {"classify"}),
        ("?lane=backfill", {"backfill"}),
        ("?lane=%62ackfill", {"backfill"}),
        ("?%6cane=backfill", {"backfill"}),
        ("?x=1&lane=backfill", {"backfill"}),
        ("?lane=interactive&lane=backfill", {"classify", "backfill"}),
        ("?lane=backfill&lane=interactive", {"classify", "backfill"}),
        ("?lane=backfill&lane=", {"backfill"}),
        ("?lane=interactive;lane=backfill", {"classify", "backfill"}),
        ("?lane=backfill;lane=interactive", {"classify", "backfill"}),
        ("?lane=backfill%26lane=interactive", {"classify", "backfill"}),
        ("?lane=backfill%00", {"classify", "backfill"}),
        ("?lane=+backfill", {"classify", "backfill"}),
        ("?lane=BACKFILL", {"classify", "backfill"}),
        ("?lane=x", {"classify", "backfill"}),
        ("?LANE=backfill", {"classify"}),
        ("?lane[]=backfill", {"classify"}),
        ("?lane%5b%5d=backfill", {"classify"}),
        ("?lane=&x", {"classify"}),
    ],
)
def test_no_query_gets_past_its_permission(service: Guarded, query: str, needed: set[str]) -> None:
    """However the lane is written: what the route could read as one needs its permission."""
    for name in PERMISSIONS:
        headers = (service.bearer(name), "Content-Length: 0")
        status, code, _ = service.answer("POST", f"/v1/classify{query}", *headers)
        assert (code == "not_permitted") == (not needed <= {name}), (name, status, code)
        assert status in {400, 403, 422}, (name, status, code)


def test_a_client_learns_what_it_may_do(service: Guarded) -> None:
    """Its name and permissions, by any key."""
    for name in PERMISSIONS:
        headers = {"authorization": f"Bearer {service.keys[name]}"}
        found = httpx2.get(f"{service.live.url}/v1/client", headers=headers).json()
        assert found == {"name": name, "permissions": [name]}


OTHER_PATHS = [
    "/v1/nothing", "/v1", "/v1/", "/v1/classify/", "/v1/classify//", "/v1//classify",
    "//v1/classify", "/V1/classify", "/v1/Classify", "/v1/classify%2f", "/v1/classify/batch/",
    "/v1/classify%20", "/v1/classify;x", "/v1/classify%00", "/./v1/classify", "/v1/./classify",
    "/docs/../v1/classify", "/v1/x/../classify", "/v1/clients/", "/v1/classify%3f", "/v1/models",
    "/static-offline-docs/../../v1/classify", "/v1/backfills/", "/livez/../v1/classify",
]  # fmt: skip


@pytest.mark.parametrize("path", OTHER_PATHS)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_path_that_is_none_is_not_found(service: Guarded, method: str, path: str) -> None:
    """For everybody, and nothing is redirected to where the client says that it is."""
    for header in ("X: y", service.bearer("admin"), service.bearer("classify")):
        status, _, fields = service.answer(method, path, header, "Content-Length: 0")
        assert status in {404, 405}, (method, path, status)
        assert "location" not in fields


@pytest.mark.parametrize(
    ("method", "path", "lacking"),
    [
        ("POST", "/v1/%63lassify", "backfill"),
        ("POST", "/%76%31/classify", "backfill"),
        ("POST", "/v1%2fclassify", "backfill"),
        ("POST", "/v1/%63lassify/%62atch", "classify"),
        ("POST", "/v1/classify%2fbatch", "classify"),
        ("GET", "/v1/%63lients", "classify"),
        ("GET", "/v1/%62ackfills", "classify"),
        ("GET", "/v1/%72eviews", "backfill"),
    ],
)
def test_a_path_that_is_written_otherwise_is_the_same(
    service: Guarded, method: str, path: str, lacking: str
) -> None:
    """It needs the same permission."""
    assert service.answer(method, path, BODY)[:2] == (401, "not_authenticated")
    found = service.answer(method, path, service.bearer(lacking), BODY)
    assert found[:2] == (403, "not_permitted")


def test_other_methods_are_not_allowed(service: Guarded) -> None:
    """What a path does not have is 405, with what it has; HEAD and OPTIONS open nothing."""
    by_path: dict[str, set[str]] = {}
    for method, path in service.routes:
        by_path.setdefault(path, set()).add(method)
    for path, methods in by_path.items():
        for method in {
            "GET",
            "HEAD",
            "OPTIONS",
            "PUT",
            "PATCH",
            "TRACE",
            "PROPFIND",
            "X",
        } - methods:
            status, _, fields = service.answer(method, path, "Content-Length: 0")
            assert status == 405, (method, path, status)
            assert set(fields["allow"].upper().split(", ")) == methods, path
