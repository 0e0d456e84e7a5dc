"""For tests of what goes without a search for garbage."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_search_for_garbage() -> Iterator[None]:
    """Only what nothing refers to goes."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
