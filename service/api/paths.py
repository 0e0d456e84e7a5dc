"""The paths of the API. Other paths are not named in logs, metrics or traces."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.types import Scope

CLASSIFY = "/v1/classify"
BATCH = "/v1/classify/batch"
MODEL = "/v1/model"
CLIENTS = "/v1/clients"
CLIENT = "/v1/client"
BACKFILLS = "/v1/backfills"
REVIEWS = "/v1/reviews"
STUDIES = "/dicom-web/studies"
DELIVERIES = "/v1/deliveries"
PAGE = "/"
PAGE_FILES = "/ui/"
OPERATIONS = frozenset({"/livez", "/readyz", "/metrics"})
PREFIXES = (BACKFILLS, REVIEWS, STUDIES, DELIVERIES)  # followed by a job's id, say
NAMED = OPERATIONS | {CLASSIFY, BATCH, MODEL, CLIENT, CLIENTS, PAGE, "/docs", "/openapi.json"}
ELSEWHERE = "elsewhere"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def name_of(path: str) -> str:
    """A path for logs; unknown ones become `ELSEWHERE`, because they may hold a patient's name."""
    for prefix in PREFIXES:
        if path == prefix or path.startswith(f"{prefix}/"):
            return prefix  # without what follows, which may be any text
    if is_page(path):
        return PAGE
    return path if path in NAMED else ELSEWHERE


def template_of(path: str, templates: Iterable[str]) -> str | None:
    """The path with parameters, `/v1/backfills/{job}` say, that a path is one of."""
    given = path.split("/")
    found = [template for template in templates if _fits(template.split("/"), given)]
    return path if path in found else next(iter(found), None)


def _fits(wanted: list[str], given: list[str]) -> bool:
    pairs = zip(wanted, given, strict=False)
    return len(wanted) == len(given) and all(a == b or a.startswith("{") for a, b in pairs)


def method_of(scope: Scope) -> str:
    """The HTTP method for logs; unknown ones become `OTHER`."""
    return scope["method"] if scope["method"] in METHODS else "OTHER"


def is_page(path: str) -> bool:
    """Whether a path is that of the page that a person opens, or of one of its files."""
    return path == PAGE or path.startswith(PAGE_FILES)
