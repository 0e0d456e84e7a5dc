"""A webhook: CloudEvents in structured mode, signed as Standard Webhooks has it."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import time
from collections.abc import Callable

from service.dicom.destinations import WebhookDestination
from service.dicom.entries import Leased
from service.dicom.senders.sender import RetryableError, Warned
from service.dicom.senders.web import Web, check_status, secret

PREFIX = "whsec_"  # of a key in base64
KEY_BYTES = 16  # at least


class WebhookSender:
    """Posts events.

    Args:
        destination: The URL, and the file of the key.
        now: A clock, in seconds since 1970.

    References:
        https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
    """

    def __init__(
        self, destination: WebhookDestination, now: Callable[[], float] = time.time
    ) -> None:
        self._destination, self._now = destination, now
        self._web = Web(destination)

    def send(self, leased: Leased) -> Warned | None:
        """See Sender. The signature is made anew for each attempt, because it has a time."""
        identifier = str(json.loads(leased.payload)["id"])
        timestamp = str(int(self._now()))
        key = _key(secret(self._destination.secret_file))
        headers = {
            "Content-Type": "application/cloudevents+json; charset=utf-8",
            "webhook-id": identifier,
            "webhook-timestamp": timestamp,
            "webhook-signature": signature(key, identifier, timestamp, leased.payload),
        }
        check_status(self._web.post("", leased.payload, headers).status)
        return None

    def idle(self) -> None:
        """See Sender."""

    def close(self) -> None:
        """See Sender."""
        self._web.close()


def signature(key: bytes, identifier: str, timestamp: str, body: bytes) -> str:
    """`v1,` and the base64 of HMAC-SHA256 over `identifier.timestamp.body`."""
    signed = f"{identifier}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


def _key(text: str) -> bytes:
    try:
        key = (
            base64.b64decode(text.removeprefix(PREFIX), validate=True)
            if text.startswith(PREFIX)
            else text.encode()
        )
    except binascii.Error:
        key = b""
    if len(key) < KEY_BYTES:
        detail = f"secret_file must hold {KEY_BYTES} bytes at least, or whsec_ and base64"
        raise RetryableError("credentials", detail, away=True)
    return key
