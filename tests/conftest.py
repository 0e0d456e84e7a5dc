"""Fixtures that every room's tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from model_store import ModelVersion, Store

ROOT = Path(__file__).parent.parent
DATA = Path(__file__).parent / "data"
SHARED = Path(os.environ.get("CXRVIEW_SHARED", ROOT.parent / "shared"))
SHIPPED = "googlenet/1.0.0"


@pytest.fixture(scope="session")
def version() -> ModelVersion:
    """The shipped model version."""
    return Store().load(SHIPPED)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of radiographs that cannot be redistributed; without it, the test is skipped."""
    if not SHARED.is_dir():
        pytest.skip(f"no radiographs in {SHARED} (set CXRVIEW_SHARED)")
    return SHARED
