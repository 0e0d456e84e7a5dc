"""Error messages of all commands."""

from __future__ import annotations

from rich.console import Console


def complain(text: str) -> None:
    """Print an error to standard error, without line breaks, so that paths can be copied."""
    errors = Console(stderr=True)
    errors.print(f"error: {text}", style="red", highlight=False, markup=False, soft_wrap=True)
