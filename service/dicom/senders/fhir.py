"""FHIR R4: a conditional create, so that a repetition makes no second Observation."""

from __future__ import annotations

import json
from http import HTTPStatus
from urllib.parse import quote

from service.dicom.destinations import FhirDestination
from service.dicom.entries import Leased
from service.dicom.senders.sender import Warned
from service.dicom.senders.web import Web, check_status


class FhirSender:
    """Creates Observations, unless the server has one with the same identifier.

    References:
        https://hl7.org/fhir/R4/http.html#ccreate
    """

    def __init__(self, destination: FhirDestination) -> None:
        self._web = Web(destination)

    def send(self, leased: Leased) -> Warned | None:
        """See Sender."""
        (identifier, *_) = json.loads(leased.payload)["identifier"]
        token = f"{identifier['system']}|{identifier['value']}"
        headers = {
            "Content-Type": "application/fhir+json; charset=utf-8",
            "Accept": "application/fhir+json",
            "If-None-Exist": f"identifier={quote(token, safe='')}",
            "Prefer": "return=minimal",
        }
        reply = self._web.post("/Observation", leased.payload, headers)
        if reply.status == HTTPStatus.PRECONDITION_FAILED:
            return Warned("HTTP 412: the server has it more than once")
        check_status(reply.status)
        return None

    def idle(self) -> None:
        """See Sender."""

    def close(self) -> None:
        """See Sender."""
        self._web.close()
