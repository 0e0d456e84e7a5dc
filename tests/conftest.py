"""Fixtures that the tests of all packages share."""

from __future__ import annotations

import gc
import os
from collections import Counter
from pathlib import Path
from types import ModuleType

import needs
import pytest
from heads import with_heads

from model_store import DEFAULT_MODEL, ModelVersion, Store

ROOT = Path(__file__).parent.parent
DATA = Path(__file__).parent / "data"
SHARED = Path(os.environ.get("CXRVIEW_SHARED", ROOT.parent / "shared"))
SHIPPED = "googlenet/1.1.0"
# Modules that take five seconds or more on two cores: most of the time of all
SLOW = frozenset(Path(__file__).with_name("slow.txt").read_text().split())


@pytest.fixture(scope="session")
def version() -> ModelVersion:
    """A shipped version that tells the view alone; tests make versions of their own from it."""
    return Store().load(SHIPPED)


@pytest.fixture(scope="session")
def default() -> ModelVersion:
    """The version that answers if none is named."""
    return Store().load(DEFAULT_MODEL)


@pytest.fixture(scope="session")
def headed_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `swift/2.0.0`, the model with heads beside that of the view (heads.py)."""
    root = tmp_path_factory.mktemp("headed")
    Store(root).add(with_heads())
    return root


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of radiographs that cannot be redistributed; without it, the test is skipped."""
    if not SHARED.is_dir():
        pytest.skip(needs.RADIOGRAPHS)
    return SHARED


def pytest_configure(config: pytest.Config) -> None:
    """Tell tests/live.py whether coverage is measured."""
    if config.pluginmanager.hasplugin("_cov"):
        os.environ["PYTEST_COV"] = "1"


def drives_tools(module: ModuleType) -> bool:
    """Whether it uses tools.py, or servers of archives, which do."""
    names = {"tools", "archive_servers"}
    return any(
        getattr(value, "__module__", None) in names or getattr(value, "__name__", None) in names
        for value in vars(module).values()
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is slow, and what drives real tools and servers, before it is asked for.

    The slow modules come first: with several processes, none is left alone with one at the end.
    """
    for item in items:
        if drives_tools(item.module):
            item.add_marker("integration")
        if item.path.relative_to(ROOT / "tests").as_posix() in SLOW:
            item.add_marker("slow")
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was skipped, and what it takes to run it."""
    reports = terminalreporter.stats.get("skipped", [])
    reasons = Counter(str(report.longrepr[2]).removeprefix("Skipped: ") for report in reports)
    if reasons:
        terminalreporter.section(f"{reasons.total()} tests skipped")
    for reason, count in reasons.most_common():
        said = reason if count == 1 else reason.replace("needs", "need", 1)
        terminalreporter.line(f"{count:5} {said}")


def pytest_unconfigure() -> None:
    """Let the interpreter collect everything at its end.

    A service that starts in this process freezes what is there, test modules too; extension modules
    (DuckDB's, by nanobind) print a page about each object that is then never freed.
    """
    gc.unfreeze()
