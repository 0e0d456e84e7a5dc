"""The page that a person opens: the files of `service/ui`, read once."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import NamedTuple

from fastapi import APIRouter, HTTPException, Request, Response

from service.api.paths import PAGE, PAGE_FILES
from service.api.settings import Settings

# Of the files that are served; others, as licences and Python, are not
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
}
INDEX = "index.html"
SIGN_IN = "sign-in.json"  # how people sign in, or null: made of the settings


class File(NamedTuple):
    """A file, and how it is sent."""

    media_type: str
    data: bytes
    compressed: bytes  # by gzip

    def answer(self, request: Request) -> Response:
        """The file, compressed if the client takes that."""
        headers = {"Vary": "Accept-Encoding"}
        if "gzip" not in request.headers.get("accept-encoding", ""):
            return Response(self.data, media_type=self.media_type, headers=headers)
        headers["Content-Encoding"] = "gzip"
        return Response(self.compressed, media_type=self.media_type, headers=headers)


def read_files() -> dict[str, File]:
    """The files of the page by path, as `texts/en.json`."""
    return dict(_below(files("service") / "ui", ""))


def _below(folder: Traversable, prefix: str) -> Iterator[tuple[str, File]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _below(entry, f"{prefix}{entry.name}/")
            continue
        _, dot, ending = entry.name.rpartition(".")
        if (media_type := MEDIA_TYPES.get(dot + ending)) is not None:
            data = entry.read_bytes()
            yield prefix + entry.name, File(media_type, data, gzip.compress(data, mtime=0))


def _sign_in(settings: Settings) -> File:
    """The client with which the page signs in at the issuer. All of it is public."""
    found = {
        "issuer": settings.oidc_issuer,
        "client_id": settings.oidc_client_id,
        "scope": " ".join(settings.oidc_scopes.split()),
    }
    data = json.dumps(found if settings.oidc_client_id is not None else None).encode()
    return File(MEDIA_TYPES[".json"], data, gzip.compress(data, mtime=0))


def page_router(settings: Settings) -> APIRouter:
    """The routes of the page. They need no key: the page asks for it, and the API checks it."""
    router = APIRouter(include_in_schema=False)
    held = read_files() | {SIGN_IN: _sign_in(settings)}

    @router.api_route(PAGE, methods=["GET", "HEAD"])
    async def page(request: Request) -> Response:
        """The page."""
        return held[INDEX].answer(request)

    @router.api_route(PAGE_FILES + "{path:path}", methods=["GET", "HEAD"])
    async def file(request: Request, path: str) -> Response:
        """A file of the page."""
        if (found := held.get(path)) is None:
            raise HTTPException(404)
        return found.answer(request)

    return router
