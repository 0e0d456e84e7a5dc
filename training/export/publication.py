"""Where new versions go, why one is refused, and how one is served: what needs no torch."""

from __future__ import annotations

from pathlib import Path

# Beside the checkout's own, which the package ships
STORE = Path("models")


class PublishError(Exception):
    """The run must not become a model version."""


def how_to_serve(reference: str, store: Path) -> str:
    """The command for a version that was just published."""
    return f"CXRVIEW_MODEL_STORE={store} CXRVIEW_MODEL={reference} cxrview serve"
