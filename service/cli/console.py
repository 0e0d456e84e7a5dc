"""What all commands say, and how: errors on standard error, one line each."""

from __future__ import annotations

from rich.console import Console


def complain(text: str) -> None:
    """Say why a command cannot be done. Unwrapped, so that a path or an address can be copied."""
    errors = Console(stderr=True)
    errors.print(f"error: {text}", style="red", highlight=False, markup=False, soft_wrap=True)
