"""docs/backfill.md says what the command and the service have."""

from __future__ import annotations

import argparse
import re
from typing import get_args

from conftest import ROOT

from service.api.app import create_app
from service.api.paths import BACKFILLS
from service.api.routes import backfill_schemas as jobs
from service.api.settings import Settings
from service.backfill import job_view
from service.cli.backfill import add_backfill_options

TEXT = (ROOT / "docs" / "backfill.md").read_text()


def test_every_option_is_documented() -> None:
    """The table has those of the command, and no others."""
    parser = argparse.ArgumentParser(add_help=False)
    add_backfill_options(parser)
    options = {name for action in parser._actions for name in action.option_strings}
    lines = [line.split("|")[1] for line in TEXT.splitlines() if line.startswith("| `--")]
    assert {name for line in lines for name in re.findall(r"`(--[\w-]+)`", line)} == options


def test_every_endpoint_is_documented() -> None:
    """By the last word of its path; and every state of a job."""
    paths = create_app(Settings(model="swift/1.0.0")).openapi()["paths"]
    words = {path.split("/")[-1] for path in paths if path.startswith(f"{BACKFILLS}/")}
    assert words == {"{job}", "results", "certificate", "pause", "resume", "cancel", "retry-failed"}
    examples = TEXT.split("auth=")[1].split("```")[0]
    assert all(re.search(rf"\b{word}\b", examples) for word in words - {"{job}"})
    states = re.search(r"\*\*States\*\*: (.*?)\n- \*\*", TEXT, re.DOTALL)
    assert set(get_args(jobs.State)) <= set(re.findall(r"`(\w+)`", states[1]))
    assert get_args(jobs.State) == get_args(job_view.JobViewState)
