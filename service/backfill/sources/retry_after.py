"""The header field Retry-After."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime


def seconds_until(retry_after: str) -> float | None:
    """Retry-After as seconds from now: a number of seconds, or a date (RFC 9110 10.2.3).

    None if it is neither.
    """
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        return max(parsedate_to_datetime(retry_after).timestamp() - time.time(), 0)
    except (ValueError, OverflowError):
        return None
