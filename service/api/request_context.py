"""What one request leaves behind: an identifier, and what became of it.

Nothing of a patient is in it: paths that are not ours are not named, and of an image there is a
keyed hash of its SOP Instance UID in the audit log, and of an archive one of its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from starlette.types import Scope

from service.api.audit import Audit
from service.inference import Classification

CONTEXT = "cxrview.request_context"


@dataclass
class RequestContext:
    """Of one request."""

    request_id: str
    address: str
    audit: Audit | None = None
    client: str = ""  # as soon as it is known
    code: str = ""  # of the problem that was answered
    status: int = 0

    def classified(self, answer: Classification) -> None:
        """An image has its answer.

        Raises:
            AuditError: It could not be recorded, so it must not be given.
        """
        if self.audit is not None:
            self.audit.classified(self.request_id, self.client, self.address, answer)

    def asked(self, action: str, job: str) -> None:
        """Something is asked of a job that there is, or a job has been made.

        Raises:
            AuditError: It could not be recorded, so it must not be done.
        """
        self._asked(action, {"job": job})

    def asked_for_job(self, source: str) -> None:
        """A job is asked for.

        Raises:
            AuditError: It could not be recorded, so it must not be made.
        """
        if self.audit is not None:
            self._asked("create", {"source_hmac": self.audit.hash(source)})

    def _asked(self, action: str, entry: Mapping[str, object]) -> None:
        if self.audit is not None:
            self.audit.asked(self.request_id, self.client, self.address, action, entry)

    def failed(self, code: str, status: int) -> None:
        """An image, or the request, has a problem instead."""
        self.code = code
        if self.audit is not None:
            self.audit.failed(self.request_id, self.client, self.address, code, status)


def context_of(scope: Scope) -> RequestContext:
    """That of a request, which has had one since it came in."""
    return cast("RequestContext", scope[CONTEXT])
