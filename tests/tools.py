"""Real tools that tests drive: .ci/tools fetches them, CXRVIEW_TOOLS says where they are."""

from __future__ import annotations

import os
from pathlib import Path

import needs
import pytest


def tool(name: str) -> Path:
    """The tool, as `helm-3/helm`; where it is not, the test is skipped."""
    folder = os.environ.get("CXRVIEW_TOOLS")
    path = Path(folder or ".") / name
    if folder is None or not path.is_file():
        pytest.skip(needs.TOOLS)
    return path
