"""A clock for tests."""

from __future__ import annotations


class Clock:
    """Time that passes when told."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def __call__(self) -> float:
        return self.seconds
