"""The context of a request: its identifier, its client and its outcome, for logs and audit.

It holds no data of a patient. Unknown paths are not named. The audit log holds keyed hashes: of an
image's SOP Instance UID, and of an archive's source.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from starlette.types import Scope

from service.api.audit import Asker, Audit
from service.inference import Classification

CONTEXT = "cxrview.request_context"


@dataclass
class RequestContext:
    """The context of one request."""

    request_id: str
    address: str
    audit: Audit | None = None
    client: str = ""  # empty until authenticated
    code: str = ""  # the code of the problem, if one was answered
    status: int = 0  # 0 until the response starts

    def classified(self, answer: Classification) -> None:
        """Record the answer for an image.

        Raises:
            AuditError: The record could not be written, so the answer must not be sent.
        """
        if self.audit is not None:
            self.audit.classified(self._asker, answer)

    def asked(self, action: str, job: str) -> None:
        """Record a request about an existing job, or the creation of one.

        Raises:
            AuditError: The record could not be written, so the request must not be carried out.
        """
        self._asked(action, {"job": job})

    def asked_of_delivery(self, action: str, delivery: int, destination: str) -> None:
        """Record a request to change a delivery.

        Raises:
            AuditError: The record could not be written, so the request must not be carried out.
        """
        if self.audit is not None:
            entry = {"action": action, "delivery": delivery, "destination": destination}
            self.audit.asked("delivery", self._asker, entry)

    def reviewed(self, action: str, job: str, **more: object) -> None:
        """Record a request of the review of a job: a decision, a picture, or an export.

        Raises:
            AuditError: The record could not be written, so the request must not be carried out.
        """
        if self.audit is not None:
            entry = {"action": action, "job": job} | more
            self.audit.asked("review", self._asker, entry)

    def asked_for_job(self, source: str) -> None:
        """Record a request to create a job.

        Raises:
            AuditError: The record could not be written, so no job must be created.
        """
        if self.audit is not None:
            self._asked("create", {"source_hmac": self.audit.hash(source)})

    def _asked(self, action: str, entry: Mapping[str, object]) -> None:
        if self.audit is not None:
            self.audit.asked("backfill", self._asker, {"action": action} | dict(entry))

    def failed(self, code: str, status: int) -> None:
        """Record that an image, or the request, was answered with a problem."""
        self.code = code
        if self.audit is not None:
            self.audit.failed(self._asker, code, status)

    @property
    def _asker(self) -> Asker:
        return Asker(self.request_id, self.client, self.address)


def context_of(scope: Scope) -> RequestContext:
    """The context of a request, which the RequestId middleware has created."""
    return cast("RequestContext", scope[CONTEXT])
