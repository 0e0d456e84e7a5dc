"""The part of Orthanc's REST API that corrections need."""

from __future__ import annotations

from typing import Any, cast
from urllib.parse import urlsplit

import httpx2

from service.backfill.results.rows import SourceError
from service.backfill.sources.web import authorization

TIMEOUT_SECONDS = 60
UNAUTHORISED = (401, 403)


class OrthancAwayError(Exception):
    """Orthanc does not answer, does not let us in, or is no Orthanc: no call will succeed."""


class OrthancRefusedError(Exception):
    """Orthanc refuses one call; others may succeed."""


class Orthanc:
    """One Orthanc. Credentials are those of a DICOMweb source: CXRVIEW_DICOMWEB_*.

    Args:
        url: Where its REST API begins, as `http://127.0.0.1:8042`.

    Raises:
        ValueError: The URL is none, or holds a user, a password or a query.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(f"{url}: the address of an Orthanc begins with http:// or https://")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("the address of an Orthanc holds nothing secret and no query")
        self.url = url.rstrip("/")
        self._client = httpx2.Client(timeout=TIMEOUT_SECONDS)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def check(self) -> None:
        """Raises OrthancAwayError if there is no Orthanc that lets us in."""
        found = self._call("GET", "/system")
        if not isinstance(found, dict) or "DicomAet" not in found:
            raise OrthancAwayError(f"{self.url} is no Orthanc")

    def instances(self, sop_instance_uid: str) -> list[str]:
        """Orthanc's IDs of the instances with this UID; more than one if patients differ."""
        found = self._call("POST", "/tools/lookup", sop_instance_uid)
        return [each["ID"] for each in found if each["Type"] == "Instance"]

    def tags(self, instance: str) -> dict[str, Any]:
        """The attributes by keyword; None for values that are binary or long."""
        return cast(dict[str, Any], self._call("GET", f"/instances/{instance}/tags?simplify"))

    def modify(self, body: dict[str, Any]) -> None:
        """Store a modified copy, and return when it is stored.

        Raises:
            OrthancRefusedError: It is not stored.
        """
        found = self._call("POST", "/tools/bulk-modify", body)
        if found.get("FailedInstancesCount"):
            raise OrthancRefusedError("Orthanc could not store the copy")

    def delete(self, instance: str) -> None:
        """Delete one instance."""
        self._call("DELETE", f"/instances/{instance}")

    def _call(self, method: str, path: str, body: str | dict[str, Any] | None = None) -> Any:
        content = body if isinstance(body, str) else None
        json = body if isinstance(body, dict) else None
        try:
            headers = authorization()
            answer = self._client.request(
                method, self.url + path, content=content, json=json, headers=headers
            )
        except SourceError as error:
            raise OrthancAwayError(str(error)) from None
        except httpx2.RequestError as error:  # its text holds the address
            name = type(error).__name__
            raise OrthancAwayError(f"{self.url} does not answer ({name})") from error
        if answer.status_code in UNAUTHORISED:
            raise OrthancAwayError(f"{self.url} does not let us in: {answer.status_code}")
        if answer.status_code != 200:
            raise OrthancRefusedError(f"Orthanc answers {answer.status_code}{_why(answer)}")
        try:
            return answer.json()
        except ValueError:
            raise OrthancAwayError(f"{self.url} does not answer in JSON") from None


def _why(answer: httpx2.Response) -> str:
    """Orthanc's own message, which holds no attribute of an object."""
    try:
        message = answer.json()["Message"]
    except (ValueError, KeyError, TypeError):
        return ""
    return f": {message}"
